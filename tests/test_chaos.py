"""The chaos suite's short form, and that it fails where what it tests is taken out; `make chaos` is the long one."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.databases import Postgres, postgres
from tests.chaos.judge import report
from tests.chaos.points import POINTS
from tests.chaos.replica import found_at
from tests.chaos.scenarios import SCENARIOS, repeat, runnable
from tests.chaos.world import Setup

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("CHAOS_SEED", "4"))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


def setup(name: str, database: str, rounds: int, folder: Path, server: Postgres, without: str = "") -> Setup:
    of_postgres = server if database == "postgres" else None
    return Setup(folder / database, f"{SEED}/{name}/{database}", rounds, of_postgres, without)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if runnable(name)])
async def test_what_is_promised_holds(name: str, tmp_path: Path, server: Postgres) -> None:
    """On its databases at the same time."""
    scenario = SCENARIOS[name]
    setups = [setup(name, each, scenario.short, tmp_path, server) for each in scenario.databases]
    for database, found in zip(scenario.databases, await asyncio.gather(*map(scenario.run, setups)), strict=True):
        assert not found, f"{report(found)}\nagain: {repeat(SEED, name, database, scenario.short)}"


@pytest.mark.parametrize("target", sorted({each for point in POINTS.values() for each in point.targets}))
def test_a_named_point_is_in_the_product(target: str) -> None:
    assert callable(found_at(target)[2])


@pytest.mark.parametrize(
    ("without", "name", "database", "rounds"),
    [("lease", "races-of-two", "postgres", 3), ("input", "kill", "sqlite", 2), ("check", "idle", "postgres", 1)],
)
async def test_the_suite_fails_without(
    without: str, name: str, database: str, rounds: int, tmp_path: Path, server: Postgres
) -> None:
    assert await SCENARIOS[name].run(setup(name, database, rounds, tmp_path, server, without))
