"""The short form of `make chaos` finds no violation, and finds some when a safeguard is removed."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.databases import PostgresCluster, start_cluster
from tests.chaos.judge import format_report
from tests.chaos.points import INJECTION_POINTS
from tests.chaos.replica import resolve_target
from tests.chaos.scenarios import SCENARIOS, format_command, is_runnable
from tests.chaos.world import ScenarioSetup

SEED = int(os.environ.get("CHAOS_SEED", "4"))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresCluster]:
    with start_cluster() as started:
        yield started


def build_setup(
    name: str, database: str, rounds: int, folder: Path, server: PostgresCluster, without: str = ""
) -> ScenarioSetup:
    of_postgres = server if database == "postgres" else None
    return ScenarioSetup(folder / database, f"{SEED}/{name}/{database}", rounds, of_postgres, without)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if is_runnable(name)])
async def test_scenario_finds_no_violation(name: str, tmp_path: Path, server: PostgresCluster) -> None:
    """Run the scenario on all its databases at the same time."""
    scenario = SCENARIOS[name]
    setups = [build_setup(name, each, scenario.short_rounds, tmp_path, server) for each in scenario.databases]
    for database, found in zip(scenario.databases, await asyncio.gather(*map(scenario.run, setups)), strict=True):
        assert not found, (
            f"{format_report(found)}\nagain: {format_command(SEED, name, database, scenario.short_rounds)}"
        )


@pytest.mark.parametrize("target", sorted({each for point in INJECTION_POINTS.values() for each in point.targets}))
def test_injection_point_exists_in_the_product(target: str) -> None:
    assert callable(resolve_target(target)[2])


@pytest.mark.parametrize(
    ("without", "name", "database", "rounds"),
    [("lease", "races-of-two", "postgres", 3), ("input", "kill", "sqlite", 2), ("check", "idle", "postgres", 1)],
)
async def test_suite_detects_a_removed_safeguard(
    without: str, name: str, database: str, rounds: int, tmp_path: Path, server: PostgresCluster
) -> None:
    assert await SCENARIOS[name].run(build_setup(name, database, rounds, tmp_path, server, without))
