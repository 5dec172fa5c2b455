"""Title a session: its first message at once, later a better title from the model, while nobody waits."""

import logging
from functools import partial

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from sqlalchemy import Connection

from graph import wire
from graph.db.retry import DATABASE_ERRORS
from graph.errors import AgentRuntimeError
from graph.sanitize import escape_invisible
from graph.usage import totals
from graph.usage.call import usage_of
from graph.usage.meter import Meter
from graph.usage.tokens import estimate_tokens
from prompts import ORCHESTRATOR, TITLE_PROMPT
from sessions.runs.run import RunHandle
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.titles")
MAX_PROMPT_CHARACTERS = 4_000
"""The start of a message is enough for a title, and bounds its price."""


class Titles:
    """Without a model the first message stays the title."""

    def __init__(self, database: Database, title_model: BaseChatModel | None, meter: Meter) -> None:
        self._database = database
        self._meter = meter
        self._title_model = title_model
        self._in_progress: set[str] = set()

    async def improve_after_run(self, run: RunHandle, message: wire.Message) -> None:
        """Ask the model for a title when the run is over. A failure is logged; the next message tries again."""
        if self._title_model is None or run.session_id in self._in_progress:
            return
        self._in_progress.add(run.session_id)
        try:
            await run.finished.wait()
            prompt = [SystemMessage(TITLE_PROMPT), HumanMessage(content_of(message)[:MAX_PROMPT_CHARACTERS])]
            answer = await self._title_model.ainvoke(prompt)
            size = partial(estimate_tokens, *prompt, with_envelope=False)
            cost = self._meter.price_call(usage_of(answer, size, agent=ORCHESTRATOR, purpose="title"))
            title = extract_title(str(answer.text))
            await self._database.transact(lambda connection: store_title(connection, run, title, cost))
        except (AgentRuntimeError, *DATABASE_ERRORS) as error:
            log.warning("session %s keeps its first title: %s", run.session_id, type(error).__name__)
        finally:
            self._in_progress.discard(run.session_id)


def content_of(message: wire.Message) -> str:
    """Return the user's text, stripped; empty for a tool result or a decision."""
    return message.content.strip() if isinstance(message, wire.UserMessage | wire.SwitchAgent) else ""


def initial_title(message: wire.Message) -> str:
    """Return the first line of the user's message, cut to the longest title."""
    return content_of(message).split("\n", maxsplit=1)[0][: session_rows.MAX_TITLE_CHARACTERS]


def extract_title(answer: str) -> str:
    """Return the title in a model's answer; empty if there is none."""
    if answer.lstrip().startswith(("{", "[", "<", "```")):
        return ""
    lines = [line.strip(" \t#*_`\"'«»“”.") for line in answer.splitlines()]
    title = str(escape_invisible(next(filter(None, lines), "")))
    return title if len(title) <= session_rows.MAX_TITLE_CHARACTERS else ""


def store_title(connection: Connection, run: RunHandle, title: str, cost: wire.Usage) -> None:
    """Title the session of the run, unless the user has renamed it, or another session has its id now.

    An empty title keeps the present one, and the model is not asked again. The usage is recorded either way.
    """
    row = leases.lock_row(connection, run.session_id)
    if row is None or run_rows.find_run(connection, run.id) is None:
        return
    session_rows.update_session(
        connection, run.session_id, usage=totals.add_run(row["usage"], totals.sum_run_calls([cost]))
    )
    if row["titled_by"] == "message":
        session_rows.set_title(connection, run.session_id, title or row["title"], titled_by="model")
