"""What a client needs to open a session again, its calls, and the whole of it as one document."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from sqlalchemy import Connection, RowMapping

from graph.execution.outcome import OpenCall
from graph.llm.openai_format import to_openai
from graph.sanitize import visible
from graph.settings import Settings
from graph.timestamps import now
from graph.usage import totals
from graph.usage.budgets import Budgets
from sessions.snapshots import Moments
from sessions.store import audit, calls, grants, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows

VERSION = 1
"""Of the exported document; another one means that a field changed its meaning or went away."""


class Views:
    """Each is of one moment. Every method raises SessionNotFound."""

    def __init__(self, moments: Moments, settings: Settings) -> None:
        self._moments = moments
        self._currency = settings.currency
        self._budgets = Budgets(settings)

    async def view(self, session_id: str, last: int) -> dict[str, Any]:
        """With the last so many messages."""
        row, rows, values = await self._moments.of(session_id, _at_work)
        messages = values.get("messages", [])
        return {
            **session_rows.shown(row),
            "messages": [to_openai(message) for message in messages[max(0, len(messages) - last) :]],
            "agent_history": values.get("switches", []),
            **rows,
            "usage": self._usage(row),
        }

    async def calls(self, session_id: str) -> dict[str, Any]:
        """In the order in which the model made them."""
        _, rows, values = await self._moments.of(session_id, lambda c, row: calls.listed(c, row["id"]))
        found = _calls(values.get("messages", []), rows)
        return {"session_id": session_id, "calls": found, "count": len(found)}

    async def export(self, session_id: str) -> dict[str, Any]:
        row, rows, values = await self._moments.of(session_id, _everything)
        messages = values.get("messages", [])
        return {
            "version": VERSION,
            "exported_at": now(),
            "session": session_rows.shown(row),
            "messages": [to_openai(message) for message in messages],
            "agent_history": values.get("switches", []),
            **rows,
            "calls": _calls(messages, rows["calls"]),
            "usage": self._usage(row),
        }

    async def usage(self, session_id: str, newest: int) -> dict[str, Any]:
        """What the session's model calls cost, with its newest runs that made any, and what its budgets leave."""
        row, rows, values = await self._moments.of(session_id, lambda c, row: run_rows.billed(c, row["id"], newest))
        return {
            "session_id": session_id,
            **self._usage(row),
            **totals.shown_parts(row["usage"]),
            "runs": [_billed(each) for each in rows],
            "budget": self._budgets.shown(values.get("spent")),
        }

    def _usage(self, row: RowMapping) -> dict[str, Any]:
        return {**totals.shown(row["usage"]), "currency": self._currency}


def _billed(row: RowMapping) -> dict[str, Any]:
    about = {"run_id": row["id"], "created_at": row["created_at"]}
    return {**about, **totals.shown(row["usage"]), "calls": totals.shown_calls(row["usage"])}


def _at_work(connection: Connection, row: RowMapping) -> dict[str, Any]:
    session_id, pause = row["id"], session_rows.pause_of(row)
    last = run_rows.last_run(connection, session_id)
    unfinished = last if last and last["status"] != "done" else None
    shown = [_open(each) for each in calls.still_open(connection, session_id, pause.calls if pause else [])]
    return {
        "open_calls": shown,
        "pending_approvals": [each["call_id"] for each in shown if each["requires_approval"]],
        "running": unfinished is not None,
        "run": unfinished and {name: unfinished[name] for name in ("id", "status", "input", "created_at")},
        "waiting": run_rows.waiting(connection, session_id),
        "last_event_id": last and f"{last['id']}-{_last_event(last)}",
    }


def _last_event(run: RowMapping) -> int:
    """0 for a run that goes on: the history is as it was before it, so a reader joins it from its start."""
    number: int = run["events"][-1][0] if run["status"] == "done" and run["events"] else 0
    return number


def _open(each: OpenCall) -> dict[str, Any]:
    return {
        "call_id": each.call.call_id,
        "tool_name": each.call.tool_name,
        "agent": each.agent,
        "arguments": each.call.arguments,
        "requires_approval": each.call.requires_approval,
        "rule": each.rule,
        "reason": each.reason,
        "created_at": each.created_at,
        "metadata": each.call.metadata,
    }


def _everything(connection: Connection, row: RowMapping) -> dict[str, Any]:
    session_id = row["id"]
    return {
        "audit": {"entries": audit.entries(connection, session_id), "results": audit.results(connection, session_id)},
        "grants": grants.all_of(connection, session_id),
        "calls": calls.listed(connection, session_id),
        "routings": routings.of_session(connection, session_id),
        "runs": [_run(each) for each in run_rows.runs_of(connection, session_id)],
    }


def _run(row: RowMapping) -> dict[str, Any]:
    events = [
        {"id": f"{row['id']}-{number}", "event": name, "data": data} for number, name, data in row["events"] or []
    ]
    told = ("id", "number", "status", "input", "options", "attempts", "created_at", "finished_at")
    usage = row["usage"] and {**totals.shown(row["usage"]), "calls": totals.shown_calls(row["usage"])}
    return {**{name: row[name] for name in told}, "usage": usage, "events": events}


def _calls(messages: Sequence[AnyMessage], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    return [
        _call(message, call, answers.get(call["id"] or ""), rows.get(call["id"] or ""))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


def _call(
    asked: AIMessage, call: RequestedCall, answer: ToolMessage | None, row: dict[str, Any] | None
) -> dict[str, Any]:
    """Its row, if a client had to act on it; else what the history tells. The arguments are those that ran."""
    unknown = dict.fromkeys(calls.SHOWN)
    told = {"call_id": call["id"], "tool_name": call["name"], "agent": asked.name, "status": _status(answer)}
    return {**unknown, **told, **(row or {}), "arguments": visible(call["args"])}


def _status(answer: ToolMessage | None) -> str:
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
