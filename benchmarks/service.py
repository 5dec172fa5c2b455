"""Start the measured service and the model that it calls, each in a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.client import API_KEY
from benchmarks.process import MeasuredProcess, find_free_port, start_process


@asynccontextmanager
async def start_scripted_model(*latencies: float) -> AsyncIterator[str]:
    """Yield the URL of a scripted model. `latencies` are the seconds to choose an agent, and to the first word."""
    port = find_free_port()
    async with start_process("-m", "benchmarks.model", str(port), *map(str, latencies), port=port, env={}):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def start_service(database: str, model: str, **overrides: str) -> AsyncIterator[MeasuredProcess]:
    """Yield a service on `database` that calls the model at `model`. `overrides` are settings in lower case."""
    port = find_free_port()
    settings = {
        "internal_api_key": API_KEY,
        "host": "127.0.0.1",
        "port": str(port),
        "db_url": database,
        "llm_proxy_url": model,
        "llm_model": "scripted",
        "log_level": "CRITICAL",
        "llm_titles": "false",
        **overrides,
    }
    env = {f"AGENT_RUNTIME__{name.upper()}": value for name, value in settings.items()}
    async with start_process("server.py", port=port, env=env) as server:
        yield server
