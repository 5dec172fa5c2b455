"""A specialist starts before the model has chosen: a right guess answers at once, a wrong one leaves only its usage."""

import asyncio
import gc
import inspect
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from graph.cancellation import CancelToken
from graph.errors import Cancelled, LLMUnavailable
from graph.run_scope import RunScope, enter_scope
from graph.services import Services
from graph.settings import Settings
from graph.topology import build_graph
from tests.support.scripted import DeferredReply, call_tool, choose_agent, make_model, say_text
from tests.support.service import GatewayClient, SessionClient, settings_for, start_service, text_chunk

UNREACHABLE_ERROR = LLMUnavailable("The model service could not be reached. Try again in a moment.")


def build_settings(folder: Path) -> Settings:
    return settings_for(folder, speculative_routing=True)


def add_usage(line: AIMessageChunk, read: int, written: int) -> AIMessageChunk:
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return line.model_copy(update={"usage_metadata": usage})


def token_chunk(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "token": text, "is_final": False}


def final_chunk(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "content": text, "is_final": True}


async def test_expected_specialist_starts_during_classification(tmp_path: Path) -> None:
    choice, answer = DeferredReply(choose_agent("coder")), DeferredReply(say_text("It is made."))
    llm = make_model(answer, choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        said = asyncio.create_task(client.open_session(tokens=True).send_text("create hello.py"))
        await choice.requested.wait()
        await answer.requested.wait()
        choice.release.set()
        await _wait_for_agent_switch(client)
        answer.release.set()
        switched, *words, final = await said
    assert switched["metadata"]["to_agent"] == "coder"
    assert (words, final) == (
        [token_chunk("It"), token_chunk(" is"), token_chunk(" made.")],
        final_chunk("It is made."),
    )
    assert len(llm.prompts) == 2


async def _wait_for_agent_switch(client: GatewayClient) -> None:
    """Wait until the run has announced its agent."""
    async with client.http.stream("GET", "/sessions/s-1/stream") as response:
        async for line in response.aiter_lines():
            if "agent_switched" in line:
                return
    raise AssertionError("nobody was told who answers")


async def test_doubtful_request_starts_no_specialist_early(tmp_path: Path) -> None:
    """Its guess would often be wrong, and be paid for."""
    choice = DeferredReply(choose_agent("ask"))
    llm = make_model(say_text("Yes."), choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        said = asyncio.create_task(client.open_session().send_text("Could the cache be better?"))
        await choice.requested.wait()
        choice.release.set()
        switched, final = await said
    assert (switched["metadata"]["to_agent"], final) == ("ask", text_chunk("Yes."))
    assert len(llm.prompts) == 2


async def test_early_tokens_are_streamed_after_the_choice(tmp_path: Path) -> None:
    choice = DeferredReply(choose_agent("coder"))

    def release_and_answer(_: Any) -> AIMessageChunk:
        asyncio.get_running_loop().call_soon(choice.release.set)
        return say_text("It is made.")

    async with start_service(make_model(release_and_answer, choices=[choice]), build_settings(tmp_path)) as client:
        switched, *words, final = await client.open_session(tokens=True).send_text("create hello.py")
    assert switched["type"] == "agent_switched"
    assert ("".join(word["token"] for word in words), final) == ("It is made.", final_chunk("It is made."))


@pytest.mark.parametrize("speaks", [True, False])
async def test_wrong_guess_leaves_only_its_usage(tmp_path: Path, speaks: bool) -> None:
    choice, guess = (
        DeferredReply(choose_agent("ask")),
        DeferredReply(add_usage(call_tool("write_file", "I write.", path="a.py", content="x"), 90, 10)),
    )
    llm = make_model(guess, add_usage(say_text("It greets."), 7, 2), choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session(tokens=True, usage=True)
        said = asyncio.create_task(session.send_text("create hello.py"))
        await guess.requested.wait()
        if speaks:
            guess.release.set()
        choice.release.set()
        switched, *rest = await said
        history = await session.fetch_history()
        audit = (await session.get("/sessions/{id}/audit"))["entries"]
        asked = (await session.get("/sessions/{id}/calls"))["calls"]
        spent = (await fetch_usage(session))["speculation"]
    assert switched["metadata"]["to_agent"] == "ask"
    usage = rest[-2]
    assert [*rest[:-2], rest[-1]] == [token_chunk("It"), token_chunk(" greets."), final_chunk("It greets.")]
    assert [message["content"] for message in history] == ["create hello.py", "It greets."]
    assert (audit, asked) == ([], [])
    assert usage["model_calls"] == 3
    assert usage["prompt_tokens"] > 7
    assert (spent["total_tokens"] == 100, spent["estimated_calls"]) == ((True, 0) if speaks else (False, 1))


async def test_failure_of_a_wrong_guess_is_ignored(tmp_path: Path) -> None:
    choice = DeferredReply(choose_agent("ask"))
    llm = make_model(_release_and_fail(choice), say_text("It greets."), choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        switched, final = await client.open_session().send_text("create hello.py")
    assert switched["metadata"]["to_agent"] == "ask"
    assert final == text_chunk("It greets.")


async def test_failure_of_a_right_guess_is_reported(tmp_path: Path) -> None:
    choice = DeferredReply(choose_agent("coder"))
    llm = make_model(_release_and_fail(choice), say_text("It is made."), choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        switched, failed = await session.send_text("create hello.py")
        assert (switched["metadata"]["to_agent"], failed["metadata"]["code"]) == ("coder", "llm_unavailable")
        assert await session.send_text("again") == [text_chunk("It is made.")]


async def test_guess_is_used_when_classification_is_unusable(tmp_path: Path) -> None:
    choice, answer = DeferredReply(say_text("no idea")), DeferredReply(say_text("It is made."))
    llm = make_model(answer, choices=[choice])
    async with start_service(llm, build_settings(tmp_path)) as client:
        said = asyncio.create_task(client.open_session().send_text("create hello.py"))
        await answer.requested.wait()
        choice.release.set()
        answer.release.set()
        switched, final = await said
    assert switched["metadata"]["classification_method"] == "keywords"
    assert final["content"] == "It is made."


async def test_cancel_drops_both_model_calls(tmp_path: Path) -> None:
    choice, guess = DeferredReply(choose_agent("coder")), DeferredReply(say_text("It is made."))
    llm = make_model(guess, say_text("Welcome."), choices=[choice, choose_agent("ask")])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        said = asyncio.create_task(session.send_text("create hello.py"))
        await guess.requested.wait()
        await client.http.post("/sessions/s-1/cancel")
        (failed,) = await said
        assert failed["metadata"]["code"] == "cancelled"
        assert await fetch_wasted_usage(session) == {"model_calls": 1, "estimated_calls": 1}
        assert (await fetch_usage(session))["classification"]["estimated_calls"] == 1
        assert (await session.send_text("thanks"))[-1]["content"] == "Welcome."
        assert guess.dropped.is_set()


async def fetch_usage(session: SessionClient) -> dict[str, dict[str, int]]:
    """Return the usage of the session by purpose."""
    found: dict[str, dict[str, int]] = (await session.get("/sessions/{id}/usage"))["purposes"]
    return found


async def fetch_wasted_usage(session: SessionClient) -> dict[str, int]:
    spent = (await fetch_usage(session))["speculation"]
    assert spent["total_tokens"] > 100
    return {name: spent[name] for name in ("model_calls", "estimated_calls")}


async def test_right_guess_is_counted_when_a_budget_question_drops_it(tmp_path: Path) -> None:
    """The choice uses so much that the budget question comes before the answer."""
    choice, guess = DeferredReply(add_usage(choose_agent("coder"), 85_000, 0)), DeferredReply(say_text("Never told."))
    settings = settings_for(tmp_path, speculative_routing=True, max_turn_tokens=100_000)
    async with start_service(make_model(guess, say_text("It is made."), choices=[choice]), settings) as client:
        session = client.open_session()
        said = asyncio.create_task(session.send_text("create hello.py"))
        await guess.requested.wait()
        choice.release.set()
        _, asks = await said
        assert (asks["tool_name"], asks["requires_approval"]) == ("continue_work", True)
        assert await fetch_wasted_usage(session) == {"model_calls": 1, "estimated_calls": 1}
        assert await session.decide("approve", asks["call_id"]) == [text_chunk("It is made.")]


@pytest.mark.parametrize("picked", [{}, {"type": "switch_agent", "agent_type": "coder"}])
async def test_run_cancelled_before_its_model_call_starts_nothing(tmp_path: Path, picked: dict[str, str]) -> None:
    llm = make_model(choices=[])
    graph = build_graph(Services.from_settings(llm, build_settings(tmp_path))).compile(checkpointer=InMemorySaver())

    async def run_cancelled_graph() -> Any:
        stop = CancelToken()
        stop.request(Cancelled("The user cancelled."))
        with enter_scope(RunScope(cancel_token=stop)):
            return await graph.ainvoke(build_input("create hello.py", **picked), {"configurable": {"thread_id": "t-1"}})

    left = await asyncio.create_task(run_cancelled_graph())
    coroutines = [each for each in gc.get_objects() if inspect.iscoroutine(each)]
    assert [each for each in coroutines if inspect.getcoroutinestate(each) == inspect.CORO_CREATED] == []
    assert (left["ended"], llm.prompts) == (True, [])
    assert left["spent"]["session"]["tokens"] == 0


async def test_unused_speculative_call_answers_no_later_message(tmp_path: Path) -> None:
    """The first run stops before its answer, as at a breakpoint in Studio."""
    choice, guess = DeferredReply(choose_agent("coder")), DeferredReply(say_text("The first is made."))
    llm = make_model(guess, say_text("The second is made."), choices=[choice])
    graph = build_graph(Services.from_settings(llm, build_settings(tmp_path))).compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t-1"}}
    first = asyncio.create_task(graph.ainvoke(build_input("create hello.py"), thread, interrupt_before=["coder"]))
    await guess.requested.wait()
    choice.release.set()
    await first
    guess.release.set()
    left = await graph.ainvoke(build_input("create bye.py"), thread)
    assert [message.content for message in left["messages"]] == [
        "create hello.py",
        "create bye.py",
        "The second is made.",
    ]


async def test_runs_without_a_thread_do_not_share_speculative_calls(tmp_path: Path) -> None:
    gates = [DeferredReply(choose_agent("coder")), DeferredReply(choose_agent("coder"))]
    llm = make_model(_echo_request, _echo_request, _echo_request, _echo_request, choices=gates)
    graph = build_graph(Services.from_settings(llm, build_settings(tmp_path))).compile()
    first, second = (asyncio.create_task(graph.ainvoke(build_input(f"create {name}.py"))) for name in "ab")
    for gate in gates:
        await gate.requested.wait()
    for gate in gates:
        gate.release.set()
    for run in (first, second):
        request, answer = (await run)["messages"]
        assert answer.content == request.content


def build_input(content: str, **more: str) -> Any:
    return {"message": {"type": "user_message", "content": content, **more}}


def _echo_request(heard: list[BaseMessage]) -> AIMessageChunk:
    return say_text(str(heard[-1].content))


def _release_and_fail(choice: DeferredReply) -> Any:
    def release_and_raise(_: Any) -> AIMessageChunk:
        choice.release.set()
        raise UNREACHABLE_ERROR

    return release_and_raise
