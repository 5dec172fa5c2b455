"""The rows of classifications: the agent that each request went to, and the agent that the user picked instead.

Each function executes a few statements in the caller's transaction.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from graph import wire
from graph.routing.scoring import MAX_REQUEST_CHARS
from graph.routing.words import read_words
from graph.timestamps import utc_timestamp
from prompts import select_team
from sessions.event_log import RunEvent
from sessions.runs.status import RunStatus
from sessions.store.tables import routings, runs, sessions

PUBLIC_COLUMNS = ("text", "agent", "confidence", "method", "expected", "override", "created_at")
TEAM = select_team(multi_agent=True)
MAX_RUNS_SEARCHED = 500
"""Runs of a turn that are searched for the message that began it.

Each tool result is a run, and `MAX_TOOL_CALLS` allows 200 of them in a turn. Beyond the limit the text is empty.
"""


def record_routings(connection: Connection, session_id: str, run_id: str, events: Sequence[RunEvent]) -> None:
    """Store the classifications that a run sent to its client; if the transaction is repeated, once."""
    choices = [choice for choice in _read_routings(events) if choice["to_agent"] in TEAM]
    if not choices:
        return
    text = _find_request_text(connection, session_id, run_id)[:MAX_REQUEST_CHARS]
    shared = {"run_id": run_id, "session_id": session_id, "text": text, "created_at": utc_timestamp()}
    expected = read_words(text, TEAM).choice.agent
    rows = [
        {
            **shared,
            "number": number,
            "agent": choice["to_agent"],
            "confidence": choice["confidence"],
            "method": choice["classification_method"],
            "expected": expected,
        }
        for number, choice in enumerate(choices)
    ]
    connection.execute(delete(routings).where(routings.c.run_id == run_id))
    connection.execute(insert(routings), rows)


def _read_routings(events: Sequence[RunEvent]) -> Iterator[dict[str, Any]]:
    for event in events:
        if '"classification_method"' in event.data:
            yield json.loads(event.data)["metadata"]


def _find_request_text(connection: Connection, session_id: str, run_id: str) -> str:
    """Return the user's last text, of this run or of one before it; empty if none is found."""
    this_run = select(runs.c.number).where(runs.c.id == run_id).scalar_subquery()
    inputs = select(runs.c.input).where(runs.c.session_id == session_id, runs.c.number <= this_run)
    newest = inputs.order_by(runs.c.number.desc()).limit(MAX_RUNS_SEARCHED)
    return next(filter(None, map(_user_text, connection.scalars(newest))), "")


def _user_text(message: dict[str, Any]) -> str:
    return str(message.get("content") or "") if message["type"] in ("user_message", "switch_agent") else ""


def record_override(connection: Connection, session_id: str, message: wire.Message) -> None:
    """Store another specialist that the user picks before the next message: the last choice was wrong for them.

    A pick of the agent that has the conversation changes nothing.
    """
    if not isinstance(message, wire.SwitchAgent) or message.agent_type not in TEAM:
        return
    if connection.scalar(select(sessions.c.agent).where(sessions.c.id == session_id)) == message.agent_type:
        return
    in_session = routings.c.session_id == session_id
    newest = (
        select(routings).where(in_session).order_by(routings.c.created_at.desc(), routings.c.number.desc()).limit(1)
    )
    last = connection.execute(newest).mappings().first()
    if last is None or last["override"] or last["agent"] == message.agent_type or _has_later_message(connection, last):
        return
    is_last = (routings.c.run_id == last["run_id"], routings.c.number == last["number"])
    connection.execute(update(routings).where(*is_last).values(override=message.agent_type))


def _has_later_message(connection: Connection, routing: RowMapping) -> bool:
    """Return whether a text of the user came after this classification, and its run is done."""
    after = select(runs.c.number).where(runs.c.id == routing["run_id"]).scalar_subquery()
    later = select(runs.c.input).where(
        runs.c.session_id == routing["session_id"], runs.c.number > after, runs.c.status == RunStatus.DONE
    )
    return any(map(_user_text, connection.scalars(later)))


def list_routings(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the classifications of a session, oldest first."""
    rows = connection.execute(
        select(*(routings.c[name] for name in PUBLIC_COLUMNS))
        .where(routings.c.session_id == session_id)
        .order_by(routings.c.created_at, routings.c.number)
    )
    return [dict(row) for row in rows.mappings()]


def list_all_routings(connection: Connection) -> Iterator[dict[str, Any]]:
    """Yield the classifications of all sessions, without their sessions."""
    for row in connection.execute(select(*(routings.c[name] for name in PUBLIC_COLUMNS))).mappings():
        yield dict(row)
