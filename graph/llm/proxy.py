"""The chat model over the LLM proxy: one shared HTTP client, retries until the first word, then the words as they come.

Reading an answer is `stream`, what is said when there is none `fault`.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from graph.errors import AgentRuntimeError, LLMUnavailable
from graph.llm.fault import Fault, broken_off, of_status, of_transport
from graph.llm.openai import as_json
from graph.llm.stream import Answer
from graph.offline import OfflineModel
from graph.settings import OFFLINE_MODEL, Settings

log = logging.getLogger("agent_runtime.llm")

DRAIN_SECONDS = 0.25
"""For the end of a stream after its [DONE]: a connection read to its end can be used again."""


class ProxyModel(BaseChatModel):
    """Async only. What is bound to it (temperature, tools, model, ...) goes into the request as it is."""

    model: str
    url: str = Field(repr=False)
    client: Callable[[], httpx.AsyncClient] = Field(repr=False, exclude=True)
    """The client of the running event loop."""
    timeout_seconds: float
    retries: int
    retry_delay_seconds: float

    @property
    def _llm_type(self) -> str:
        return "agent-runtime-proxy"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        described = [tool if isinstance(tool, dict) else convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=described, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("This model is asynchronous: use ainvoke or astream.")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, {"stop": stop, **kwargs}, streaming=False)
        chunks = [chunk async for chunk in self._answer(request)]
        message = AIMessage(
            content="".join(str(chunk.content) for chunk in chunks),
            tool_calls=chunks[-1].tool_calls,
            invalid_tool_calls=chunks[-1].invalid_tool_calls,
            usage_metadata=chunks[-1].usage_metadata,
            response_metadata=chunks[-1].response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # BaseChatModel.astream tells it of each chunk
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, {"stop": stop, **kwargs}, streaming=True)
        async with aclosing(self._answer(request)) as chunks:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    def _request(self, messages: list[BaseMessage], options: dict[str, Any], streaming: bool) -> bytes:
        given = {name: value for name, value in options.items() if value is not None and value != []}
        if "tools" not in given:
            given.pop("parallel_tool_calls", None)  # refused without tools
        body = {"model": self.model, **given, "stream": streaming}
        if streaming:
            body["stream_options"] = {"include_usage": True}
        return f'{json.dumps(body)[:-1]}, "messages": {as_json(messages)}}}'.encode()

    async def _answer(self, request: bytes) -> AsyncGenerator[AIMessageChunk, None]:
        """Pieces of the text, then one chunk with the rest. Tries again as long as nothing was yielded."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout_seconds
        for attempt in count():
            started = False
            try:
                async with aclosing(self._attempt(request, deadline)) as chunks:
                    async for chunk in chunks:
                        started = True
                        yield chunk
                return
            except Fault as fault:
                failed = fault
            log.warning("model %s, attempt %d: %s", self.model, attempt + 1, failed.cause)
            if started:
                raise _cut_short(failed)
            wait = max(failed.wait, self._delay(attempt))
            if not failed.retry or attempt >= self.retries or clock() + wait >= deadline:
                raise failed.error
            await asyncio.sleep(wait)

    def _delay(self, attempt: int) -> float:
        jitter: float = random.uniform(0.5, 1.0)  # noqa: S311
        return self.retry_delay_seconds * 2.0**attempt * jitter

    async def _attempt(self, request: bytes, deadline: float) -> AsyncGenerator[AIMessageChunk, None]:
        answer = Answer()
        try:
            async with aclosing(self._received(request, deadline)) as stream:
                async for data in stream:
                    if text := answer.feed(data):
                        yield AIMessageChunk(content=text)
                    if answer.done:
                        await _drain(stream)
                        break
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:  # OSError: TimeoutError is one
            if not answer.complete:
                raise of_transport(error) from None
        yield answer.finish()

    async def _received(self, request: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """The timeout is set anew for each read: across a yield it would strike whoever reads this."""
        client = self.client()
        async with asyncio.timeout_at(deadline):
            response = await client.send(client.build_request("POST", self.url, content=request), stream=True)
        try:
            if not response.is_success:
                raise of_status(response.status_code, response.headers.get("retry-after", ""))
            received = response.aiter_bytes()
            while True:
                async with asyncio.timeout_at(deadline):
                    data = await anext(received, None)
                if data is None:
                    return
                yield data
        finally:
            await response.aclose()


@asynccontextmanager
async def open_model(settings: Settings) -> AsyncIterator[BaseChatModel]:
    if settings.llm_model == OFFLINE_MODEL:
        yield OfflineModel()
        return
    async with _client(settings) as client:
        yield _proxy_model(settings, lambda: client)


def studio_model(settings: Settings) -> BaseChatModel:
    """For LangGraph Studio, which has no start and end to open and close a client in: one per event loop, at need."""
    if settings.llm_model == OFFLINE_MODEL:
        return OfflineModel()
    clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
    certificates = httpx.create_ssl_context(trust_env=False)  # reads files: not in an event loop

    def client() -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in clients:
            clients[loop] = _client(settings, certificates)
        return clients[loop]

    return _proxy_model(settings, client)


def endpoint(base: str) -> str:
    """Raises ValueError for what is no address, so that it is seen at start-up."""
    root = base.strip().rstrip("/").removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
    try:
        url = httpx.URL(f"{root}/v1/chat/completions")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("AGENT_RUNTIME__LLM_PROXY_URL is no http or https address.")
    return str(url)


def _proxy_model(settings: Settings, client: Callable[[], httpx.AsyncClient]) -> ProxyModel:
    return ProxyModel(
        model=settings.llm_model,
        url=endpoint(settings.llm_proxy_url),
        client=client,
        timeout_seconds=settings.llm_timeout_seconds,
        retries=settings.llm_retries,
        retry_delay_seconds=settings.llm_retry_delay_seconds,
        disable_streaming=not settings.llm_streaming,
    )


def _client(settings: Settings, certificates: Any = True) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers=_headers(settings),
        timeout=httpx.Timeout(settings.llm_idle_timeout_seconds, connect=settings.llm_connect_timeout_seconds),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30),
        follow_redirects=False,
        trust_env=False,
        verify=certificates,
    )


def _headers(settings: Settings) -> dict[bytes, bytes]:
    """Our own key never goes to a service that has a key of its own."""
    own, foreign = settings.internal_api_key.get_secret_value(), settings.llm_api_key.get_secret_value()
    headers = {b"Content-Type": b"application/json", b"Accept-Encoding": b"identity"}
    if foreign:
        headers[b"Authorization"] = f"Bearer {foreign}".encode()
    elif own:
        headers[b"X-Internal-Auth"] = own.encode()
    return headers


def _cut_short(fault: Fault) -> AgentRuntimeError:
    return broken_off(fault.cause).error if isinstance(fault.error, LLMUnavailable) else fault.error


async def _drain(stream: AsyncIterator[bytes]) -> None:
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
