"""The chaos suite's short form, and that it fails where what it tests is taken out; `make chaos` is the long one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.databases import Postgres, postgres
from tests.chaos.judge import report
from tests.chaos.scenarios import SCENARIOS, repeat, runnable
from tests.chaos.world import Setup

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("CHAOS_SEED", "4"))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


async def found(
    name: str, database: str, rounds: int, folder: Path, request: pytest.FixtureRequest, without: str = ""
) -> list[str]:
    of_postgres = request.getfixturevalue("server") if database == "postgres" else None
    setup = Setup(folder / "world", f"{SEED}/{name}/{database}", rounds, of_postgres, without)
    return await SCENARIOS[name].run(setup)


@pytest.mark.parametrize(
    ("name", "database"), [(name, each) for name in SCENARIOS if runnable(name) for each in SCENARIOS[name].databases]
)
async def test_what_is_promised_holds(name: str, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rounds = SCENARIOS[name].short
    violations = await found(name, database, rounds, tmp_path, request)
    assert not violations, f"{report(violations)}\nagain: {repeat(SEED, name, database, rounds)}"


@pytest.mark.parametrize(
    ("without", "name", "database", "rounds"),
    [("lease", "races-of-two", "postgres", 3), ("input", "kill", "sqlite", 3), ("check", "idle", "postgres", 1)],
)
async def test_the_suite_fails_without(
    without: str, name: str, database: str, rounds: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert await found(name, database, rounds, tmp_path, request, without)
