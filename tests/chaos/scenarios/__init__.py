"""The scenarios, by name."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.chaos import product
from tests.chaos.scenarios import clients, kills, races, replicas, troubles
from tests.chaos.world import Setup


class Scenario(NamedTuple):
    run: Callable[[Setup], Awaitable[list[str]]]
    """What it finds."""
    databases: tuple[str, ...]
    short: int
    """Rounds in `make test`, on each database."""
    long: int
    """Rounds by hand."""
    needs_leases: bool = False


BOTH = ("sqlite", "postgres")
SQLITE = ("sqlite",)
POSTGRES = ("postgres",)

SCENARIOS = {
    "kill": Scenario(kills.kill, BOTH, 15, 100),
    "stop": Scenario(kills.stop, BOTH, 1, 20),
    "disconnect": Scenario(clients.disconnect, BOTH, 30, 300),
    "body": Scenario(clients.body, SQLITE, 2, 10),
    "unread": Scenario(clients.unread, SQLITE, 2, 20),
    "full": Scenario(troubles.full, SQLITE, 1, 10),
    "restart": Scenario(troubles.restart, POSTGRES, 1, 20),
    "idle": Scenario(troubles.idle, POSTGRES, 1, 10),
    "terminate": Scenario(troubles.terminate, POSTGRES, 2, 40),
    "races": Scenario(races.races, BOTH, 3, 100),
    "races-of-two": Scenario(races.races_of_two, POSTGRES, 4, 100, needs_leases=True),
    "one-killed": Scenario(replicas.one_killed, POSTGRES, 2, 50, needs_leases=True),
    "asleep": Scenario(replicas.asleep, POSTGRES, 1, 20, needs_leases=True),
}


def runnable(name: str, without: str = "") -> bool:
    """Whether this service can be made to do it: a second process on one database is refused where it has no leases."""
    return not SCENARIOS[name].needs_leases or product.has_leases() or without == "lease"


def repeat(seed: int, name: str, database: str, rounds: int, without: str = "") -> str:
    """The command that makes the same choices."""
    more = f" --without {without}" if without else ""
    return f"python -m tests.chaos --seed {seed} --rounds {rounds} --only {name} --database {database}{more}"
