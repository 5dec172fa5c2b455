"""One scenario's world: a database, a model, replicas, IDEs at work; and in the end the judgement."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.chaos import processes
from tests.chaos.databases import Database, Postgres
from tests.chaos.ide import PATIENCE, Client, GaveUp, Habits, Ide
from tests.chaos.judge import Evidence, judged
from tests.chaos.ledger import Ledger, ledger, lines
from tests.chaos.processes import POLL, Replica
from tests.service import KEY

SETTLING = 30
"""Seconds until nothing may be left to do when nothing troubles the service any more."""


class Setup:
    """What a scenario runs on. `rounds`: how much of it."""

    def __init__(self, folder: Path, seed: str, rounds: int, postgres: Postgres | None, without: str) -> None:
        """Without `postgres` on SQLite."""
        self.folder, self.seed, self.rounds, self.postgres, self.without = folder, seed, rounds, postgres, without


@dataclass
class World:
    setup: Setup
    rng: Random
    http: httpx.AsyncClient
    database: Database
    replicas: list[Replica]
    ledger: Ledger
    expected: set[str] = field(default_factory=set)
    asks_once: bool = False
    ides: list[Ide] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """Of the scenario itself."""
    over: bool = False
    gone: set[str] = field(default_factory=set)
    """The sessions that may be deleted."""

    def ide(self, habits: Habits | None = None, at: int | None = None) -> Ide:
        """On a new session; `at`: the replica it always asks."""
        ide = self._made(f"s-{len(self.ides) + 1}", "", habits or Habits(), at)
        self.ides.append(ide)
        return ide

    def twin(self, ide: Ide, habits: Habits, at: int) -> Ide:
        """A second client of its session."""
        return self._made(ide.session, "-twin", habits, at)

    def _made(self, session: str, suffix: str, habits: Habits, at: int | None) -> Ide:
        name = session + suffix
        rng = Random(f"{self.setup.seed}/{name}")
        chosen = self.replicas if at is None else [self.replicas[at]]
        client = Client(name, session, rng, lambda: rng.choice(chosen).url)
        return Ide(client, self.http, self.ledger, habits, 2 if self.setup.without else PATIENCE)

    @asynccontextmanager
    async def playing(self, sessions: int, habits: Habits | None = None) -> AsyncIterator[None]:
        """IDEs at work while the block runs; each then ends its turn."""
        ides = [self.ide(habits) for _ in range(sessions)]
        async with asyncio.TaskGroup() as group:
            for ide in ides:
                group.create_task(ide.play(lambda: self.over))
            try:
                yield
            finally:
                self.over = True

    async def restart(self, *, only: int | None = None) -> None:
        for replica in self.replicas if only is None else [self.replicas[only]]:
            await replica.end()
            replica.start()
            await replica.ready()

    async def post(self, path: str, body: Any = None, *, at: int = 0) -> httpx.Response:
        return await self.http.post(f"{self.replicas[at].url}{path}", json=body)

    async def get(self, path: str, *, at: int = 0) -> httpx.Response:
        return await self.http.get(f"{self.replicas[at].url}{path}")

    async def judge(self) -> list[str]:
        """Every replica must run."""
        left = await self._settled()
        for ide in self.ides:
            with suppress(GaveUp):
                await ide.turn("read")
        histories = {ide.session: await self.history(ide.session) for ide in self.ides}
        staying = {name: history for name, history in histories.items() if history and name not in self.gone}
        evidence = Evidence(
            ledger=list(lines(self.ledger.path)),
            model=list(lines(self.setup.folder / "model")),
            runs=self.database.rows("select * from runs"),
            audit=self.database.rows("select * from audit_log order by session_id, seq"),
            histories=staying,
            expected=frozenset(self.expected),
            asks_once=self.asks_once,
        )
        complaint = await processes.verify(self.database.url, self.setup.folder / "verified")
        return [*self.findings, *left, *judged(evidence), *([complaint] if complaint else [])]

    async def refusal(self) -> None:
        """Until an IDE is told that its message cannot be taken, or has failed."""
        before = sum(ide.refused for ide in self.ides)
        await self.until(lambda: sum(ide.refused for ide in self.ides) > before, 20)

    async def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """It is a finding when it does not hold in that time."""
        end = asyncio.get_running_loop().time() + seconds
        while not holds():
            if asyncio.get_running_loop().time() > end:
                self.findings.append(f"the scenario's condition does not hold after {seconds} s")
                return
            await asyncio.sleep(POLL)

    async def _settled(self) -> list[str]:
        seconds = 3 if self.setup.without else SETTLING
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            if not (left := self.database.rows("select id from runs where status != 'done'")):
                return []
            await asyncio.sleep(POLL)
        return [f"{len(left)} runs are not done after {seconds} s"]

    async def history(self, session: str) -> list[dict[str, Any]] | None:
        response = await self.get(f"/sessions/{session}/history")
        if response.status_code == 404:
            if session not in self.gone:
                self.findings.append(f"{session}: the session does not exist")
            return None
        if response.is_error:
            self.findings.append(f"{session}: its history is answered with {response.status_code}")
            return None
        messages: list[dict[str, Any]] = response.json()["messages"]
        return messages


@asynccontextmanager
async def world(setup: Setup, *, replicas: int = 1, delay: float = 0.05, **settings: str) -> AsyncIterator[World]:
    """Its replicas are not started yet. `delay`: the longest of a model call, in seconds."""
    setup.folder.mkdir()
    url = setup.postgres.new() if setup.postgres else f"sqlite:///{setup.folder}/chaos.db"
    async with (
        processes.model(setup.folder / "model", delay) as address,
        httpx.AsyncClient(headers={"X-Internal-Auth": KEY}, timeout=httpx.Timeout(4), limits=UNLIMITED) as http,
    ):
        given = {"db_url": url, "llm_model": "chaos", "llm_proxy_url": address, "log_level": "WARNING", **settings}
        numbers = itertools.count(1)
        made = [Replica(given, setup.folder / f"output-{next(numbers)}", setup.without) for _ in range(replicas)]
        with ledger(setup.folder / "ledger") as kept:
            try:
                yield World(setup, Random(setup.seed), http, Database(url), made, kept)
            finally:
                for replica in made:
                    await replica.end()


UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=20)
