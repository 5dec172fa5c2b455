"""The audit: decisions on tool calls, and hashes of their results.

Rows are only added. Each has a hash over itself and the row before it, so that a later change is visible. Each function
with a connection executes a few statements in the caller's transaction.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, union

from graph import wire
from graph.execution.outcome import OpenCall
from graph.sanitize import escape_invisible
from graph.timestamps import utc_timestamp
from sessions.store import grants
from sessions.store.tables import audit_log, audit_results

ENTRY_FIELDS = [column.name for column in audit_log.columns if column.name not in ("session_id", "hash")]
ENTRY_KEYS = {*ENTRY_FIELDS, "hash", "session_id"}
"""The keys that an exported entry may have: the hash covers no others."""
RESULT_FIELDS = ("number", "seq", "timestamp", "result_hash", "hash")
ALLOWING_DECISIONS = {"approve", "edit"}
MAX_ERROR_CHARACTERS = 1_000
"""Characters of a client's error that an entry keeps. Chosen, not measured: the thread has the whole error."""

LATEST_ENTRY_OF_CALL = (
    select(audit_log)
    .where(audit_log.c.session_id == bindparam("session"), audit_log.c.call_id == bindparam("call"))
    .order_by(audit_log.c.seq.desc())
    .limit(1)
)


def entry_for_answer(open_call: OpenCall, answer: wire.ToolResult | wire.HitlDecision) -> dict[str, Any] | None:
    """Return the entry for an answer; None for the result of a call that needs no approval, which decides nothing."""
    if isinstance(answer, wire.HitlDecision):
        edits = answer.modified_arguments if answer.decision == "edit" else None
        return make_entry(open_call, answer.decision, "hitl_decision", edits=edits, feedback=answer.feedback or None)
    if not open_call.call.requires_approval:
        return None
    decision = answer.implied_decision
    feedback = (answer.error or "")[:MAX_ERROR_CHARACTERS] if decision == "failed" else answer.error
    return make_entry(open_call, decision, "tool_result", feedback=feedback)


def make_entry(
    open_call: OpenCall,
    decision: str,
    decided_by: str,
    *,
    edits: dict[str, Any] | None = None,
    feedback: str | None = None,
) -> dict[str, Any]:
    """Return the entry of a decision made now, without session, number and hash.

    Invisible characters in arguments and feedback are escaped, so that a reader of the audit sees them.
    """
    return {
        "timestamp": utc_timestamp(),
        "call_id": open_call.call.call_id,
        "tool_name": open_call.call.tool_name,
        "agent": open_call.agent,
        "original_arguments": escape_invisible(open_call.call.arguments),
        "decision": decision,
        "modified_arguments": escape_invisible(edits),
        "feedback": escape_invisible(feedback),
        "decided_by": decided_by,
        "rule": open_call.rule,
    }


def append_entries(connection: Connection, session_id: str, entries: list[dict[str, Any]]) -> None:
    """Add the entries to the chain of the session, whose row must be locked."""
    if not entries:
        return
    last = _last_entry(connection, session_id)
    seq, previous = (last.seq, last.hash) if last else (0, "")
    for row in entries:
        seq += 1
        previous = _hash_entry(session_id, {**row, "seq": seq}, previous)
        connection.execute(insert(audit_log).values(**row, session_id=session_id, seq=seq, hash=previous))


def _last_entry(connection: Connection, session_id: str) -> Row[Any] | None:
    newest = select(audit_log).where(audit_log.c.session_id == session_id).order_by(audit_log.c.seq.desc()).limit(1)
    return connection.execute(newest).first()


def record_auto_approvals(connection: Connection, session_id: str, calls: Sequence[OpenCall]) -> None:
    """Add an entry for each call that the policy or a grant approved, once each, before the calls are sent.

    A grant counts the call as a use.
    """
    for call in calls:
        if call.passed is None or find_decision(connection, session_id, call):
            continue
        append_entries(connection, session_id, [make_entry(call, "approve", call.passed)])
        if call.passed == "grant":
            grants.record_use(connection, call.rule.removeprefix("grant."))


