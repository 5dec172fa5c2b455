"""Who decided what about which call: append-only, each entry holding a hash over itself and the one before it."""

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, insert, select

from graph import wire
from graph.state import now
from graph.turn import OpenCall
from sessions.tables import audit_log

FIELDS = [column.name for column in audit_log.columns if column.name not in ("session_id", "hash")]


def decision(open_call: OpenCall, said: wire.ToolResult | wire.HitlDecision) -> dict[str, Any] | None:
    """The entry for an answer; None for a plain result, which decides nothing."""
    if isinstance(said, wire.HitlDecision):
        edits = said.modified_arguments if said.decision == "edit" else None
        return entry(open_call, said.decision, "hitl_decision", edits=edits, feedback=said.feedback or None)
    if not open_call.call.requires_approval:
        return None
    return entry(
        open_call, "reject" if said.refused else "approve", "tool_result", feedback=said.error if said.refused else None
    )


def entry(
    open_call: OpenCall,
    what: str,
    decided_by: str,
    *,
    edits: dict[str, Any] | None = None,
    feedback: str | None = None,
) -> dict[str, Any]:
    return {
        "timestamp": now(),
        "call_id": open_call.call.call_id,
        "tool_name": open_call.call.tool_name,
        "agent": open_call.agent,
        "original_arguments": open_call.call.arguments,
        "decision": what,
        "modified_arguments": edits,
        "feedback": feedback,
        "decided_by": decided_by,
        "rule": open_call.rule,
    }


def append(connection: Connection, session_id: str, entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    last = _last(connection, session_id)
    seq, previous = (last.seq, last.hash) if last else (0, "")
    for row in entries:
        seq += 1
        previous = _hash(session_id, {**row, "seq": seq}, previous)
        connection.execute(insert(audit_log).values(**row, session_id=session_id, seq=seq, hash=previous))


def _last(connection: Connection, session_id: str) -> Any:
    newest = select(audit_log).where(audit_log.c.session_id == session_id).order_by(audit_log.c.seq.desc()).limit(1)
    return connection.execute(newest).first()


def entries(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Oldest first."""
    rows = connection.execute(select(audit_log).where(audit_log.c.session_id == session_id).order_by(audit_log.c.seq))
    return [{name: row[name] for name in [*FIELDS, "hash"]} for row in rows.mappings()]


def intact(session_id: str, rows: list[dict[str, Any]]) -> bool:
    """Whether no entry was changed, taken out or put in before the last one."""
    previous = ""
    for seq, row in enumerate(rows, start=1):
        previous = _hash(session_id, {**row, "seq": seq}, previous)
        if row["seq"] != seq or row["hash"] != previous:
            return False
    return True


def _hash(session_id: str, row: dict[str, Any], previous: str) -> str:
    told = {name: row[name] for name in FIELDS} | {"session_id": session_id, "previous": previous}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
