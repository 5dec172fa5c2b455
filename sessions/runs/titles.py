"""Title a session: its first message at once, later a better title from the model, while nobody waits."""

import logging
import re
from functools import partial

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from sqlalchemy import Connection

from graph import wire
from graph.db.retry import DATABASE_ERRORS
from graph.errors import AgentRuntimeError
from graph.sanitize import escape_invisible
from graph.thoughts import strip_thoughts
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

_TITLE_EDGES = " \t#*_`\"'«»“”‘’„."
"""Marks and quotes around a title."""
_TITLE_TAG = re.compile(r"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_LIST_MARK = re.compile(r"(?:[-–—•+>]|[0-9]{1,2}[.)])\s+")
_LABEL = re.compile(
    r"(?:(?:here(?:'s|’s| is| are)|вот)\b[^:]*|(?:sure|okay|ok|certainly|of course)\b[^:]*\btitle\b[^:]*"
    r"|(?:(?:a|the|new|short|suggested|session|chat|conversation) )?title(?: for [^:]*)?"
    r"|(?:краткий )?заголовок|название)"
    r"\W*[:\uff1a]\W*(?=\w)",
    re.IGNORECASE,
)
"""The words of a model before its title."""
_BARE_LABELS = ("title", "заголовок", "название")


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
    """Return the title in a model's answer, without thoughts, labels and marks; empty if there is none."""
    answer = strip_thoughts(answer)
    if tagged := _TITLE_TAG.search(answer):
        answer = tagged[1]
    if answer.lstrip().startswith(("{", "[", "<", "```")):
        return ""
    lines = map(_clean_title, answer.splitlines())
    title = str(escape_invisible(next((line for line in lines if line and not line.endswith(":")), "")))
    return title if len(title) <= session_rows.MAX_TITLE_CHARACTERS else ""


def _clean_title(line: str) -> str:
    """Return a line without list mark, label, quotes and full stop. A line that only introduces ends with a colon."""
    line = line.strip(_TITLE_EDGES)
    for prefix in (_LIST_MARK, _LABEL):
        if match := prefix.match(line):
            line = line[match.end() :].strip(_TITLE_EDGES)
    return "" if line.casefold() in _BARE_LABELS else line


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
