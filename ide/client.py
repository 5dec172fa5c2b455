"""The service over HTTP: one message in, the chunks of its run out, through broken connections and restarts."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self
from urllib.parse import quote

import httpx

from ide.sse import ServerSentEvent, parse_events

Chunk = dict[str, Any]
Message = dict[str, Any]

RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, *(8.0,) * 6)
"""Seconds before each further attempt; any event that arrives starts the count again."""
SILENCE_SECONDS = 60.0
"""The service sends a comment every 15 s; after this long without one the connection counts as broken."""
DEFAULT_STREAM_OPTIONS: Mapping[str, bool] = {"tokens": True, "usage": True}


class ServiceError(Exception):
    """The service refused a request, or cannot be reached (`status` 0); `str(error)` says what to do."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class _RetryableError(Exception):
    def __init__(self, sentence: str, seconds: float = 0) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class ServiceClient:
    """`notice` hears of each reconnection; `stream` is what each message opts in to."""

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        stream: Mapping[str, bool] = DEFAULT_STREAM_OPTIONS,
        delays: Sequence[float] = RETRY_DELAYS,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5)
        self.http = httpx.AsyncClient(base_url=url, headers={"X-Internal-Auth": key}, timeout=timeout, trust_env=False)
        self.stream, self.delays, self.notice = dict(stream), delays, notice

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def send_message(self, session_id: str, message: Message) -> AsyncGenerator[Chunk, None]:
        """The chunks of the message's run, until `done`. Raises ServiceError."""
        named = {"id": str(uuid.uuid4())} if message["type"] in ("user_message", "switch_agent") else {}
        body = {"session_id": session_id, "message": {"stream": self.stream, **named, **message}}
        return self._follow_run(
            session_id, self.http.build_request("POST", "/agent/message/stream", **_encode_json(body))
        )

    def join_run(self, session_id: str) -> AsyncGenerator[Chunk, None]:
        """The chunks of the running or the last run, from its start. Raises ServiceError."""
        return self._follow_run(session_id, self._build_join_request(session_id))

    def _build_join_request(self, session_id: str, last_event_id: str | None = None) -> httpx.Request:
        params = {name: "true" for name in ("tokens", "usage") if self.stream.get(name)}
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        return self.http.build_request("GET", f"/sessions/{session_id}/stream", params=params, headers=headers)

    async def _follow_run(self, session_id: str, request: httpx.Request) -> AsyncGenerator[Chunk, None]:
        """Until an event has arrived the request itself is repeated, which is safe; then the run is joined."""
        failures, last = 0, ""
        while True:
            try:
                async with aclosing(self._read_events(request)) as stream:
                    async for event in stream:
                        if event.name == "done":
                            return
                        failures, last = 0, event.id or last
                        yield json.loads(event.data)
                raise _RetryableError("the stream broke off")
            except (httpx.TransportError, _RetryableError) as fault:
                await self._wait_before_retry(failures, fault)
                failures += 1
                request = self._build_join_request(session_id, last) if last else request

    async def _read_events(self, request: httpx.Request) -> AsyncGenerator[ServerSentEvent, None]:
        response = await self.http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                raise _build_error(response)
            async with aclosing(parse_events(response.aiter_bytes())) as stream:
                async for event in stream:
                    yield event
        finally:
            await response.aclose()

    async def _wait_before_retry(self, failures: int, fault: Exception) -> None:
        said = str(fault) or type(fault).__name__
        if failures >= len(self.delays):
            raise ServiceError(f"The service at {self.http.base_url} cannot be reached: {said}.") from fault
        seconds = max(self.delays[failures], fault.seconds if isinstance(fault, _RetryableError) else 0)
        self.notice(f"Connection lost ({said}); trying again in {seconds:g} s.")
        await asyncio.sleep(seconds)

    async def request_json(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Any other endpoint; its JSON answer. Raises ServiceError."""
        failures = 0
        while True:
            try:
                response = await self.http.request(
                    method, path, params=params, **({} if body is None else _encode_json(body))
                )
                if not response.is_success:
                    raise _build_error(response)
                return response.json()
            except (httpx.TransportError, _RetryableError) as fault:
                await self._wait_before_retry(failures, fault)
                failures += 1

    async def list_sessions(self, limit: int = 20) -> dict[str, Any]:
        """`sessions`, the newest first, and `total`, how many there are in all."""
        return dict(await self.request_json("GET", "/sessions", limit=limit))

    async def list_agents(self) -> list[str]:
        return [agent["type"] for agent in await self.request_json("GET", "/agents")]

    async def fetch_history(self, session_id: str) -> dict[str, Any]:
        return dict(await self.request_json("GET", f"/sessions/{session_id}/history"))

    async def list_pending_approvals(self, session_id: str) -> list[dict[str, Any]]:
        """The calls that wait for approval: call_id, tool_name, arguments, reason, created_at."""
        return list((await self.request_json("GET", f"/sessions/{session_id}/pending-approvals"))["pending_approvals"])

    async def list_grants(self, session_id: str) -> list[dict[str, Any]]:
        """What the user allowed in advance."""
        return list((await self.request_json("GET", f"/sessions/{session_id}/grants"))["grants"])

    async def revoke_grants(self, session_id: str, grant_id: str = "") -> int:
        """One grant, or all of them; how many those were."""
        path = f"/sessions/{session_id}/grants" + (f"/{quote(grant_id, safe='')}" if grant_id else "")
        return int((await self.request_json("DELETE", path))["revoked"])

    async def cancel_run(self, session_id: str) -> None:
        await self.request_json("POST", f"/sessions/{session_id}/cancel")


def _encode_json(body: Any) -> dict[str, Any]:
    """ASCII, so that whatever a file or a command gave can be sent."""
    return {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}


def _build_error(response: httpx.Response) -> Exception:
    if response.status_code in (502, 503, 504):
        after = response.headers.get("Retry-After", "")
        return _RetryableError(
            f"HTTP {response.status_code}", min(float(after), SILENCE_SECONDS) if after.isdigit() else 0
        )
    if response.status_code == 401:
        return ServiceError("The service wants its key: set AGENT_RUNTIME__INTERNAL_API_KEY to the service's own.", 401)
    return ServiceError(f"The service answered {response.status_code}: {response.text[:500]}", response.status_code)
