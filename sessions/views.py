"""What a client needs to open a session again, its calls, and the whole of it as one document."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from sqlalchemy import Connection, RowMapping

from graph.execution.outcome import OpenCall
from graph.llm.openai_format import to_openai
from graph.sanitize import escape_invisible
from graph.settings import Settings
from graph.timestamps import utc_timestamp
from graph.usage import totals
from graph.usage.budgets import Budgets
from sessions.runs.status import RunStatus
from sessions.snapshots import Snapshots
from sessions.store import audit, calls, grants, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows

EXPORT_VERSION = 1
"""Of the exported document; another one means that a field changed its meaning or went away."""


class Views:
    """Each is of one moment. Every method raises SessionNotFound."""

    def __init__(self, snapshots: Snapshots, settings: Settings) -> None:
        self._snapshots = snapshots
        self._currency = settings.currency
        self._budgets = Budgets(settings)

    async def view_session(self, session_id: str, message_limit: int) -> dict[str, Any]:
        """With the last so many messages."""
        row, rows, values = await self._snapshots.read_snapshot(session_id, _read_live_state)
        messages = values.get("messages", [])
        return {
            **session_rows.to_json(row),
            "messages": [to_openai(message) for message in messages[max(0, len(messages) - message_limit) :]],
            "agent_history": values.get("switches", []),
            **rows,
            "usage": self._usage_totals(row),
        }

    async def list_calls(self, session_id: str) -> dict[str, Any]:
        """In the order in which the model made them."""
        _, rows, values = await self._snapshots.read_snapshot(session_id, lambda c, row: calls.list_calls(c, row["id"]))
        found = _calls_to_json(values.get("messages", []), rows)
        return {"session_id": session_id, "calls": found, "count": len(found)}

    async def export_session(self, session_id: str) -> dict[str, Any]:
        row, rows, values = await self._snapshots.read_snapshot(session_id, _read_everything)
        messages = values.get("messages", [])
        return {
            "version": EXPORT_VERSION,
            "exported_at": utc_timestamp(),
            "session": session_rows.to_json(row),
            "messages": [to_openai(message) for message in messages],
            "agent_history": values.get("switches", []),
            **rows,
            "calls": _calls_to_json(messages, rows["calls"]),
            "usage": self._usage_totals(row),
        }

    async def report_usage(self, session_id: str, run_limit: int) -> dict[str, Any]:
        """What the session's model calls cost, with its newest runs that made any, and what its budgets leave."""
        row, rows, values = await self._snapshots.read_snapshot(
            session_id, lambda c, row: run_rows.runs_with_usage(c, row["id"], run_limit)
        )
        return {
            "session_id": session_id,
            **self._usage_totals(row),
            **totals.breakdowns_to_json(row["usage"]),
            "runs": [_run_usage_to_json(each) for each in rows],
            "budget": self._budgets.to_json(values.get("spent")),
        }

    def _usage_totals(self, row: RowMapping) -> dict[str, Any]:
        return {**totals.to_json(row["usage"]), "currency": self._currency}


def _run_usage_to_json(row: RowMapping) -> dict[str, Any]:
    about = {"run_id": row["id"], "created_at": row["created_at"]}
    return {**about, **totals.to_json(row["usage"]), "calls": totals.calls_to_json(row["usage"])}


def _read_live_state(connection: Connection, row: RowMapping) -> dict[str, Any]:
    session_id, pause = row["id"], session_rows.pause_of(row)
    last = run_rows.find_current_or_last(connection, session_id)
    unfinished = last if last and last["status"] != RunStatus.DONE else None
    shown = [
        _open_call_to_json(each)
        for each in calls.filter_open_calls(connection, session_id, pause.calls if pause else [])
    ]
    return {
        "open_calls": shown,
        "pending_approvals": [each["call_id"] for each in shown if each["requires_approval"]],
        "running": unfinished is not None,
        "run": unfinished and {name: unfinished[name] for name in ("id", "status", "input", "created_at")},
        "waiting": run_rows.queue_length(connection, session_id),
        "last_event_id": last and f"{last['id']}-{_last_event_number(last)}",
    }


def _last_event_number(run: RowMapping) -> int:
    """0 for a run that goes on: the history is as it was before it, so a reader joins it from its start."""
    number: int = run["events"][-1][0] if run["status"] == RunStatus.DONE and run["events"] else 0
    return number


def _open_call_to_json(open_call: OpenCall) -> dict[str, Any]:
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


def _read_everything(connection: Connection, row: RowMapping) -> dict[str, Any]:
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


def _run_to_json(row: RowMapping) -> dict[str, Any]:
    events = [
        {"id": f"{row['id']}-{number}", "event": name, "data": data} for number, name, data in row["events"] or []
    ]
    told = ("id", "number", "status", "input", "options", "attempts", "created_at", "finished_at")
    usage = row["usage"] and {**totals.to_json(row["usage"]), "calls": totals.calls_to_json(row["usage"])}
    return {**{name: row[name] for name in told}, "usage": usage, "events": events}


def _calls_to_json(messages: Sequence[AnyMessage], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    return [
        _call_to_json(message, call, answers.get(call["id"] or ""), rows.get(call["id"] or ""))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


def _call_to_json(
    message: AIMessage, call: RequestedCall, answer: ToolMessage | None, row: dict[str, Any] | None
) -> dict[str, Any]:
    """Its row, if a client had to act on it; else what the history tells. The arguments are those that ran."""
    unknown = dict.fromkeys(calls.PUBLIC_COLUMNS)
    told = {"call_id": call["id"], "tool_name": call["name"], "agent": message.name, "status": _call_status(answer)}
    return {**unknown, **told, **(row or {}), "arguments": escape_invisible(call["args"])}


def _call_status(answer: ToolMessage | None) -> str:
    """Of one without a row. Nothing but the service answers an error that begins with no `Error: `."""
    match answer:
        case None:
            return "open"
        case ToolMessage(additional_kwargs={"rejected": True}):
            return "rejected"
        case ToolMessage(additional_kwargs={"refused": True}):
            return "refused"
        case ToolMessage(status="error", content=str(content)) if content.startswith(("cancelled: ", "expired: ")):
            return content.partition(":")[0]
    return "answered"
