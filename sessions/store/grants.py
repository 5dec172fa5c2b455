"""The rows of grants: approvals that users asked to remember.

Each function executes a few statements in the caller's transaction.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from graph import wire
from graph.errors import InvalidDecision
from graph.execution.outcome import OpenCall
from graph.timestamps import utc_timestamp
from policy.grants import Grant, create_grant
from sessions.store.tables import grants

PRIVATE_COLUMNS = ("session_id", "ended_at", "arguments_hash")
PUBLIC_COLUMNS = [column.name for column in grants.columns if column.name not in PRIVATE_COLUMNS]


def grant_from_decision(open_call: OpenCall, decision: wire.HitlDecision) -> dict[str, Any] | None:
    """Return the row of the grant that a decision makes, without its session; None if it makes none.

    Raises InvalidDecision if the call or the pattern cannot be granted.
    """
    if decision.remember is None:
        return None
    if open_call.always_asks:
        raise InvalidDecision(
            f"Each such command of {open_call.agent} needs an approval of its own; approve it without remember."
        )
    edits = decision.modified_arguments if decision.decision == "edit" else {}
    arguments = {**open_call.call.arguments, **edits}
    try:
        grant = create_grant(open_call.agent, open_call.call.tool_name, arguments, decision.remember.pattern)
    except ValueError as error:
        raise InvalidDecision(f"The decision was not taken, the approval is still open. {error}") from None
    expires_at = decision.remember.minutes and datetime.now(UTC) + timedelta(minutes=decision.remember.minutes)
    return {
        "id": uuid4().hex,
        "call_id": open_call.call.call_id,
        "agent": grant.agent,
        "tool_name": grant.tool,
        "pattern": grant.pattern,
        "is_exact": grant.is_exact,
        "cwd": grant.cwd,
        "shell": grant.shell,
        "arguments_hash": grant.arguments_hash,
        "scope": decision.remember.scope,
        "uses_left": decision.remember.uses,
        "expires_at": expires_at.isoformat(timespec="microseconds") if expires_at else None,
        "created_at": utc_timestamp(),
    }


def add_grant(connection: Connection, session_id: str, row: dict[str, Any]) -> None:
    """Store a row of `grant_from_decision`."""
    connection.execute(insert(grants), {**row, "session_id": session_id})


def load_active_grants(connection: Connection, session_id: str) -> list[Grant]:
    """Return the active grants of a session for the policy, oldest first."""
    return [
        Grant(
            row["id"],
            row["agent"],
            row["tool_name"],
            row["pattern"],
            row["is_exact"],
            row["cwd"],
            row["shell"],
            row["uses_left"],
            row["arguments_hash"],
        )
        for row in connection.execute(
            select(grants).where(_is_active(session_id)).order_by(grants.c.created_at)
        ).mappings()
    ]


def list_grants(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the active grants of a session as clients see them, oldest first."""
    rows = connection.execute(select(grants).where(_is_active(session_id)).order_by(grants.c.created_at)).mappings()
    return [{name: row[name] for name in PUBLIC_COLUMNS} for row in rows]


def list_all_grants(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return all grants of a session, oldest first; the audit names those that ended as well."""
    rows = connection.execute(select(grants).where(grants.c.session_id == session_id).order_by(grants.c.created_at))
    return [{name: row[name] for name in [*PUBLIC_COLUMNS, "ended_at"]} for row in rows.mappings()]


def _is_active(session_id: str) -> ColumnElement[bool]:
    return and_(
        grants.c.session_id == session_id,
        grants.c.ended_at.is_(None),
        or_(grants.c.expires_at.is_(None), grants.c.expires_at > utc_timestamp()),
        or_(grants.c.uses_left.is_(None), grants.c.uses_left > 0),
    )


def record_use(connection: Connection, grant_id: str) -> None:
    """Count a call that used the grant; a grant without a limit of uses stays unlimited."""
    connection.execute(update(grants).where(grants.c.id == grant_id).values(uses_left=grants.c.uses_left - 1))


def end_grants(
    connection: Connection, session_id: str, *, grant_id: str | None = None, scope: str | None = None
) -> int:
    """End one active grant, those of a scope, or all; return their number.

    The rows stay, because the audit names them.
    """
    matches = _is_active(session_id)
    matches = and_(matches, grants.c.id == grant_id) if grant_id else matches
    matches = and_(matches, grants.c.scope == scope) if scope else matches
    return connection.execute(update(grants).where(matches).values(ended_at=utc_timestamp())).rowcount


def end_grants_of_calls(connection: Connection, session_id: str, call_ids: Sequence[str]) -> None:
    """End the active grants that the approvals of these calls made."""
    matches = and_(_is_active(session_id), grants.c.call_id.in_(call_ids))
    connection.execute(update(grants).where(matches).values(ended_at=utc_timestamp()))
