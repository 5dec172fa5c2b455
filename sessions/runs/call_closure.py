"""Close the open calls of a session whose thread no run works on."""

from typing import NamedTuple

from sqlalchemy import Connection

from graph.db.fencing import FencingToken
from graph.execution.closing import close_thread
from graph.execution.outcome import Graph, Outcome, list_open_calls, read_state, thread_config
from graph.permissions.decisions import CANCELLED_RESULT
from graph.run_scope import enter_lease
from sessions.store import audit, calls, leases
from sessions.store import sessions as session_rows
from sessions.store.database import Database


class CallClosure(NamedTuple):
    """The reason why open calls are closed, for the audit and for the model."""

    decision: str
    """In the audit: cancel or expire."""
    feedback: str
    """In the audit."""
    result_text: str
    """The result of each call that the model reads."""


CANCELLED_BY_USER = CallClosure("cancel", "the user cancelled", CANCELLED_RESULT)


def make_expiry_closure(seconds: float) -> CallClosure:
    """Return the closure of approvals that nobody decided within `seconds`: that is not a rejection."""
    sentence = f"expired: nobody decided within {seconds:g} seconds; the call did not run, nobody rejected it"
    return CallClosure("expire", sentence, sentence)


async def close_open_calls(
    database: Database, graph: Graph, lease: FencingToken, closure: CallClosure = CANCELLED_BY_USER, run_id: str = ""
) -> Outcome:
    """Answer the open calls in the thread, then record their closure; return what is left of the thread.

    `run_id` is the run that left the calls open, if it was never stored. Raises LeaseLost.
    """
    config = thread_config(lease.session_id, run_id)
    with enter_lease(lease):
        open_calls = list_open_calls(await read_state(graph, config))
        outcome = await close_thread(graph, config, result_text=closure.result_text)
    entries = [audit.make_entry(each, closure.decision, "system", feedback=closure.feedback) for each in open_calls]

    def store_closure(connection: Connection) -> None:
        """Store it once, also if the transaction is repeated."""
        checkpoint_id = leases.require_lease(connection, lease)["checkpoint_id"]
        if outcome.checkpoint_id and checkpoint_id == outcome.checkpoint_id:
            return
        audit.append_entries(connection, lease.session_id, entries)
        calls.record_decisions(connection, lease.session_id, entries)
        session_rows.record_outcome(connection, lease.session_id, outcome)

    await database.transact(store_closure)
    return outcome
