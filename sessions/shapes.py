"""The JSON objects that clients read about sessions. `api` serves them as they are."""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from graph.state import HandoffRecord

Json = dict[str, Any]
"""An object whose shape another room defines: an OpenAI-style message, a row of the audit, a grant."""


class SessionInfo(TypedDict):
    session_id: str
    id: str
    """The same id: newer IDEs read it under this name."""
    message_count: int
    last_activity: str
    """ISO 8601 in UTC, as every timestamp here."""
    current_agent: str
    title: str
    description: str
    created_at: str


class SessionList(TypedDict):
    sessions: list[SessionInfo]
    total: int
    """All sessions that match, not only those of this page."""


class CreatedSession(TypedDict):
    session_id: str
    id: str
    """The same id, as in `SessionInfo`."""
    message_count: int
    current_agent: str
    created_at: str


class ForkedSession(CreatedSession):
    title: str
    forked_from: str


class DeletedSession(TypedDict):
    session_id: str
    deleted: bool
    hard: bool


class UndoneTurn(TypedDict):
    session_id: str
    undone: Any
    """The content of the user's message that was undone."""
    message_count: int
    current_agent: str


class CurrentAgent(TypedDict):
    session_id: str
    current_agent: str
    agent_history: list[HandoffRecord]
    switch_count: int


class History(TypedDict):
    session_id: str
    messages: list[Json]
    message_count: int
    last_activity: str
    current_agent: str
    agent_history: list[HandoffRecord]


class AuditReport(TypedDict):
    session_id: str
    entries: list[Json]
    count: int
    results: list[Json]
    passes: NotRequired[list[Json]]
    """With AUDIT_READS: the calls that passed unasked, which decide nothing and are no part of the chain."""


class GrantProposal(TypedDict):
    call_id: str
    tool_name: str
    pattern: str


class GrantList(TypedDict):
    session_id: str
    grants: list[Json]
    count: int
    proposals: list[GrantProposal]
    """The narrowest pattern that each open approval could be remembered with."""


class RevokedGrants(TypedDict):
    session_id: str
    revoked: int


class PendingApproval(TypedDict):
    call_id: str
    tool_name: str
    arguments: Json
    reason: str
    created_at: str


class PendingApprovals(TypedDict):
    session_id: str
    pending_approvals: list[PendingApproval]
    count: int


class OpenCallInfo(TypedDict):
    call_id: str
    tool_name: str
    agent: str
    arguments: Json
    requires_approval: bool
    rule: str
    reason: str
    created_at: str
    metadata: Json | None


class LiveState(TypedDict):
    """The part of a view that the rows tell."""

    open_calls: list[OpenCallInfo]
    pending_approvals: list[str]
    running: bool
    run: Json | None
    waiting: int
    """Queued messages."""
    last_event_id: str | None


class SessionView(SessionInfo, LiveState):
    messages: list[Json]
    agent_history: list[HandoffRecord]
    usage: Json


class CallList(TypedDict):
    session_id: str
    calls: list[Json]
    count: int


class StoredRows(TypedDict):
    """The part of an export that the rows tell."""

    audit: Json
    grants: list[Json]
    calls: dict[str, Json]
    routings: list[Json]
    runs: list[Json]


class SessionExport(TypedDict):
    version: int
    exported_at: str
    session: SessionInfo
    messages: list[Json]
    agent_history: list[HandoffRecord]
    audit: Json
    grants: list[Json]
    routings: list[Json]
    runs: list[Json]
    calls: list[Json]
    usage: Json
