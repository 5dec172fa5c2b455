"""What a session is called: its first message at once, then, while nobody waits, what the model makes of that."""

import logging

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from sqlalchemy import Connection

from graph import wire
from graph.db.retry import DATABASE_ERRORS
from graph.errors import AgentRuntimeError
from graph.sanitize import visible
from graph.usage import totals
from graph.usage.call import cost_of, size
from graph.usage.meter import Meter
from prompts import ORCHESTRATOR, TITLE
from sessions.runs.run import Run
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.titles")
LONGEST_READ = 4_000
"""Characters of a message that the model reads."""


class Titles:
    """Without a model the first message stays the title."""

    def __init__(self, database: Database, namer: BaseChatModel | None, meter: Meter) -> None:
        self._database = database
        self._meter = meter
        self._namer = namer
        self._at_work: set[str] = set()

    async def after(self, run: Run, message: wire.Message) -> None:
        """When the run of a first message is over. A fault of the model is in the log; the next message tries again."""
        if self._namer is None or run.session_id in self._at_work:
            return
        self._at_work.add(run.session_id)
        try:
            await run.over.wait()
            asked = [SystemMessage(TITLE), HumanMessage(content_of(message)[:LONGEST_READ])]
            said = await self._namer.ainvoke(asked)
            cost = self._meter.priced(cost_of(said, lambda: size(asked), agent=ORCHESTRATOR, purpose="title"))
            title = usable(str(said.text))
            await self._database.transact(lambda connection: improved(connection, run, title, cost))
        except (AgentRuntimeError, *DATABASE_ERRORS) as error:
            log.warning("session %s keeps its first title: %s", run.session_id, type(error).__name__)
        finally:
            self._at_work.discard(run.session_id)


def content_of(message: wire.Message) -> str:
    return message.content.strip() if isinstance(message, wire.UserMessage | wire.SwitchAgent) else ""


def first(message: wire.Message) -> str:
    """The first line of what the user said."""
    return content_of(message).split("\n", maxsplit=1)[0][: session_rows.TITLE]


def usable(answer: str) -> str:
    """The title in a model's answer; empty if there is none."""
    if answer.lstrip().startswith(("{", "[", "<", "```")):
        return ""
    lines = [line.strip(" \t#*_`\"'«»“”.") for line in answer.splitlines()]
    title = str(visible(next(filter(None, lines), "")))
    return title if len(title) <= session_rows.TITLE else ""


def improved(connection: Connection, run: Run, title: str, cost: wire.Usage) -> None:
    """The session of the run, unless its user named it meanwhile, or it is gone and another one has its id.

    Without a title it keeps the one it has, and the model is not asked again.
    """
    row = leases.locked(connection, run.session_id)
    if row is None or run_rows.run(connection, run.id) is None:
        return
    session_rows.change(connection, run.session_id, usage=totals.of_session(row["usage"], totals.of_run([cost])))
    if row["titled_by"] == "message":
        session_rows.entitle(connection, run.session_id, title or row["title"], by="model")
