"""What clients ask about sessions, in the shapes they parse."""

import re
from typing import Any
from uuid import uuid4

from sqlalchemy import RowMapping

from graph import wire
from graph.execution.outcome import Graph, OpenCall, thread_config
from graph.llm.openai_format import to_openai
from graph.sanitize import sanitize_value
from graph.settings import Settings
from sessions.deletion import Deletion
from sessions.lookup import SessionLookup
from sessions.pruning import Pruning
from sessions.rewind import Rewind
from sessions.runs.service import Runs
from sessions.snapshots import Snapshots
from sessions.store import audit, calls, grants
from sessions.store import sessions as session_rows
from sessions.store.database import Database
from sessions.views import Views


class GrantNotFound(Exception):
    def __init__(self, session_id: str, grant_id: str) -> None:
        super().__init__(f"Session {session_id} has no grant {_sanitize_id(grant_id)}")


def _sanitize_id(text: str) -> str:
    """What can be no id is not repeated, nor asked for."""
    return text if re.fullmatch(wire.ID_PATTERN, text) else "of this name"


class Sessions:
    """Every method but `create` and `listed` raises SessionNotFound."""

    def __init__(self, database: Database, graph: Graph, runs: Runs, settings: Settings) -> None:
        self._database = database
        self._graph = graph
        self._lookup = SessionLookup(database, runs.replica)
        moments = Snapshots(database, graph)
        self.views = Views(moments, settings)
        self.rewind = Rewind(database, graph, self._lookup, moments)
        self.deletion = Deletion(database, graph, runs, self._lookup)
        self.pruning = Pruning(database, graph, self._lookup)

    async def create(self) -> dict[str, Any]:
        row = await self._database.transact(lambda connection: session_rows.create_session(connection, str(uuid4())))
        return {
            "session_id": row["id"],
            "message_count": 0,
            "current_agent": row["agent"],
            "created_at": row["created_at"],
        }

    async def list_sessions(self, q: str, limit: int, offset: int) -> dict[str, Any]:
        found, total = await self._database.transact(
            lambda connection: session_rows.list_sessions(connection, sanitize_value(q), limit, offset)
        )
        return {"sessions": found, "total": total}

    async def get_session(self, session_id: str) -> dict[str, Any]:
        return session_rows.to_json(await self._lookup.find(session_id))

    async def rename(self, session_id: str, changes: dict[str, str]) -> dict[str, Any]:
        await self._lookup.find(session_id)
        if changes:
            await self._database.transact(
                lambda connection: session_rows.rename_session(connection, session_id, changes)
            )
        return await self.get_session(session_id)

    async def get_current_agent(self, session_id: str) -> dict[str, Any]:
        row, values = await self._load_thread(session_id)
        switches = values.get("switches", [])
        return {
            "session_id": session_id,
            "current_agent": row["agent"],
            "agent_history": switches,
            "switch_count": len(switches),
        }

    async def get_history(self, session_id: str) -> dict[str, Any]:
        row, values = await self._load_thread(session_id)
        messages = [to_openai(message) for message in values.get("messages", [])]
        return {
            "session_id": session_id,
            "messages": messages,
            "message_count": len(messages),
            "last_activity": row["last_activity"],
            "current_agent": row["agent"],
            "agent_history": values.get("switches", []),
        }

    async def get_audit(self, session_id: str) -> dict[str, Any]:
        await self._lookup.find(session_id)
        found, came = await self._database.transact(
            lambda connection: (audit.list_entries(connection, session_id), audit.list_results(connection, session_id))
        )
        return {"session_id": session_id, "entries": found, "count": len(found), "results": came}

    async def list_grants(self, session_id: str) -> dict[str, Any]:
        """What stands, and the narrowest that each open approval could be remembered as."""
        pause = session_rows.pause_of(await self._lookup.find(session_id))
        found = await self._database.transact(lambda connection: grants.list_grants(connection, session_id))
        proposals = [
            {"call_id": each.call.call_id, "tool_name": each.call.tool_name, "pattern": pattern}
            for each in (pause.calls if pause else [])
            if (pattern := ((each.call.metadata or {}).get("remember") or {}).get("pattern"))
        ]
        return {"session_id": session_id, "grants": found, "count": len(found), "proposals": proposals}

    async def revoke_grants(self, session_id: str, grant_id: str | None = None) -> dict[str, Any]:
        """One grant, or all of them. Raises GrantNotFound."""
        await self._lookup.find(session_id)
        ended = await self._database.transact(
            lambda connection: grants.end_grants(connection, session_id, grant_id=grant_id and _sanitize_id(grant_id))
        )
        if grant_id and not ended:
            raise GrantNotFound(session_id, grant_id)
        return {"session_id": session_id, "revoked": ended}

    async def list_pending_approvals(self, session_id: str) -> dict[str, Any]:
        open_calls = await self._read_open_calls(session_id)
        pending = [
            {
                "call_id": each.call.call_id,
                "tool_name": each.call.tool_name,
                "arguments": each.call.arguments,
                "reason": each.reason,
                "created_at": each.created_at,
            }
            for each in open_calls
            if each.call.requires_approval
        ]
        return {"session_id": session_id, "pending_approvals": pending, "count": len(pending)}

    async def _read_open_calls(self, session_id: str) -> list[OpenCall]:
        pause = session_rows.pause_of(await self._lookup.find(session_id))
        if pause is None:
            return []
        return await self._database.transact(lambda c: calls.filter_open_calls(c, session_id, pause.calls))

    async def _load_thread(self, session_id: str) -> tuple[RowMapping, dict[str, Any]]:
        row = await self._lookup.find(session_id)
        snapshot = await self._graph.aget_state(thread_config(session_id))
        return row, snapshot.values
