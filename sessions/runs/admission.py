"""Accept a message: in one transaction it is stored with its decision, or queued, or refused."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.db.fencing import FencingToken
from graph.errors import CallNotOpen, Interrupted, SessionBusy
from graph.execution.outcome import Pause
from graph.permissions.gatekeeper import Gatekeeper
from sessions.request import RunRequest
from sessions.runs import titles
from sessions.runs.idempotency import Joined, Replayed, find_duplicate, require_answered_call
from sessions.runs.status import RunStatus
from sessions.store import audit, calls, grants, leases, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows


@dataclass(frozen=True)
class Started:
    """The message is stored and this replica has the session's lease: the caller executes the run."""

    lease: FencingToken
    pause: Pause | None
    """The open calls that the message answers, or closes."""
    needs_title: bool = False
    """The title is taken from this message, and the model may find a better one."""


@dataclass(frozen=True)
class Queued:
    """The message is stored; some replica executes it when the runs before it are done."""

    interrupted_run_id: str | None = None
    """The current run, which was asked to stop for this message."""


Accepted = Started | Queued | Joined | Replayed


@dataclass(frozen=True)
class Admission:
    """Decides what happens to a message, inside the caller's transaction."""

    gatekeeper: Gatekeeper
    replica_name: str
    lease_seconds: float
    max_queued: int
    """Queued messages of one session."""
    multitask_strategy: wire.MultitaskStrategy
    """Applies to messages that do not name a strategy themselves."""

    def accept(self, connection: Connection, request: RunRequest, run_id: str) -> Accepted:
        """Store the message as a run, queue it, or find the run that it repeats.

        Raises CallNotOpen, EditRefused, InvalidDecision, IdempotencyConflict, SessionBusy, DeletedSessionExists.
        """
        row = _lock_usable_session(connection, request)
        pause = session_rows.pause_of(row)
        if (duplicate := find_duplicate(connection, request, pause)) is not None:
            return duplicate
        if row and (row["held"] or run_rows.first_unfinished(connection, request.session_id)):
            return self._enqueue(connection, request, run_id)
        if row is None:
            # An answer to a session that does not exist raises CallNotOpen here, before anything is created.
            _make_audit_entries(request.message, pause, self.gatekeeper)
            session_rows.create_session(connection, request.session_id, titles.initial_title(request.message))
        lease = leases.acquire_lease(connection, request.session_id, self.replica_name, self.lease_seconds)
        run_rows.add_run(connection, run_id, request, status=RunStatus.RUNNING, lease_epoch=lease.epoch, pause=pause)
        self.apply_message(connection, request, pause)
        return Started(lease, pause, _set_first_title(connection, row, request))

    def apply_message(self, connection: Connection, request: RunRequest, pause: Pause | None) -> None:
        """Record the decision in audit, calls, grants and routing. Raises CallNotOpen, EditRefused, InvalidDecision."""
        entries = _make_audit_entries(request.message, pause, self.gatekeeper)
        entries = [each for each in entries if not _is_already_decided(connection, request, pause, each)]
        audit.append_entries(connection, request.session_id, entries)
        calls.record_decisions(connection, request.session_id, entries)
        _apply_side_effects(connection, request, pause)
        routings.record_override(connection, request.session_id, request.message)

    def admit_queued(
        self, connection: Connection, lease: FencingToken, request: RunRequest, run_id: str
    ) -> Pause | None:
        """Start the run of a queued message; return the open calls that it answers or closes.

        Raises what `accept` raises, Withdrawn and LeaseLost.
        """
        row = leases.require_lease(connection, lease)
        pause = session_rows.pause_of(row)
        if run_rows.start_queued(connection, run_id, lease.epoch, pause):
            self.apply_message(connection, request, pause)
            _set_first_title(connection, row, request)
        elif run_rows.find_run(connection, run_id) is None:
            raise Withdrawn("The message was not taken. Send it again.")
        return pause

    def find_committed(self, connection: Connection, run_id: str) -> Accepted | None:
        """Return the result of a transaction whose commit was not confirmed; None if it was rolled back."""
        row = run_rows.find_run(connection, run_id)
        if row is None:
            return None
        held = leases.lock_row(connection, row["session_id"])
        if (
            row["status"] == RunStatus.RUNNING
            and held
            and (held["lease_owner"], held["lease_epoch"]) == (self.replica_name, row["lease_epoch"])
        ):
            return Started(
                FencingToken(row["session_id"], self.replica_name, row["lease_epoch"]), session_rows.pause_of(row)
            )
        return Queued() if row["status"] == RunStatus.QUEUED else Joined(run_id)

    def _enqueue(self, connection: Connection, request: RunRequest, run_id: str) -> Queued:
        strategy = request.busy or self.multitask_strategy
        if strategy == "reject":
            raise SessionBusy("The session still works on an earlier message. Send this one again later.")
        if run_rows.queue_length(connection, request.session_id) >= self.max_queued:
            raise SessionBusy(f"{self.max_queued} messages of this session wait already. Send this one again later.")
        run_rows.add_run(connection, run_id, request, status=RunStatus.QUEUED)
        if strategy == "interrupt" and isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
            return Queued(interrupted_run_id=run_rows.request_stop(connection, request.session_id, "interrupt"))
        return Queued()


