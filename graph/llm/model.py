"""The chat model over the LLM proxy, and the opening of it. `client` sends the requests."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
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
from pydantic import ConfigDict, Field

from graph.context.model_limits import ModelLimits
from graph.llm.client import ModelClient
from graph.llm.completion_request import CompletionRequest
from graph.llm.endpoint import build_endpoint, build_key_header
from graph.offline import OfflineModel
from graph.settings import OFFLINE_MODEL, Settings

MAX_IDLE_CONNECTIONS = 64
"""Connections that stay open for the next call. Chosen, not measured; more can be in use at a time."""
IDLE_CONNECTION_SECONDS = 30
"""Seconds that an idle connection stays open. Chosen, not measured."""


class ProxyModel(BaseChatModel):
    """A chat model behind an OpenAI-compatible service. It is async only.

    Bound options (temperature, tools, model, ...) go into the request unchanged.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str
    fallback: str = ""
    """Name of the model that answers when another one is down; empty: there is none."""
    service: ModelClient = Field(repr=False, exclude=True)

    @property
    def limits(self) -> ModelLimits:
        """What the answers and refusals so far say about the size of requests."""
        return self.service.limits

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
        specifications = [tool if isinstance(tool, dict) else convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=specifications, tool_choice=tool_choice, **kwargs)

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
        chunks = [chunk async for chunk in self._stream_completion(messages, {"stop": stop, **kwargs}, streaming=False)]
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
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # BaseChatModel.astream reports each chunk to it
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._stream_completion(messages, {"stop": stop, **kwargs}, streaming=True)) as chunks:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    def _stream_completion(
        self, messages: list[BaseMessage], options: dict[str, Any], streaming: bool
    ) -> AsyncGenerator[AIMessageChunk, None]:
        first = options.pop("model", None) or self.model
        models = [first, *([self.fallback] if self.fallback not in ("", first) else [])]
        return self.service.stream_completion(models, CompletionRequest(messages, options, streaming=streaming))


@asynccontextmanager
async def open_model(settings: Settings) -> AsyncIterator[BaseChatModel]:
    """Open the model that the settings name. Raises ValueError for an address that is none."""
    if settings.llm_model == OFFLINE_MODEL:
        yield OfflineModel()
        return
    async with _make_http_client(settings) as client:
        yield _make_proxy_model(settings, lambda: client)


def make_studio_model(settings: Settings) -> BaseChatModel:
    """Return a model for LangGraph Studio, which has no start and no end to open and close a client in.

    Each event loop gets an HTTP client at its first request.
    """
    if settings.llm_model == OFFLINE_MODEL:
        return OfflineModel()
    clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
    certificates = httpx.create_ssl_context(trust_env=False)  # reads files, which blocks an event loop

    def get_client() -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in clients:
            clients[loop] = _make_http_client(settings, certificates)
        return clients[loop]

    return _make_proxy_model(settings, get_client)


def _make_proxy_model(settings: Settings, client: Callable[[], httpx.AsyncClient]) -> ProxyModel:
    return ProxyModel(
        model=settings.llm_model,
        fallback=settings.llm_fallback_model,
        service=ModelClient(build_endpoint(settings.llm_proxy_url), client, settings),
        disable_streaming=not settings.llm_streaming,
    )


def _make_http_client(settings: Settings, certificates: Any = True) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers=_build_headers(settings),
        timeout=httpx.Timeout(
            settings.llm_idle_timeout_seconds, read=None, connect=settings.llm_connect_timeout_seconds
        ),
        limits=httpx.Limits(
            max_connections=None,  # a call never waits for a connection
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_CONNECTION_SECONDS,
        ),
        follow_redirects=False,
        trust_env=False,
        verify=certificates,
    )


def _build_headers(settings: Settings) -> dict[bytes, bytes]:
    """Return the headers of every request. The internal key never goes to a service with a key of its own."""
    internal_key, llm_key = settings.internal_api_key.get_secret_value(), settings.llm_api_key.get_secret_value()
    headers = {b"Content-Type": b"application/json", b"Accept-Encoding": b"identity"}
    if llm_key:
        headers |= build_key_header(build_endpoint(settings.llm_proxy_url), llm_key)
    elif internal_key:
        headers[b"X-Internal-Auth"] = internal_key.encode()
    return headers
