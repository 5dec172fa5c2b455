"""What became of each tool call that a client had to act on. Each function is a few statements of a transaction."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, insert, select, update

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
    "cancel": "cancelled",
    "expire": "expired",
}
OPEN_STATUSES = {"asked", "sent"}
CLOSED_STATUSES = {"rejected", "cancelled", "expired"}


def record_open(connection: Connection, session_id: str, open_calls: Iterable[OpenCall]) -> None:
    """Those that a thread waits for: asked of a human, or sent to the IDE."""
    for each in open_calls:
        status = "asked" if each.call.requires_approval else "sent"
        known = connection.execute(SELECT_CALL, {"session": session_id, "call": each.call.call_id}).mappings().first()
        if known is None or known["proposed_at"] != each.created_at:
            _insert_call(connection, session_id, each, status)
        elif known["status"] != status:
            sent = {"sent_at": known["sent_at"] or utc_timestamp()} if status == "sent" else {}
            _update_call(connection, session_id, each.call.call_id, status=status, answered_at=None, **sent)


def _insert_call(connection: Connection, session_id: str, open_call: OpenCall, status: str) -> None:
    """In place of an earlier call of the same id, which a user took back."""
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
    """By entries of the audit."""
    for entry in entries:
        status = STATUS_BY_DECISION[entry["decision"]]
        closed = {"answered_at": entry["timestamp"]} if status in CLOSED_STATUSES else {}
        about = {"decision": entry["decision"], "decided_by": entry["decided_by"], "decided_at": entry["timestamp"]}
        _update_call(connection, session_id, entry["call_id"], status=status, **about, **closed)


def record_result(connection: Connection, session_id: str, call_id: str, status: str = "answered") -> None:
    _update_call(connection, session_id, call_id, status=status, answered_at=utc_timestamp())


def _update_call(connection: Connection, session_id: str, call_id: str, **values: Any) -> None:
    connection.execute(UPDATE_CALL, {"session": session_id, "call": call_id, **values})


def list_calls(connection: Connection, session_id: str) -> dict[str, dict[str, Any]]:
    """By call id."""
    rows = connection.execute(select(calls).where(calls.c.session_id == session_id)).mappings()
    return {row["call_id"]: {name: row[name] for name in PUBLIC_COLUMNS} for row in rows}


def filter_open_calls(connection: Connection, session_id: str, open_calls: Iterable[OpenCall]) -> list[OpenCall]:
    """Those of a pause that wait for their client: not those whose answer a run works on."""
    waited_for = list(open_calls)
    mine = and_(calls.c.session_id == session_id, calls.c.call_id.in_([each.call.call_id for each in waited_for]))
    closed = connection.scalars(select(calls.c.call_id).where(mine, calls.c.status.not_in(OPEN_STATUSES))).all()
    return [each for each in waited_for if each.call.call_id not in closed]


def delete_calls(connection: Connection, session_id: str, call_ids: Iterable[str]) -> None:
    connection.execute(calls.delete().where(calls.c.session_id == session_id, calls.c.call_id.in_(list(call_ids))))


def find_overdue_approvals(connection: Connection, seconds: float) -> list[str]:
    """The sessions with an approval that is open for longer than that."""
    late = and_(calls.c.status == "asked", calls.c.proposed_at < timestamp_ago(seconds), SESSION_EXISTS)
    return list(connection.scalars(select(calls.c.session_id).where(late).distinct()))


def find_overdue_calls(connection: Connection, seconds: float) -> list[tuple[str, str]]:
    """Session and id of the calls that an IDE works on for longer than that."""
    late = and_(calls.c.status == "sent", calls.c.sent_at < timestamp_ago(seconds), SESSION_EXISTS)
    found = select(calls.c.session_id, calls.c.call_id).where(late).order_by(calls.c.sent_at).limit(100)
    return [(session_id, call_id) for session_id, call_id in connection.execute(found)]