class Withdrawn(Interrupted):
    """The queued message was withdrawn before its turn came."""


class DeletedSessionExists(Exception):
    """A deleted session has this id: the caller clears its rows, except the audit, and tries again."""


def _apply_side_effects(connection: Connection, request: RunRequest, pause: Pause | None) -> None:
    """Add the grant of a decision, record a result, end the grants of the turn. Raises InvalidDecision."""
    match request.message:
        case wire.HitlDecision(remember=wire.Remember()) as decision:
            if row := grants.grant_from_decision(require_answered_call(pause, decision), decision):
                grants.add_grant(connection, request.session_id, row)
        case wire.ToolResult() as result:
            open_call = require_answered_call(pause, result)
            audit.record_result(connection, request.session_id, open_call, result)
            calls.record_result(connection, request.session_id, open_call, result)
        case wire.UserMessage() | wire.SwitchAgent():
            grants.end_grants(connection, request.session_id, scope="turn")


def _lock_usable_session(connection: Connection, request: RunRequest) -> RowMapping | None:
    row = leases.lock_row(connection, request.session_id)
    if row is None or not row["deleted_at"]:
        return row
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        raise DeletedSessionExists
    return None


def record_refused_edit(connection: Connection, request: RunRequest) -> None:
    """Audit an edit that was refused, in a transaction of its own: nothing else of the message is stored."""
    row = leases.lock_row(connection, request.session_id)
    pause = None if row is None or row["deleted_at"] else session_rows.pause_of(row)
    match request.message:
        case wire.HitlDecision() as decision if pause:
            entry = audit.entry_for_answer(require_answered_call(pause, decision), decision)
            audit.append_entries(connection, request.session_id, [{**(entry or {}), "decision": "edit_refused"}])


def _make_audit_entries(message: wire.Message, pause: Pause | None, gatekeeper: Gatekeeper) -> list[dict[str, Any]]:
    """Return the audit entries of what the message decides. Raises CallNotOpen, EditRefused."""
    if isinstance(message, wire.UserMessage | wire.SwitchAgent):
        open_calls = pause.calls if pause else []
        return [audit.make_entry(call, "cancel", "system", feedback="the user went on") for call in open_calls]
    open_call = require_answered_call(pause, message)
    if isinstance(message, wire.HitlDecision) and message.decision == "approve":
        gatekeeper.require_allowed(open_call.agent, open_call.call.tool_name, open_call.call.arguments)
    if isinstance(message, wire.HitlDecision) and message.decision == "edit":
        gatekeeper.apply_edit(
            open_call.agent, open_call.call.tool_name, open_call.call.arguments, message.modified_arguments
        )
    entry = audit.entry_for_answer(open_call, message)
    return [entry] if entry else []


def _is_already_decided(
    connection: Connection, request: RunRequest, pause: Pause | None, entry: dict[str, Any]
) -> bool:
    """Return whether a run that was given up recorded this decision. Raises CallNotOpen for another decision."""
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        return False
    before = audit.find_decision(connection, request.session_id, require_answered_call(pause, request.message))
    if before is None:
        return False
    if (before.decision, before.modified_arguments) != (entry["decision"], entry["modified_arguments"]):
        raise CallNotOpen(f"The call {entry['call_id']} was decided already: {before.decision}. Send that again.")
    return True


def _set_first_title(connection: Connection, row: RowMapping | None, request: RunRequest) -> bool:
    """Title an untitled session after the message; return whether the model may find a better title.

    `row` is None for a session that this message creates.
    """
    title = titles.initial_title(request.message)
    if row and not row["title"] and title and row["titled_by"] == "message":
        session_rows.set_title(connection, request.session_id, title, titled_by="message")
    return bool(title) and (row is None or row["titled_by"] == "message")
