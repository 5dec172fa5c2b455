"""LangGraph's own server (langgraph dev) with the project's langgraph.json, in a process that can be restarted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.paths import PROJECT_ROOT
from tests.support.ports import find_free_port


@dataclass
class LangGraphDev:
    """A server in a folder of its own, since it leaves files there."""

    folder: Path
    port: int
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        config = json.loads((PROJECT_ROOT / "langgraph.json").read_text())
        (self.folder / "langgraph.json").write_text(json.dumps(_use_absolute_paths(config)))
        command = [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--config", "langgraph.json"]
        with self.log.open("a") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_build_environment() | self.settings,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as patient:
            patient.get(f"{self.url}/ok").raise_for_status()

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, how)
            self._process.wait()


@contextmanager
def start_langgraph_dev(folder: Path, **settings: str) -> Iterator[LangGraphDev]:
    """Run the server until the block ends; `settings` are those of the graph."""
    given = {f"AGENT_RUNTIME__{name.upper()}": value for name, value in settings.items()}
    server = LangGraphDev(folder, find_free_port(), given)
    server.start()
    try:
        yield server
    finally:
        server.end()


def _use_absolute_paths(config: dict[str, Any]) -> dict[str, Any]:
    graphs = {name: str(PROJECT_ROOT / place) for name, place in config["graphs"].items()}
    return {**config, "dependencies": [str(PROJECT_ROOT / place) for place in config["dependencies"]], "graphs": graphs}


def _build_environment() -> dict[str, str]:
    """Return an environment without a developer's settings and keys, in which nothing is sent to anyone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_RUNTIME__", "LANG"))}
    return {**kept, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_JSON": "true"}