def find_decision(connection: Connection, session_id: str, open_call: OpenCall) -> Row[Any] | None:
    """Return the newest entry of an open call as a row; None if it is undecided, or only an edit was refused.

    An entry older than the call belongs to another call of the same id, for example of a session that was deleted.
    """
    entry = connection.execute(LATEST_ENTRY_OF_CALL, {"session": session_id, "call": open_call.call.call_id}).first()
    return entry if entry and entry.timestamp >= open_call.created_at and entry.decision != "edit_refused" else None


def record_result(connection: Connection, session_id: str, open_call: OpenCall, answer: wire.ToolResult) -> None:
    """Add a hash of the result to the chain of results, if the audit allowed the call."""
    entry = find_decision(connection, session_id, open_call)
    if entry is None or entry.decision not in ALLOWING_DECISIONS:
        return
    mine = audit_results.c.session_id == session_id
    last = connection.execute(
        select(audit_results).where(mine).order_by(audit_results.c.number.desc()).limit(1)
    ).first()
    number, previous = (last.number, last.hash) if last else (0, "")
    content = json.dumps({"error": answer.error, "result": answer.result}, sort_keys=True)
    row = {"number": number + 1, "seq": entry.seq, "timestamp": utc_timestamp(), "result_hash": _sha256(content)}
    sealed = _hash_result(session_id, row, entry.hash, previous)
    connection.execute(insert(audit_results).values(**row, session_id=session_id, hash=sealed))


def list_entries(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the entries of a session with their hashes, oldest first."""
    rows = connection.execute(select(audit_log).where(audit_log.c.session_id == session_id).order_by(audit_log.c.seq))
    return [{name: row[name] for name in [*ENTRY_FIELDS, "hash"]} for row in rows.mappings()]


def list_audited_sessions(connection: Connection) -> list[str]:
    """Return the ids of all sessions that have entries or results, sorted."""
    session_ids = union(select(audit_log.c.session_id), select(audit_results.c.session_id))
    return sorted(connection.scalars(session_ids))


def list_results(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the results of a session's allowed calls, oldest first; `seq` is the entry that allowed the call."""
    mine = audit_results.c.session_id == session_id
    rows = connection.execute(select(audit_results).where(mine).order_by(audit_results.c.number))
    return [{name: row[name] for name in RESULT_FIELDS} for row in rows.mappings()]


def first_broken_entry(
    session_id: str, rows: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]] = ()
) -> int | None:
    """Return the number, from 1, of the first entry that was changed or inserted, or follows a removed one; or None.

    `rows` are all entries of a session, `results` those of its calls. A missing end of a chain leaves no trace in it.
    A broken result counts for its entry; a result without an entry is the number after the last entry.
    """
    previous = ""
    for seq, row in enumerate(rows, start=1):
        previous = _hash_entry(session_id, {**row, "seq": seq}, previous)
        if row.get("seq") != seq or row.get("hash") != previous or not row.keys() <= ENTRY_KEYS:
            return seq
    previous = ""
    for number, row in enumerate(results, start=1):
        entry_seq = row.get("seq")
        if not isinstance(entry_seq, int) or not 0 < entry_seq <= len(rows):
            return len(rows) + 1
        previous = _hash_result(session_id, {**row, "number": number}, rows[entry_seq - 1]["hash"], previous)
        if row.get("number") != number or row.get("hash") != previous:
            return entry_seq
    return None


def _hash_entry(session_id: str, row: Mapping[str, Any], previous: str) -> str:
    content = {name: row.get(name) for name in ENTRY_FIELDS} | {"session_id": session_id, "previous": previous}
    return _sha256(json.dumps(content, sort_keys=True))


def _hash_result(session_id: str, row: Mapping[str, Any], entry_hash: str, previous: str) -> str:
    content = {name: row.get(name) for name in RESULT_FIELDS if name != "hash"}
    content |= {"session_id": session_id, "entry": entry_hash, "previous": previous}
    return _sha256(json.dumps(content, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
