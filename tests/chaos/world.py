"""The world of a scenario: a database, a model, replicas and IDEs; at its end it is judged."""

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
from tests.chaos.databases import ChaosDatabase, PostgresCluster
from tests.chaos.ide import OUTCOME_TIMEOUT_SECONDS, Ide, IdeBehavior, IdeIdentity, NoOutcome
from tests.chaos.judge import Evidence, apply_checks
from tests.chaos.ledger import Ledger, open_ledger, read_entries
from tests.chaos.processes import ReplicaProcess
from tests.support.eventually import DEADLINE_SECONDS, poll
from tests.support.service import API_KEY

SETTLE_SECONDS = 60
"""Seconds after the last trouble until every run must be done, on a loaded machine as well."""


class ScenarioSetup:
    """The folder, the seed, the number of rounds and the database of a scenario."""

    def __init__(self, folder: Path, seed: str, rounds: int, postgres: PostgresCluster | None, without: str) -> None:
        """Use SQLite if there is no `postgres`."""
        self.folder, self.seed, self.rounds, self.postgres, self.without = folder, seed, rounds, postgres, without


@dataclass
class World:
    setup: ScenarioSetup
    rng: Random
    http: httpx.AsyncClient
    database: ChaosDatabase
    replicas: list[ReplicaProcess]
    ledger: Ledger
    expected_codes: set[str] = field(default_factory=set)
    has_no_retries: bool = False
    ides: list[Ide] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """The violations that the scenario itself found."""
    is_over: bool = False
    deleted_sessions: set[str] = field(default_factory=set)
    """The sessions that may be deleted."""

    def add_ide(self, habits: IdeBehavior | None = None, at: int | None = None) -> Ide:
        """Add an IDE with a session of its own. It uses the replica number `at`, or any."""
        ide = self._create_ide(f"s-{len(self.ides) + 1}", "", habits or IdeBehavior(), at)
        self.ides.append(ide)
        return ide

    def add_twin(self, ide: Ide, habits: IdeBehavior, at: int) -> Ide:
        """Return a second client of an IDE's session."""
        return self._create_ide(ide.session, "-twin", habits, at)

    def _create_ide(self, session: str, suffix: str, habits: IdeBehavior, at: int | None) -> Ide:
        name = session + suffix
        rng = Random(f"{self.setup.seed}/{name}")
        chosen = self.replicas if at is None else [self.replicas[at]]
        client = IdeIdentity(name, session, rng, lambda: rng.choice(chosen).url)
        return Ide(client, self.http, self.ledger, habits, 2 if self.setup.without else OUTCOME_TIMEOUT_SECONDS)

    @asynccontextmanager
    async def play_sessions(self, sessions: int, habits: IdeBehavior | None = None) -> AsyncIterator[None]:
        """Let IDEs work while the block runs; each of them then ends its turn."""
        ides = [self.add_ide(habits) for _ in range(sessions)]
        async with asyncio.TaskGroup() as group:
            for ide in ides:
                group.create_task(ide.play_turns(lambda: self.is_over))
            try:
                yield
            finally:
                self.is_over = True

    async def restart_replicas(self, *, only: int | None = None) -> None:
        for replica in self.replicas if only is None else [self.replicas[only]]:
            await replica.end()
            replica.start()
            await replica.wait_until_ready()
            assert replica.is_running, f"the replica did not start; its output is in {self.setup.folder}"

    async def post(self, path: str, body: Any = None, *, at: int = 0) -> httpx.Response:
        return await self.http.post(f"{self.replicas[at].url}{path}", json=body)

    async def get(self, path: str, *, at: int = 0) -> httpx.Response:
        return await self.http.get(f"{self.replicas[at].url}{path}")

    async def judge_outcome(self) -> list[str]:
        """Wait for all runs, and return the violations. Every replica must run."""
        left = await self._wait_for_runs()
        for ide in self.ides:
            with suppress(NoOutcome):
                await ide.play_turn("read")
        histories = {ide.session: await self.fetch_history(ide.session) for ide in self.ides}
        staying = {
            name: history for name, history in histories.items() if history and name not in self.deleted_sessions
        }
        evidence = Evidence(
            ledger=list(read_entries(self.ledger.path)),
            model=list(read_entries(self.setup.folder / "model")),
            runs=self.database.fetch_rows("select * from runs"),
            audit=self.database.fetch_rows("select * from audit_log order by session_id, seq"),
            histories=staying,
            expected_codes=frozenset(self.expected_codes),
            has_no_retries=self.has_no_retries,
        )
        complaint = await processes.verify_audit(self.database.url, self.setup.folder / "verified")
        return [*self.findings, *left, *apply_checks(evidence), *([complaint] if complaint else [])]

    async def wait_for_refusal(self) -> None:
        """Wait until a message of an IDE is refused or has failed."""
        before = sum(ide.refused for ide in self.ides)
        await self.wait_until(lambda: sum(ide.refused for ide in self.ides) > before, DEADLINE_SECONDS)

    async def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until the condition holds; it is a violation if it does not in that time."""
        if not await poll(holds, seconds):
            self.findings.append(f"the scenario's condition does not hold after {seconds} s")

    async def _wait_for_runs(self) -> list[str]:
        seconds = 3 if self.setup.without else SETTLE_SECONDS
        unfinished = "select id from runs where status != 'done'"
        if await poll(lambda: not self.database.fetch_rows(unfinished), seconds):
            return []
        return [f"{len(self.database.fetch_rows(unfinished))} runs are not done after {seconds} s"]

    async def fetch_history(self, session: str) -> list[dict[str, Any]] | None:
        response = await self.get(f"/sessions/{session}/history")
        if response.status_code == 404:
            if session not in self.deleted_sessions:
                self.findings.append(f"{session}: the session does not exist")
            return None
        if response.is_error:
            self.findings.append(f"{session}: its history is answered with {response.status_code}")
            return None
        messages: list[dict[str, Any]] = response.json()["messages"]
        return messages


@asynccontextmanager
async def open_world(
    setup: ScenarioSetup, *, replicas: int = 1, delay: float = 0.05, **settings: str
) -> AsyncIterator[World]:
    """Open a world whose replicas are not started. A model call takes up to `delay` seconds."""
    setup.folder.mkdir()
    url = setup.postgres.create_database() if setup.postgres else f"sqlite:///{setup.folder}/chaos.db"
    async with (
        processes.start_model(setup.folder / "model", delay) as address,
        httpx.AsyncClient(headers={"X-Internal-Auth": API_KEY}, timeout=httpx.Timeout(4), limits=HTTP_LIMITS) as http,
    ):
        given = {"db_url": url, "llm_model": "chaos", "llm_proxy_url": address, "log_level": "WARNING", **settings}
        numbers = itertools.count(1)
        made = [ReplicaProcess(given, setup.folder / f"output-{next(numbers)}", setup.without) for _ in range(replicas)]
        with open_ledger(setup.folder / "ledger") as kept:
            try:
                yield World(setup, Random(setup.seed), http, ChaosDatabase(url), made, kept)
            finally:
                for replica in made:
                    await replica.end()


HTTP_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
