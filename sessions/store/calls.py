"""What became of each tool call that a client had to act on. Each function is a few statements of a transaction."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, insert, select, update

from graph.execution.outcome import OpenCall
from graph.sanitize import visible
from graph.timestamps import ago, now
from sessions.store.tables import calls, sessions

SHOWN = [column.name for column in calls.columns if column.name != "session_id"]
CHANGE = update(calls).where(calls.c.session_id == bindparam("session"), calls.c.call_id == bindparam("call"))
ONE = select(calls).where(calls.c.session_id == bindparam("session"), calls.c.call_id == bindparam("call"))
IS_THERE = exists().where(sessions.c.id == calls.c.session_id, sessions.c.deleted_at.is_(None))
DECIDED = {"approve": "approved", "edit": "approved", "reject": "rejected", "cancel": "cancelled", "expire": "expired"}
OPEN = {"asked", "sent"}
CLOSED = {"rejected", "cancelled", "expired"}


def opened(connection: Connection, session_id: str, pause: Iterable[OpenCall]) -> None:
    """Those that a thread waits for: asked of a human, or sent to the IDE."""
    for each in pause:
        status = "asked" if each.call.requires_approval else "sent"
        known = connection.execute(ONE, {"session": session_id, "call": each.call.call_id}).mappings().first()
        if known is None or known["proposed_at"] != each.created_at:
            _add(connection, session_id, each, status)
        elif known["status"] != status:
            sent = {"sent_at": known["sent_at"] or now()} if status == "sent" else {}
            _change(connection, session_id, each.call.call_id, status=status, answered_at=None, **sent)


def _add(connection: Connection, session_id: str, each: OpenCall, status: str) -> None:
    """In place of an earlier call of the same id, which a user took back."""
    forget(connection, session_id, [each.call.call_id])
    connection.execute(
        insert(calls),
        {
            "session_id": session_id,
            "call_id": each.call.call_id,
            "tool_name": each.call.tool_name,
            "agent": each.agent,
            "arguments": visible(each.call.arguments),
            "rule": each.rule,
            "status": status,
            "proposed_at": each.created_at,
            "decision": "approve" if each.passed else None,
            "decided_by": each.passed,
            "decided_at": each.created_at if each.passed else None,
            "sent_at": now() if status == "sent" else None,
        },
    )


def decided(connection: Connection, session_id: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """By entries of the audit."""
    for entry in entries:
        status = DECIDED[entry["decision"]]
        closed = {"answered_at": entry["timestamp"]} if status in CLOSED else {}
        about = {"decision": entry["decision"], "decided_by": entry["decided_by"], "decided_at": entry["timestamp"]}
        _change(connection, session_id, entry["call_id"], status=status, **about, **closed)


def answered(connection: Connection, session_id: str, call_id: str, status: str = "answered") -> None:
    _change(connection, session_id, call_id, status=status, answered_at=now())


def _change(connection: Connection, session_id: str, call_id: str, **values: Any) -> None:
    connection.execute(CHANGE, {"session": session_id, "call": call_id, **values})


def listed(connection: Connection, session_id: str) -> dict[str, dict[str, Any]]:
    """By call id."""
    rows = connection.execute(select(calls).where(calls.c.session_id == session_id)).mappings()
    return {row["call_id"]: {name: row[name] for name in SHOWN} for row in rows}


def still_open(connection: Connection, session_id: str, pause: Iterable[OpenCall]) -> list[OpenCall]:
    """Those of a pause that wait for their client: not those whose answer a run works on."""
    waited_for = list(pause)
    mine = and_(calls.c.session_id == session_id, calls.c.call_id.in_([each.call.call_id for each in waited_for]))
    closed = connection.scalars(select(calls.c.call_id).where(mine, calls.c.status.not_in(OPEN))).all()
    return [each for each in waited_for if each.call.call_id not in closed]


def forget(connection: Connection, session_id: str, call_ids: Iterable[str]) -> None:
    connection.execute(calls.delete().where(calls.c.session_id == session_id, calls.c.call_id.in_(list(call_ids))))


def undecided(connection: Connection, seconds: float) -> list[str]:
    """The sessions with an approval that is open for longer than that."""
    late = and_(calls.c.status == "asked", calls.c.proposed_at < ago(seconds), IS_THERE)
    return list(connection.scalars(select(calls.c.session_id).where(late).distinct()))


def unanswered(connection: Connection, seconds: float) -> list[tuple[str, str]]:
    """Session and id of the calls that an IDE works on for longer than that."""
    late = and_(calls.c.status == "sent", calls.c.sent_at < ago(seconds), IS_THERE)
    found = select(calls.c.session_id, calls.c.call_id).where(late).order_by(calls.c.sent_at).limit(100)
    return [(session_id, call_id) for session_id, call_id in connection.execute(found)]
