"""Answer what clients ask about sessions, in the shapes that they parse."""

import re
from uuid import uuid4

from sqlalchemy import RowMapping

from graph import wire
from graph.execution.outcome import OpenCall, read_state, thread_config
from graph.llm.openai_format import to_openai
from graph.sanitize import sanitize_value
from graph.state import State
from sessions.deps import Deps
from sessions.lookup import find_session
from sessions.shapes import (
    AuditReport,
    CreatedSession,
    CurrentAgent,
    GrantList,
    GrantProposal,
    History,
    PendingApproval,
    PendingApprovals,
    RevokedGrants,
    SessionInfo,
    SessionList,
)
from sessions.store import audit, calls, grants
from sessions.store import sessions as session_rows


class GrantNotFound(Exception):
    def __init__(self, session_id: str, grant_id: str) -> None:
        super().__init__(f"Session {session_id} has no grant {_sanitize_id(grant_id)}")


def _sanitize_id(text: str) -> str:
    """Return the id; a text that cannot be one is neither repeated nor looked for."""
    return text if re.fullmatch(wire.ID_PATTERN, text) else "of this name"


async def create_session(deps: Deps) -> CreatedSession:
    """Create an empty session under a new id."""
    row = await deps.database.transact(lambda connection: session_rows.create_session(connection, str(uuid4())))
    return {
        "session_id": row["id"],
        "id": row["id"],
        "message_count": 0,
        "current_agent": row["agent"],
        "created_at": row["created_at"],
    }


async def list_sessions(deps: Deps, query: str, limit: int, offset: int) -> SessionList:
    """Return a page of the sessions whose title contains `query`, newest activity first."""
    sessions, total = await deps.database.transact(
        lambda connection: session_rows.list_sessions(connection, sanitize_value(query), limit, offset)
    )
    return {"sessions": sessions, "total": total}


async def get_session(deps: Deps, session_id: str) -> SessionInfo:
    """Return one session. Raises SessionNotFound, as every function below."""
    return session_rows.to_json(await find_session(deps, session_id))


async def rename_session(deps: Deps, session_id: str, changes: dict[str, str]) -> SessionInfo:
    """Change `title`, `description` or both."""
    await find_session(deps, session_id)
    if changes:
        await deps.database.transact(lambda connection: session_rows.rename_session(connection, session_id, changes))
    return await get_session(deps, session_id)


async def get_current_agent(deps: Deps, session_id: str) -> CurrentAgent:
    """Return the agent that holds the conversation, and the hand-offs before it, oldest first."""
    row, values = await _load_thread(deps, session_id)
    handoffs = values.get("switches", [])
    return {
        "session_id": session_id,
        "current_agent": row["agent"],
        "agent_history": handoffs,
        "switch_count": len(handoffs),
    }


async def get_history(deps: Deps, session_id: str) -> History:
    """Return the messages in OpenAI's format, oldest first, without the system prompt."""
    row, values = await _load_thread(deps, session_id)
    messages = [to_openai(message) for message in values.get("messages", [])]
    return {
        "session_id": session_id,
        "messages": messages,
        "message_count": len(messages),
        "last_activity": row["last_activity"],
        "current_agent": row["agent"],
        "agent_history": values.get("switches", []),
    }


async def get_audit(deps: Deps, session_id: str) -> AuditReport:
    """Return the decisions on tool calls and the hashes of their results, oldest first."""
    await find_session(deps, session_id)
    entries, results, passes = await deps.database.transact(
        lambda connection: (
            audit.list_entries(connection, session_id),
            audit.list_results(connection, session_id),
            calls.list_passes(connection, session_id) if deps.settings.audit_reads else None,
        )
    )
    report: AuditReport = {"session_id": session_id, "entries": entries, "count": len(entries), "results": results}
    return report if passes is None else {**report, "passes": passes}


async def list_grants(deps: Deps, session_id: str) -> GrantList:
    """Return the active grants, and a proposal for each open approval that can be remembered."""
    pause = session_rows.pause_of(await find_session(deps, session_id))
    active = await deps.database.transact(lambda connection: grants.list_grants(connection, session_id))
    open_calls = pause.calls if pause else []
    proposals = [proposal for each in open_calls if (proposal := _propose_grant(each))]
    return {"session_id": session_id, "grants": active, "count": len(active), "proposals": proposals}


def _propose_grant(open_call: OpenCall) -> GrantProposal | None:
    pattern = ((open_call.call.metadata or {}).get("remember") or {}).get("pattern")
    if not pattern:
        return None
    return {"call_id": open_call.call.call_id, "tool_name": open_call.call.tool_name, "pattern": pattern}


async def revoke_grants(deps: Deps, session_id: str, grant_id: str | None = None) -> RevokedGrants:
    """End one grant, or all of them. Raises GrantNotFound."""
    await find_session(deps, session_id)
    ended = await deps.database.transact(
        lambda connection: grants.end_grants(connection, session_id, grant_id=grant_id and _sanitize_id(grant_id))
    )
    if grant_id and not ended:
        raise GrantNotFound(session_id, grant_id)
    return {"session_id": session_id, "revoked": ended}


async def list_pending_approvals(deps: Deps, session_id: str) -> PendingApprovals:
    """Return the open calls that wait for the user's decision, in the model's order."""
    open_calls = await _read_open_calls(deps, session_id)
    pending = [_approval_to_json(each) for each in open_calls if each.call.requires_approval]
    return {"session_id": session_id, "pending_approvals": pending, "count": len(pending)}


def _approval_to_json(open_call: OpenCall) -> PendingApproval:
    return {
        "call_id": open_call.call.call_id,
        "tool_name": open_call.call.tool_name,
        "arguments": open_call.call.arguments,
        "reason": open_call.reason,
        "created_at": open_call.created_at,
    }


async def _read_open_calls(deps: Deps, session_id: str) -> list[OpenCall]:
    pause = session_rows.pause_of(await find_session(deps, session_id))
    if pause is None:
        return []
    return await deps.database.transact(lambda c: calls.filter_open_calls(c, session_id, pause.calls))


async def _load_thread(deps: Deps, session_id: str) -> tuple[RowMapping, State]:
    """Return the row of the session and the state of its thread."""
    row = await find_session(deps, session_id)
    return row, await read_state(deps.graph, thread_config(session_id))
