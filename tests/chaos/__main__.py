"""Run every scenario on its databases: `python -m tests.chaos`. The same seed makes the same choices."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic

from tests.chaos.databases import PostgresCluster, start_cluster
from tests.chaos.judge import format_report
from tests.chaos.points import REMOVED_PARTS
from tests.chaos.scenarios import BOTH_DATABASES, SCENARIOS, format_command, is_runnable
from tests.chaos.world import ScenarioSetup


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--rounds", type=int, help="of each scenario; default: each one's own")
    parser.add_argument(
        "--only", metavar="NAME,...", type=_parse_names, default=[*SCENARIOS], help=", ".join(SCENARIOS)
    )
    parser.add_argument("--database", choices=[*BOTH_DATABASES, "both"], default="both")
    parser.add_argument(
        "--without", choices=list(REMOVED_PARTS), default="", help="take it out; the suite must then fail"
    )
    return parser.parse_args()


def _parse_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return names


async def main(options: argparse.Namespace) -> int:
    """Run the chosen scenarios; return 1 if one of them found a violation, else 0."""
    print(f"seed {options.seed}")
    folder = Path(mkdtemp(prefix="chaos-"))
    with ExitStack() as stack:
        server = None
        failed = False
        for name, database in _select_scenarios(options):
            if database == "postgres" and server is None:
                server = stack.enter_context(start_cluster())
            failed |= await _run_scenario(options, name, database, server, folder / f"{name}-{database}")
    if not failed:
        rmtree(folder)
    return int(failed)


def _select_scenarios(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in options.only:
        if not is_runnable(name, options.without):
            print(f"{name}: left out, it needs leases")
            continue
        for database in SCENARIOS[name].databases:
            if options.database in (database, "both"):
                yield name, database


async def _run_scenario(
    options: argparse.Namespace, name: str, database: str, server: PostgresCluster | None, folder: Path
) -> bool:
    rounds = options.rounds or SCENARIOS[name].long_rounds
    began = monotonic()
    seed = f"{options.seed}/{name}/{database}"
    setup = ScenarioSetup(folder, seed, rounds, server if database == "postgres" else None, options.without)
    found = await SCENARIOS[name].run(setup)
    print(f"{name} on {database}, {rounds} rounds, {monotonic() - began:.1f} s: {len(found)} violations", flush=True)
    if found:
        print(format_report(found), f"  what was written down: {folder}", sep="\n")
        print(f"  again: {format_command(options.seed, name, database, rounds, options.without)}", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse_arguments())))
