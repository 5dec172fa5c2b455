"""The service under measurement, and the model it talks to, each in a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.client import KEY
from benchmarks.process import Process, free_port, running


@asynccontextmanager
async def scripted_model(*latencies: float) -> AsyncIterator[str]:
    """Its URL. `latencies`: seconds to choose an agent, and to the first word."""
    port = free_port()
    async with running("-m", "benchmarks.model", str(port), *map(str, latencies), port=port, env={}):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def service(database: str, model: str, **more: str) -> AsyncIterator[Process]:
    """`more`: settings, by their names in small letters."""
    port = free_port()
    settings = {
        "internal_api_key": KEY,
        "host": "127.0.0.1",
        "port": str(port),
        "db_url": database,
        "llm_proxy_url": model,
        "llm_model": "scripted",
        "log_level": "CRITICAL",
        "llm_titles": "false",
        **more,
    }
    env = {f"AGENT_RUNTIME__{name.upper()}": value for name, value in settings.items()}
    async with running("server.py", port=port, env=env) as server:
        yield server
