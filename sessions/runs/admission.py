"""Accept a message: in one transaction it is stored with its decision, or queued, or refused."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph import wire
from graph.db.fencing import Fence
from graph.errors import CallNotOpen, Interrupted, SessionBusy
from graph.execution.outcome import Pause
from graph.permissions.gatekeeper import Gatekeeper
from sessions.request import Request
from sessions.runs import titles
from sessions.runs.idempotency import Joined, Told, _answered, _known_before
from sessions.store import audit, calls, grants, leases, routings
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows


@dataclass(frozen=True)
class Started:
    """The message is stored, and this replica has the session's lease: carry it out."""

    lease: Fence
    pause: Pause | None
    """What the message answers, or leaves behind."""
    names: bool = False
    """Whether the session is called after this message, and could be called better."""


@dataclass(frozen=True)
class Waiting:
    """The message is stored and comes when the ones before it are done, here or elsewhere."""

    stopped: str | None = None
    """The run that has to make room for it."""


Accepted = Started | Waiting | Joined | Told


@dataclass(frozen=True)
class Door:
    """How messages are taken in."""

    gatekeeper: Gatekeeper
    replica: str
    lease_seconds: float
    queue: int
    """How many messages of a session may wait."""
    busy: wire.Busy
    """What a message does that finds its session at work, if it does not say so itself."""

    def take_in(self, connection: Connection, request: Request, run_id: str) -> Accepted:
        """Raises CallNotOpen, EditRefused, InvalidDecision, IdempotencyConflict, SessionBusy, InTheWay."""
        row = _row(connection, request)
        pause = session_rows.pause_of(row)
        if (known := _known_before(connection, request, pause)) is not None:
            return known
        if row and (row["held"] or run_rows.first_unfinished(connection, request.session_id)):
            return self._queued(connection, request, run_id)
        if row is None:
            _decisions(request.message, pause, self.gatekeeper)  # an answer fails here: a deleted session has the id
            session_rows.create(connection, request.session_id, titles.first(request.message))
        lease = leases.take(connection, request.session_id, self.replica, self.lease_seconds)
        run_rows.add_run(connection, run_id, request, status="running", epoch=lease.epoch, pause=pause)
        self.decide(connection, request, pause)
        return Started(lease, pause, _named(connection, row, request))

    def decide(self, connection: Connection, request: Request, pause: Pause | None) -> None:
        """What a message changes beyond its run. Raises CallNotOpen, EditRefused, InvalidDecision."""
        entries = _decisions(request.message, pause, self.gatekeeper)
        entries = [each for each in entries if not _is_known(connection, request, pause, each)]
        audit.append(connection, request.session_id, entries)
        calls.decided(connection, request.session_id, entries)
        _remember(connection, request, pause)
        routings.judged(connection, request.session_id, request.message)

    def admit(self, connection: Connection, lease: Fence, request: Request, run_id: str) -> Pause | None:
        """A message that waited: what it answers, or leaves behind.

        Raises what `take_in` raises, Withdrawn and LeaseLost.
        """
        row = leases.checked(connection, lease)
        pause = session_rows.pause_of(row)
        if run_rows.begin(connection, run_id, lease.epoch, pause):
            self.decide(connection, request, pause)
            _named(connection, row, request)
        elif run_rows.run(connection, run_id) is None:
            raise Withdrawn("The message was not taken. Send it again.")
        return pause

    def taken_before(self, connection: Connection, run_id: str) -> Accepted | None:
        """What came of a transaction whose end the connection did not live to see; None if it was rolled back."""
        row = run_rows.run(connection, run_id)
        if row is None:
            return None
        held = leases.locked(connection, row["session_id"])
        if row["status"] == "running" and held and (held["owner"], held["epoch"]) == (self.replica, row["epoch"]):
            return Started(Fence(row["session_id"], self.replica, row["epoch"]), session_rows.pause_of(row))
        return Waiting() if row["status"] == "queued" else Joined(run_id)

    def _queued(self, connection: Connection, request: Request, run_id: str) -> Waiting:
        policy = request.busy or self.busy
        if policy == "reject" or run_rows.waiting(connection, request.session_id) >= self.queue:
            raise SessionBusy("The session still works on an earlier message. Send this one again later.")
        run_rows.add_run(connection, run_id, request, status="queued")
        if policy == "interrupt" and isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
            return Waiting(stopped=run_rows.want(connection, request.session_id, "interrupt"))
        return Waiting()


