"""The rows of tool calls that a client had to act on.

Each function executes a few statements in the caller's transaction.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, insert, select, update

from graph import wire
from graph.execution.outcome import OpenCall
from graph.sanitize import escape_invisible
from graph.timestamps import timestamp_ago, utc_timestamp
from sessions.store.tables import calls, sessions

PUBLIC_COLUMNS = [column.name for column in calls.columns if column.name != "session_id"]
UPDATE_CALL = update(calls).where(calls.c.session_id == bindparam("session"), calls.c.call_id == bindparam("call"))
SELECT_CALL = select(calls).where(calls.c.session_id == bindparam("session"), calls.c.call_id == bindparam("call"))
SESSION_EXISTS = exists().where(sessions.c.id == calls.c.session_id, sessions.c.deleted_at.is_(None))
STATUS_BY_DECISION = {
    "approve": "approved",
    "edit": "approved",
    "reject": "rejected",
    "failed": "failed",
    "cancel": "cancelled",
    "expire": "expired",
}
"""The status of a call after a decision, in the words of the audit."""
PASS_COLUMNS = ("sent_at", "call_id", "tool_name", "agent", "arguments", "rule", "status")
OPEN_STATUSES = {"asked", "sent"}
"""The call waits for its client: for a decision, or for the result."""
CLOSED_STATUSES = {"rejected", "failed", "cancelled", "expired"}
"""The decision answered the call as well: no result follows."""
OVERDUE_BATCH = 100
"""Overdue calls of one round, each of which starts a run; the next round continues. Not measured."""


def record_open(connection: Connection, session_id: str, open_calls: Iterable[OpenCall]) -> None:
    """Store the calls of a pause: `asked` if they wait for a decision, `sent` if the IDE has to run them."""
    for each in open_calls:
        status = "asked" if each.call.requires_approval else "sent"
        row = connection.execute(SELECT_CALL, {"session": session_id, "call": each.call.call_id}).mappings().first()
        if row is None or row["proposed_at"] != each.created_at:
            _insert_call(connection, session_id, each, status)
        elif row["status"] != status:
            sent = {"sent_at": row["sent_at"] or utc_timestamp()} if status == "sent" else {}
            _update_call(connection, session_id, each.call.call_id, status=status, answered_at=None, **sent)


def _insert_call(connection: Connection, session_id: str, open_call: OpenCall, status: str) -> None:
    """Insert a call, in place of an earlier one of the same id whose turn was undone."""
    delete_calls(connection, session_id, [open_call.call.call_id])
    connection.execute(
        insert(calls),
        {
            "session_id": session_id,
            "call_id": open_call.call.call_id,
            "tool_name": open_call.call.tool_name,
            "agent": open_call.agent,
            "arguments": escape_invisible(open_call.call.arguments),
            "rule": open_call.rule,
            "status": status,
            "proposed_at": open_call.created_at,
            "decision": "approve" if open_call.passed else None,
            "decided_by": open_call.passed,
            "decided_at": open_call.created_at if open_call.passed else None,
            "sent_at": utc_timestamp() if status == "sent" else None,
        },
    )


def record_decisions(connection: Connection, session_id: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """Store the decisions of audit entries in the rows of their calls."""
    for entry in entries:
        status = STATUS_BY_DECISION[entry["decision"]]
        decision = {"decision": entry["decision"], "decided_by": entry["decided_by"], "decided_at": entry["timestamp"]}
        closing = {"answered_at": entry["timestamp"]} if status in CLOSED_STATUSES else {}
        _update_call(connection, session_id, entry["call_id"], status=status, **decision, **closing)


def record_result(connection: Connection, session_id: str, open_call: OpenCall, result: wire.ToolResult) -> None:
    """Mark a call as closed now: answered, rejected in the IDE, or failed before anyone approved it."""
    has_failed = open_call.call.requires_approval and result.implied_decision == "failed"
    status = "rejected" if result.is_rejected else "failed" if has_failed else "answered"
    _update_call(connection, session_id, open_call.call.call_id, status=status, answered_at=utc_timestamp())


def _update_call(connection: Connection, session_id: str, call_id: str, **values: Any) -> None:
    connection.execute(UPDATE_CALL, {"session": session_id, "call": call_id, **values})


def list_calls(connection: Connection, session_id: str) -> dict[str, dict[str, Any]]:
    """Return the calls of a session by call id, without the id of the session."""
    rows = connection.execute(select(calls).where(calls.c.session_id == session_id)).mappings()
    return {row["call_id"]: {name: row[name] for name in PUBLIC_COLUMNS} for row in rows}


def list_passes(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the calls that were sent to the client although nobody decided on them, oldest first."""
    passed = and_(calls.c.session_id == session_id, calls.c.decided_by.is_(None), calls.c.sent_at.is_not(None))
    rows = connection.execute(select(calls).where(passed).order_by(calls.c.sent_at, calls.c.call_id)).mappings()
    return [{name: row[name] for name in PASS_COLUMNS} for row in rows]


def filter_open_calls(connection: Connection, session_id: str, open_calls: Iterable[OpenCall]) -> list[OpenCall]:
    """Return the calls of a pause that wait for their client, without those whose answer a run works on."""
    candidates = list(open_calls)
    rows = and_(calls.c.session_id == session_id, calls.c.call_id.in_([each.call.call_id for each in candidates]))
    closed = connection.scalars(select(calls.c.call_id).where(rows, calls.c.status.not_in(OPEN_STATUSES))).all()
    return [each for each in candidates if each.call.call_id not in closed]


def delete_calls(connection: Connection, session_id: str, call_ids: Iterable[str]) -> None:
    """Delete the rows of these calls of a session."""
    connection.execute(calls.delete().where(calls.c.session_id == session_id, calls.c.call_id.in_(list(call_ids))))


def find_overdue_approvals(connection: Connection, seconds: float) -> list[str]:
    """Return the ids of sessions with an approval that has been open for more than `seconds`."""
    is_late = and_(calls.c.status == "asked", calls.c.proposed_at < timestamp_ago(seconds), SESSION_EXISTS)
    return list(connection.scalars(select(calls.c.session_id).where(is_late).distinct()))


def find_overdue_calls(connection: Connection, seconds: float) -> list[tuple[str, str]]:
    """Return session id and call id of calls that were sent to the IDE more than `seconds` ago; the oldest first.

    At most `OVERDUE_BATCH` are returned.
    """
    is_late = and_(calls.c.status == "sent", calls.c.sent_at < timestamp_ago(seconds), SESSION_EXISTS)
    ids = select(calls.c.session_id, calls.c.call_id).where(is_late).order_by(calls.c.sent_at).limit(OVERDUE_BATCH)
    return [(session_id, call_id) for session_id, call_id in connection.execute(ids)]
