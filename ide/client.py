"""Call the service over HTTP, through broken connections and restarts of the service."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypedDict, cast
from urllib.parse import quote

import httpx

from ide.sse import ServerSentEvent, parse_events

Chunk = dict[str, Any]
"""A chunk of a stream, as its JSON object. The service may add fields."""
Message = dict[str, Any]
"""A message to the service, as its JSON object."""

RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, *(8.0,) * 6)
"""Seconds before each further attempt; any event that arrives starts again with the first.

A short interruption is hardly noticed. Together they are some 56 s, enough for a restart of the service.
"""
SILENCE_SECONDS = 60.0
"""Seconds without a byte after which the connection counts as broken. The service sends a comment every 15 s."""
CONNECT_SECONDS = 5.0
"""Seconds to connect. A service that runs accepts at once; chosen, not measured."""
MAX_ERROR_LENGTH = 500
"""Characters of an HTTP error that are shown, enough for the sentences of the service; chosen, not measured."""
NEWEST_SESSIONS = 20
"""Sessions that are listed, so that the list fits on a screen."""

DEFAULT_STREAM_OPTIONS: Mapping[str, bool] = {"tokens": True, "usage": True}


class SessionList(TypedDict):
    """The newest sessions."""

    sessions: list[dict[str, Any]]
    total: int
    """The number of all sessions."""


class History(TypedDict):
    """The messages of a session, as far as the IDE reads the answer."""

    messages: list[dict[str, Any]]
    """The messages in the format of OpenAI, without the system prompt."""
    message_count: int
    current_agent: str


class ServiceError(Exception):
    """The service refused a request, or cannot be reached (`status` 0); `str(error)` says what to do."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class _RetryableError(Exception):
    """The request may succeed later, at the earliest after `seconds`."""

    def __init__(self, sentence: str, seconds: float = 0) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class ServiceClient:
    """A connection to the service at `url`.

    `stream` are the opt-ins of each message. `delays` are the seconds before each retry. `notice` is called with a
    sentence before each retry.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        stream: Mapping[str, bool] = DEFAULT_STREAM_OPTIONS,
        delays: Sequence[float] = RETRY_DELAYS,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        self.http = httpx.AsyncClient(base_url=url, headers={"X-Internal-Auth": key}, timeout=timeout, trust_env=False)
        self.stream, self.delays, self.notice = dict(stream), delays, notice

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def send_message(self, session_id: str, message: Message) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of the message's run, until `done`. Raises ServiceError.

        The message gets an id, so that a retry does not start a second run.
        """
        message_id = {"id": str(uuid.uuid4())} if message["type"] in ("user_message", "switch_agent") else {}
        body = {"session_id": session_id, "message": {"stream": self.stream, **message_id, **message}}
        return self._follow_run(
            session_id, self.http.build_request("POST", "/agent/message/stream", **_encode_json(body))
        )

    def join_run(self, session_id: str) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of the running or the last run, from its start. Raises ServiceError."""
        return self._follow_run(session_id, self._build_join_request(session_id))

    def _build_join_request(self, session_id: str, last_event_id: str | None = None) -> httpx.Request:
        params = {name: "true" for name in ("tokens", "usage") if self.stream.get(name)}
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        return self.http.build_request("GET", f"/sessions/{session_id}/stream", params=params, headers=headers)

    async def _follow_run(self, session_id: str, request: httpx.Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of a run through broken connections.

        Until an event has arrived the request itself is repeated, which is safe. After that the run is joined behind
        its last event.
        """
        failures, last_id = 0, ""
        while True:
            try:
                async with aclosing(self._read_events(request)) as stream:
                    async for event in stream:
                        if event.name == "done":
                            return
                        failures, last_id = 0, event.id or last_id
                        yield json.loads(event.data)
                raise _RetryableError("the stream broke off")
            except (httpx.TransportError, _RetryableError) as fault:
                await self._wait_before_retry(failures, fault)
                failures += 1
                request = self._build_join_request(session_id, last_id) if last_id else request

    async def _read_events(self, request: httpx.Request) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the events of one answer. Raises ServiceError, _RetryableError or httpx.TransportError."""
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
        """Sleep before the next attempt. Raises ServiceError after the last one."""
        cause = str(fault) or type(fault).__name__
        if failures >= len(self.delays):
            raise ServiceError(f"The service at {self.http.base_url} cannot be reached: {cause}.") from fault
        seconds = max(self.delays[failures], fault.seconds if isinstance(fault, _RetryableError) else 0)
        self.notice(f"Connection lost ({cause}); trying again in {seconds:g} s.")
        await asyncio.sleep(seconds)

    async def request_json(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Call any other endpoint, and return its JSON answer. Raises ServiceError."""
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

    async def list_sessions(self, limit: int = NEWEST_SESSIONS) -> SessionList:
        """Return the sessions, newest first. Raises ServiceError, as all methods below do."""
        return cast(SessionList, await self.request_json("GET", "/sessions", limit=limit))

    async def list_agents(self) -> list[str]:
        """Return the names that /agent takes."""
        return [agent["type"] for agent in await self.request_json("GET", "/agents")]

    async def fetch_history(self, session_id: str) -> History:
        """Return the history of the session. The status of the ServiceError is 404 if there is no such session."""
        return cast(History, await self.request_json("GET", f"/sessions/{session_id}/history"))

    async def list_pending_approvals(self, session_id: str) -> list[dict[str, Any]]:
        """Return the calls that wait for approval: call_id, tool_name, arguments, reason, created_at."""
        return list((await self.request_json("GET", f"/sessions/{session_id}/pending-approvals"))["pending_approvals"])

    async def list_grants(self, session_id: str) -> list[dict[str, Any]]:
        """Return the approvals that the user gave in advance."""
        return list((await self.request_json("GET", f"/sessions/{session_id}/grants"))["grants"])

    async def revoke_grants(self, session_id: str, grant_id: str = "") -> int:
        """Revoke one grant, or without an id all of them. Return the number of revoked grants."""
        path = f"/sessions/{session_id}/grants" + (f"/{quote(grant_id, safe='')}" if grant_id else "")
        return int((await self.request_json("DELETE", path))["revoked"])

    async def cancel_run(self, session_id: str) -> None:
        """Stop the run of the session. Without a run, close its open calls."""
        await self.request_json("POST", f"/sessions/{session_id}/cancel")


def _encode_json(body: Any) -> dict[str, Any]:
    """Return the arguments of a request with this body. It is ASCII, so that any text of a file can be sent."""
    return {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}


def _build_error(response: httpx.Response) -> Exception:
    """Return the error of an answer that is no success: _RetryableError for 502, 503 and 504, else ServiceError."""
    if response.status_code in (502, 503, 504):
        after = response.headers.get("Retry-After", "")
        return _RetryableError(
            f"HTTP {response.status_code}", min(float(after), SILENCE_SECONDS) if after.isdigit() else 0
        )
    if response.status_code == 401:
        return ServiceError(
            "The service requires its key: set AGENT_RUNTIME__INTERNAL_API_KEY to the service's own.", 401
        )
    return ServiceError(
        f"The service answered {response.status_code}: {response.text[:MAX_ERROR_LENGTH]}", response.status_code
    )