class Withdrawn(Interrupted):
    """The message did not wait any more when its turn came."""


class InTheWay(Exception):
    """A session was deleted under this id; what is left of it has to go, but for its audit."""


def _remember(connection: Connection, request: Request, pause: Pause | None) -> None:
    """Beyond the run: what is allowed in advance, what a result was, what ends with a turn. Raises InvalidDecision."""
    match request.message:
        case wire.HitlDecision(remember=wire.Remember()) as said:
            if row := grants.remembered(_answered(pause, said), said):
                grants.add(connection, request.session_id, row)
        case wire.ToolResult() as said:
            audit.result(connection, request.session_id, _answered(pause, said), said)
            calls.answered(connection, request.session_id, said.call_id, "rejected" if said.refused else "answered")
        case wire.UserMessage() | wire.SwitchAgent():
            grants.end(connection, request.session_id, scope="turn")


def _row(connection: Connection, request: Request) -> RowMapping | None:
    row = leases.locked(connection, request.session_id)
    if row is None or not row["deleted_at"]:
        return row
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        raise InTheWay
    return None


def refused_edit(connection: Connection, request: Request) -> None:
    """For a transaction of its own: nothing else of the message is kept."""
    row = leases.locked(connection, request.session_id)
    pause = None if row is None or row["deleted_at"] else session_rows.pause_of(row)
    match request.message:
        case wire.HitlDecision() as said if pause:
            entry = audit.decision(_answered(pause, said), said)
            audit.append(connection, request.session_id, [{**(entry or {}), "decision": "edit_refused"}])


def _decisions(message: wire.Message, pause: Pause | None, gatekeeper: Gatekeeper) -> list[dict[str, Any]]:
    """The audit of what the message decides. Raises CallNotOpen, EditRefused."""
    if isinstance(message, wire.UserMessage | wire.SwitchAgent):
        open_calls = pause.calls if pause else []
        return [audit.entry(call, "cancel", "system", feedback="the user went on") for call in open_calls]
    open_call = _answered(pause, message)
    if isinstance(message, wire.HitlDecision) and message.decision == "approve":
        gatekeeper.still_possible(open_call.agent, open_call.call.tool_name, open_call.call.arguments)
    if isinstance(message, wire.HitlDecision) and message.decision == "edit":
        gatekeeper.edited(
            open_call.agent, open_call.call.tool_name, open_call.call.arguments, message.modified_arguments
        )
    entry = audit.decision(open_call, message)
    return [entry] if entry else []


def _is_known(connection: Connection, request: Request, pause: Pause | None, entry: dict[str, Any]) -> bool:
    """Whether this was decided by a run that was cut off twice. Raises CallNotOpen if the opposite was."""
    if isinstance(request.message, wire.UserMessage | wire.SwitchAgent):
        return False
    before = audit.decided(connection, request.session_id, _answered(pause, request.message))
    if before is None:
        return False
    if (before.decision, before.modified_arguments) != (entry["decision"], entry["modified_arguments"]):
        raise CallNotOpen(f"The call {entry['call_id']} was decided already: {before.decision}. Send that again.")
    return True


def _named(connection: Connection, row: RowMapping | None, request: Request) -> bool:
    """After the message, if the session, whose row is new without one, has no name yet; whether it could be better."""
    title = titles.first(request.message)
    if row and not row["title"] and title and row["titled_by"] == "message":
        session_rows.entitle(connection, request.session_id, title, by="message")
    return bool(title) and (row is None or row["titled_by"] == "message")
