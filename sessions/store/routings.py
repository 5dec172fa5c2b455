"""How requests were routed, and what their users thought of it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from graph import wire
from graph.routing.classifier import classify_by_keywords
from graph.routing.scoring import MAX_REQUEST_CHARS
from graph.timestamps import utc_timestamp
from prompts import select_team
from sessions.event_log import RunEvent
from sessions.runs.status import RunStatus
from sessions.store.tables import routings, runs

PUBLIC_COLUMNS = ("text", "agent", "confidence", "method", "expected", "override", "created_at")
TEAM = select_team(multi_agent=True)
MAX_RUNS_SEARCHED = 500
"""Runs of one turn, among which the one is that began it."""


def record_routings(connection: Connection, session_id: str, run_id: str, events: Sequence[RunEvent]) -> None:
    """Those that a run told its client of; once, also if the transaction is made again."""
    made = [about for about in _read_routings(events) if about["to_agent"] in TEAM]
    if not made:
        return
    text = _find_request_text(connection, session_id, run_id)[:MAX_REQUEST_CHARS]
    shared = {"run_id": run_id, "session_id": session_id, "text": text, "created_at": utc_timestamp()}
    expected = classify_by_keywords(text, TEAM).agent
    rows = [
        {
            **shared,
            "number": number,
            "agent": about["to_agent"],
            "confidence": about["confidence"],
            "method": about["classification_method"],
            "expected": expected,
        }
        for number, about in enumerate(made)
    ]
    connection.execute(delete(routings).where(routings.c.run_id == run_id))
    connection.execute(insert(routings), rows)


def _read_routings(events: Sequence[RunEvent]) -> Iterator[dict[str, Any]]:
    for event in events:
        if '"classification_method"' in event.data:
            yield json.loads(event.data)["metadata"]


def _find_request_text(connection: Connection, session_id: str, run_id: str) -> str:
    """What the user said last, in this run or in one before it."""
    until = select(runs.c.number).where(runs.c.id == run_id).scalar_subquery()
    before = select(runs.c.input).where(runs.c.session_id == session_id, runs.c.number <= until)
    newest = before.order_by(runs.c.number.desc()).limit(MAX_RUNS_SEARCHED)
    return next(filter(None, map(_user_text, connection.scalars(newest))), "")


def _user_text(message: dict[str, Any]) -> str:
    return str(message.get("content") or "") if message["type"] in ("user_message", "switch_agent") else ""


def record_override(connection: Connection, session_id: str, message: wire.Message) -> None:
    """Whoever picks another specialist before they say anything else did not agree with the last choice."""
    if not isinstance(message, wire.SwitchAgent) or message.agent_type not in TEAM:
        return
    mine = routings.c.session_id == session_id
    newest = select(routings).where(mine).order_by(routings.c.created_at.desc(), routings.c.number.desc()).limit(1)
    last = connection.execute(newest).mappings().first()
    if last is None or last["override"] or last["agent"] == message.agent_type or _has_later_message(connection, last):
        return
    this = (routings.c.run_id == last["run_id"], routings.c.number == last["number"])
    connection.execute(update(routings).where(*this).values(override=message.agent_type))


def _has_later_message(connection: Connection, routing: Any) -> bool:
    """Whether the user has said something since."""
    after = select(runs.c.number).where(runs.c.id == routing["run_id"]).scalar_subquery()
    later = select(runs.c.input).where(
        runs.c.session_id == routing["session_id"], runs.c.number > after, runs.c.status == RunStatus.DONE
    )
    return any(given["type"] in ("user_message", "switch_agent") for given in connection.scalars(later))


def list_routings(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """In their order."""
    found = connection.execute(
        select(*(routings.c[name] for name in PUBLIC_COLUMNS))
        .where(routings.c.session_id == session_id)
        .order_by(routings.c.created_at, routings.c.number)
    )
    return [dict(row) for row in found.mappings()]


def list_all_routings(connection: Connection) -> Iterator[dict[str, Any]]:
    for row in connection.execute(select(*(routings.c[name] for name in PUBLIC_COLUMNS))).mappings():
        yield dict(row)
