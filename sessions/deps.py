"""The objects that everything about sessions works with."""

from dataclasses import dataclass

from graph.execution.outcome import Graph
from graph.settings import Settings
from sessions.runs.service import Runs
from sessions.store.database import Database


@dataclass(frozen=True)
class Deps:
    """Opened once, in the lifespan of the app, and passed to every function of the room."""

    database: Database
    graph: Graph
    runs: Runs
    settings: Settings
