"""The service on a real port, and a client that speaks like the Gateway."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from langchain_core.language_models import BaseChatModel

from graph.settings import Settings
from server import create_app
from tests.support.prepared import create_sqlite_file

API_KEY = "a-key-for-the-tests"
REQUEST_TIMEOUT_SECONDS = 60
"""Seconds of silence until a request fails: more than a loaded machine needs, less than a test's own timeout."""


def settings_for(url: str | Path, **changes: Any) -> Settings:
    """Return settings for the URL of a database, or for a folder with a SQLite file.

    The model makes each choice of an agent and no title, so that a script's lines are used in order.
    """
    db_url = url if isinstance(url, str) else f"sqlite:///{url}/test.db"
    in_order = {"llm_titles": False, "routing_cache_size": 0}
    given = {"db_url": db_url, "internal_api_key": API_KEY, "log_level": "ERROR", **in_order, **changes}
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def start_service(
    model: BaseChatModel | None, settings: Settings, app: FastAPI | None = None
) -> AsyncIterator["GatewayClient"]:
    """Run the service until the block ends; without a model it opens the one of the settings.

    A test that looks into the app makes it itself and passes it as `app`.
    """
    await create_sqlite_file(settings)
    app = app or create_app(settings, None if model is None else provide_model(model))
    listener = socket.create_server(("127.0.0.1", 0))
    server = PromptServer(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    key = settings.internal_api_key.get_secret_value().encode()
    try:
        async with open_http_client(base, key) as http:
            await _wait_until_ready(http, serving)
            yield GatewayClient(http)
    finally:
        server.exit_requested.set()
        await serving


class PromptServer(uvicorn.Server):
    """A server that ends as soon as it is asked to: uvicorn's own looks ten times a second, and pauses at its end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.exit_requested = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.exit_requested.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, without its pause when no connection is left."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
        else:
            await self.lifespan.shutdown()


def open_http_client(url: str, key: bytes) -> httpx.AsyncClient:
    """Return a client of the service. It loads no certificates: that takes longer than many a test."""
    headers = {b"X-Internal-Auth": key}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_SECONDS, verify=False)


@asynccontextmanager
async def provide_model(model: BaseChatModel) -> AsyncIterator[BaseChatModel]:
    yield model


async def _wait_until_ready(http: httpx.AsyncClient, serving: "asyncio.Task[None]") -> None:
    """Wait for the answer to a first request: the socket listens before the service has started."""
    asking = asyncio.ensure_future(http.get("/ready"))
    await asyncio.wait([asking, serving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        asking.cancel()
        serving.result()
        raise RuntimeError("the service did not start")
    (await asking).raise_for_status()


@dataclass
class GatewayClient:
    http: httpx.AsyncClient

    def open_session(self, session_id: str = "s-1", **stream: bool) -> "SessionClient":
        return SessionClient(self.http, session_id, stream)


@dataclass
class SessionClient:
    """A client of one session. Each answer is the list of its chunks, which must be a valid stream."""

    http: httpx.AsyncClient
    id: str
    stream: dict[str, bool] = field(default_factory=dict)

    async def send_text(self, content: str, **more: Any) -> list[dict[str, Any]]:
        return await self.send({"type": "user_message", "content": content, **more})

    async def switch(self, agent: str, **more: Any) -> list[dict[str, Any]]:
        return await self.send({"type": "switch_agent", "agent_type": agent, **more})

    async def send_result(self, result: Any = "ok", call_id: str = "call_1", **more: Any) -> list[dict[str, Any]]:
        return await self.send({"type": "tool_result", "call_id": call_id, "result": result, **more})

    async def decide(self, decision: str, call_id: str = "call_1", **more: Any) -> list[dict[str, Any]]:
        return await self.send({"type": "hitl_decision", "call_id": call_id, "decision": decision, **more})

    async def send(self, message: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
        body = {"session_id": self.id, "message": message, "stream": self.stream}
        response = await self.http.post("/agent/message/stream", json=body, headers=headers)
        return parse_chunks(response)

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.http.get(path.format(id=self.id), params=params)).raise_for_status().json()

    async def fetch_history(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await self.get("/sessions/{id}/history"))["messages"]
        return messages


def parse_chunks(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    events = parse_events(response.text)
    assert [name for name, _ in events].index("done") == len(events) - 1
    assert events[-1][1] == {"status": "completed"}
    chunks = [chunk for _, chunk in events[:-1]]
    finals = [chunk["is_final"] for chunk in chunks]
    assert finals in ([], [False] * (len(chunks) - 1) + [True])
    assert all((name == "error") == (chunk["type"] == "error") for name, chunk in events[:-1])
    return chunks


def parse_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream as the Gateway reads them: line by line, without other lines."""
    assert text.isascii()
    events, name = [], ""
    for line in text.split("\n"):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def text_chunk(content: str, *, is_final: bool = True, **more: Any) -> dict[str, Any]:
    """Return the chunk of a whole text, for a client that did not opt in to tokens."""
    return {"type": "assistant_message", "content": content, "token": content, "is_final": is_final, **more}


def tool_call_chunk(tool: str, call_id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """Return the chunk of a call that is to be executed."""
    return {
        "type": "tool_call",
        "call_id": call_id,
        "tool_name": tool,
        "arguments": arguments,
        "requires_approval": False,
        "is_final": True,
    }


def approval_chunk(tool: str, rule: str, reason: str, call_id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """Return the chunk of a call that requires approval."""
    asked = tool_call_chunk(tool, call_id, **arguments)
    pattern = arguments.get("command") or arguments.get("path")
    metadata = {"rule": rule, "reason": reason, "remember": {"pattern": pattern}}
    return {**asked, "requires_approval": True, "metadata": metadata}


def write_approval_chunk(path: str, content: str, call_id: str = "call_1") -> dict[str, Any]:
    reason = "Writing a file needs the user's approval."
    return approval_chunk("write_file", "write.file", reason, call_id, path=path, content=content)


def agent_switch_chunk(before: str, to: str, reason: str = "It fits.", **how: str) -> dict[str, Any]:
    how = how or {"confidence": "high", "classification_method": "llm"}
    metadata = {"from_agent": before, "to_agent": to, "reason": reason, **how}
    return {
        "type": "agent_switched",
        "content": f"Switched to {to} agent",
        "metadata": metadata,
        "is_final": False,
    }
