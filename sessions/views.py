"""Show a session as of one moment: to open it again, its calls, its usage, or the whole of it as one document."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from sqlalchemy import Connection, RowMapping

from graph.execution.outcome import OpenCall
from graph.llm.openai_format import to_openai
from graph.marks import is_refused, is_rejected
from graph.sanitize import escape_invisible
from graph.timestamps import utc_timestamp
from graph.usage import totals
from graph.usage.budgets import Budgets
from sessions.deps import Deps
from sessions.runs.status import RunStatus
from sessions.shapes import CallList, Json, LiveState, OpenCallInfo, SessionExport, SessionView, StoredRows
from sessions.snapshots import read_snapshot
from sessions.store import audit, calls, grants, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows

EXPORT_VERSION = 1
"""Raised when a field of the exported document changes its meaning or is removed."""

CURRENT_RUN_COLUMNS = ("id", "status", "input", "created_at")


async def view_session(deps: Deps, session_id: str, message_limit: int) -> SessionView:
    """Return what a client needs to open a session again, with its last messages. Raises SessionNotFound."""
    row, rows, values = await read_snapshot(deps, session_id, _read_live_state)
    messages = values.get("messages", [])
    return {
        **session_rows.to_json(row),
        "messages": [to_openai(message) for message in messages[max(0, len(messages) - message_limit) :]],
        "agent_history": values.get("switches", []),
        **rows,
        "usage": _usage_totals(deps, row),
    }


async def list_calls(deps: Deps, session_id: str) -> CallList:
    """Return every tool call of the conversation, in the model's order. Raises SessionNotFound."""
    _, rows, values = await read_snapshot(deps, session_id, lambda c, row: calls.list_calls(c, row["id"]))
    listed = _calls_to_json(values.get("messages", []), rows)
    return {"session_id": session_id, "calls": listed, "count": len(listed)}


async def export_session(deps: Deps, session_id: str) -> SessionExport:
    """Return the whole session as one document. Raises SessionNotFound."""
    row, rows, values = await read_snapshot(deps, session_id, _read_everything)
    messages = values.get("messages", [])
    return {
        "version": EXPORT_VERSION,
        "exported_at": utc_timestamp(),
        "session": session_rows.to_json(row),
        "messages": [to_openai(message) for message in messages],
        "agent_history": values.get("switches", []),
        **rows,
        "calls": _calls_to_json(messages, rows["calls"]),
        "usage": _usage_totals(deps, row),
    }


async def report_usage(deps: Deps, session_id: str, run_limit: int) -> Json:
    """Return the usage of the session and of its newest runs with model calls, and what its budgets leave.

    Raises SessionNotFound.
    """
    row, rows, values = await read_snapshot(
        deps, session_id, lambda c, row: run_rows.runs_with_usage(c, row["id"], run_limit)
    )
    return {
        "session_id": session_id,
        **_usage_totals(deps, row),
        **totals.breakdowns_to_json(row["usage"]),
        "runs": [_run_usage_to_json(each) for each in rows],
        "budget": Budgets(deps.settings).to_json(values.get("spent")),
    }


def _usage_totals(deps: Deps, row: RowMapping) -> Json:
    return {**totals.to_json(row["usage"]), "currency": deps.settings.currency}


def _run_usage_to_json(row: RowMapping) -> Json:
    return {
        "run_id": row["id"],
        "created_at": row["created_at"],
        **totals.to_json(row["usage"]),
        "calls": totals.calls_to_json(row["usage"]),
    }


def _read_live_state(connection: Connection, row: RowMapping) -> LiveState:
    session_id, pause = row["id"], session_rows.pause_of(row)
    last = run_rows.find_current_or_last(connection, session_id)
    unfinished = last if last and last["status"] != RunStatus.DONE else None
    open_calls = [
        _open_call_to_json(each)
        for each in calls.filter_open_calls(connection, session_id, pause.calls if pause else [])
    ]
    return {
        "open_calls": open_calls,
        "pending_approvals": [each["call_id"] for each in open_calls if each["requires_approval"]],
        "running": unfinished is not None,
        "run": {name: unfinished[name] for name in CURRENT_RUN_COLUMNS} if unfinished else None,
        "waiting": run_rows.queue_length(connection, session_id),
        "last_event_id": f"{last['id']}-{_last_event_number(last)}" if last else None,
    }


def _last_event_number(run: RowMapping) -> int:
    """Return the number of the last event, or 0 for an unfinished run: its events are not part of the history yet."""
    number: int = run["events"][-1][0] if run["status"] == RunStatus.DONE and run["events"] else 0
    return number


def _open_call_to_json(open_call: OpenCall) -> OpenCallInfo:
    return {
        "call_id": open_call.call.call_id,
        "tool_name": open_call.call.tool_name,
        "agent": open_call.agent,
        "arguments": open_call.call.arguments,
        "requires_approval": open_call.call.requires_approval,
        "rule": open_call.rule,
        "reason": open_call.reason,
        "created_at": open_call.created_at,
        "metadata": open_call.call.metadata,
    }


def _read_everything(connection: Connection, row: RowMapping) -> StoredRows:
    session_id = row["id"]
    return {
        "audit": {
            "entries": audit.list_entries(connection, session_id),
            "results": audit.list_results(connection, session_id),
        },
        "grants": grants.list_all_grants(connection, session_id),
        "calls": calls.list_calls(connection, session_id),
        "routings": routings.list_routings(connection, session_id),
        "runs": [_run_to_json(each) for each in run_rows.list_runs(connection, session_id)],
    }


def _run_to_json(row: RowMapping) -> Json:
    events = [
        {"id": f"{row['id']}-{number}", "event": name, "data": data} for number, name, data in row["events"] or []
    ]
    columns = ("id", "number", "status", "input", "options", "attempts", "created_at", "finished_at")
    usage = row["usage"] and {**totals.to_json(row["usage"]), "calls": totals.calls_to_json(row["usage"])}
    return {**{name: row[name] for name in columns}, "usage": usage, "events": events}


def _calls_to_json(messages: Sequence[AnyMessage], rows: dict[str, Json]) -> list[Json]:
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    return [
        _call_to_json(message, call, answers.get(call["id"] or ""), rows.get(call["id"] or ""))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


def _call_to_json(message: AIMessage, call: RequestedCall, answer: ToolMessage | None, row: Json | None) -> Json:
    """Merge the row of a call that a client had to act on with the history, whose arguments are those that ran."""
    empty = dict.fromkeys(calls.PUBLIC_COLUMNS)
    from_history = {
        "call_id": call["id"],
        "tool_name": call["name"],
        "agent": message.name,
        "status": _call_status(answer),
    }
    return {**empty, **from_history, **(row or {}), "arguments": escape_invisible(call["args"])}


def _call_status(answer: ToolMessage | None) -> str:
    """Return the status of a call without a row. Errors of tools begin with `Error: `, those of the service do not."""
    match answer:
        case None:
            return "open"
        case ToolMessage() if is_rejected(answer):
            return "rejected"
        case ToolMessage() if is_refused(answer):
            return "refused"
        case ToolMessage(status="error", content=str(content)) if content.startswith(("cancelled: ", "expired: ")):
            return content.partition(":")[0]
    return "answered"
