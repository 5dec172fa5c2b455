"""The scenarios, by name."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.chaos import product
from tests.chaos.scenarios import clients, kills, races, replicas, troubles
from tests.chaos.world import ScenarioSetup


class Scenario(NamedTuple):
    run: Callable[[ScenarioSetup], Awaitable[list[str]]]
    """Runs the scenario and returns the violations."""
    databases: tuple[str, ...]
    short_rounds: int
    """Rounds in `make test`, on each database."""
    long_rounds: int
    """Rounds in `make chaos`, on each database."""
    needs_leases: bool = False


BOTH_DATABASES = ("sqlite", "postgres")
SQLITE = ("sqlite",)
POSTGRES = ("postgres",)

SCENARIOS = {
    "kill": Scenario(kills.kill_replica, BOTH_DATABASES, 15, 100),
    "stop": Scenario(kills.stop_replica, BOTH_DATABASES, 1, 20),
    "disconnect": Scenario(clients.disconnect_clients, BOTH_DATABASES, 30, 300),
    "body": Scenario(clients.send_oversized_bodies, SQLITE, 2, 10),
    "unread": Scenario(clients.leave_streams_unread, SQLITE, 2, 20),
    "full": Scenario(troubles.fill_disk, SQLITE, 1, 10),
    "restart": Scenario(troubles.restart_database, POSTGRES, 1, 20),
    "idle": Scenario(troubles.restart_while_idle, POSTGRES, 1, 10),
    "terminate": Scenario(troubles.terminate_connections, POSTGRES, 2, 40),
    "races": Scenario(races.race_on_one_replica, BOTH_DATABASES, 3, 100),
    "races-of-two": Scenario(races.race_on_two_replicas, POSTGRES, 4, 100, needs_leases=True),
    "one-killed": Scenario(replicas.kill_one_replica, POSTGRES, 2, 50, needs_leases=True),
    "asleep": Scenario(replicas.suspend_replica, POSTGRES, 1, 20, needs_leases=True),
}


def is_runnable(name: str, without: str = "") -> bool:
    """Return whether this service can run the scenario: without leases it refuses a second process on one database."""
    return not SCENARIOS[name].needs_leases or product.has_leases() or without == "lease"


def format_command(seed: int, name: str, database: str, rounds: int, without: str = "") -> str:
    """Return the command that makes the same choices."""
    more = f" --without {without}" if without else ""
    return f"python -m tests.chaos --seed {seed} --rounds {rounds} --only {name} --database {database}{more}"
