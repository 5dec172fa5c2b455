"""A specialist that begins before the model has chosen: a right guess speaks at once, a wrong one was never there."""

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
from tests.scripted import Held, calls, chooses, model, says
from tests.service import Client, Session, service, settings_for, text

pytestmark = pytest.mark.anyio
DOWN = LLMUnavailable("The model service could not be reached. Try again in a moment.")


def speculative(folder: Path) -> Settings:
    return settings_for(folder, speculative_routing=True)


def priced(line: AIMessageChunk, read: int, written: int) -> AIMessageChunk:
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return line.model_copy(update={"usage_metadata": usage})


def token(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "token": text, "is_final": False}


def whole(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "content": text, "is_final": True}


async def test_the_expected_specialist_is_asked_while_the_model_still_chooses(tmp_path: Path) -> None:
    choice, answer = Held(chooses("coder")), Held(says("It is made."))
    llm = model(answer, choices=[choice])
    async with service(llm, speculative(tmp_path)) as client:
        said = asyncio.create_task(client.session(tokens=True).user("create hello.py"))
        await choice.asked.wait()
        await answer.asked.wait()
        choice.release.set()
        await _switched(client)
        answer.release.set()
        switched, *words, final = await said
    assert switched["metadata"]["to_agent"] == "coder"
    assert (words, final) == ([token("It"), token(" is"), token(" made.")], whole("It is made."))
    assert len(llm.heard) == 2


async def _switched(client: Client) -> None:
    """When the run has told who answers."""
    async with client.http.stream("GET", "/sessions/s-1/stream") as response:
        async for line in response.aiter_lines():
            if "agent_switched" in line:
                return
    raise AssertionError("nobody was told who answers")


async def test_words_that_come_before_the_choice_are_told_after_it(tmp_path: Path) -> None:
    choice = Held(chooses("coder"))

    def then(_: Any) -> AIMessageChunk:
        asyncio.get_running_loop().call_soon(choice.release.set)
        return says("It is made.")

    async with service(model(then, choices=[choice]), speculative(tmp_path)) as client:
        switched, *words, final = await client.session(tokens=True).user("create hello.py")
    assert switched["type"] == "agent_switched"
    assert ("".join(word["token"] for word in words), final) == ("It is made.", whole("It is made."))


@pytest.mark.parametrize("speaks", [True, False])
async def test_nothing_of_a_wrong_guess_is_seen_but_its_tokens(tmp_path: Path, speaks: bool) -> None:
    choice, guess = (
        Held(chooses("ask")),
        Held(priced(calls("write_file", "I write.", path="a.py", content="x"), 90, 10)),
    )
    llm = model(guess, priced(says("It greets."), 7, 2), choices=[choice])
    async with service(llm, speculative(tmp_path)) as client:
        session = client.session(tokens=True, usage=True)
        said = asyncio.create_task(session.user("create hello.py"))
        await guess.asked.wait()
        if speaks:
            guess.release.set()
        choice.release.set()
        switched, *rest = await said
        history = await session.history()
        audit = (await session.get("/sessions/{id}/audit"))["entries"]
        asked = (await session.get("/sessions/{id}/calls"))["calls"]
        spent = (await used(session))["speculation"]
    assert switched["metadata"]["to_agent"] == "ask"
    usage = rest[-2]
    assert [*rest[:-2], rest[-1]] == [token("It"), token(" greets."), whole("It greets.")]
    assert [message["content"] for message in history] == ["create hello.py", "It greets."]
    assert (audit, asked) == ([], [])
    assert usage["model_calls"] == 3
    assert usage["prompt_tokens"] > 7
    assert (spent["total_tokens"] == 100, spent["estimated_calls"]) == ((True, 0) if speaks else (False, 1))


async def test_the_failure_of_a_wrong_guess_is_no_failure(tmp_path: Path) -> None:
    choice = Held(chooses("ask"))
    llm = model(_fails_and(choice), says("It greets."), choices=[choice])
    async with service(llm, speculative(tmp_path)) as client:
        switched, final = await client.session().user("create hello.py")
    assert switched["metadata"]["to_agent"] == "ask"
    assert final == text("It greets.")


async def test_the_failure_of_a_right_guess_is_told_and_the_next_message_works(tmp_path: Path) -> None:
    choice = Held(chooses("coder"))
    llm = model(_fails_and(choice), says("It is made."), choices=[choice])
    async with service(llm, speculative(tmp_path)) as client:
        session = client.session()
        switched, failed = await session.user("create hello.py")
        assert (switched["metadata"]["to_agent"], failed["metadata"]["code"]) == ("coder", "llm_unavailable")
        assert await session.user("again") == [text("It is made.")]


async def test_without_a_usable_choice_the_guess_goes_on(tmp_path: Path) -> None:
    choice, answer = Held(says("no idea")), Held(says("It is made."))
    llm = model(answer, choices=[choice])
    async with service(llm, speculative(tmp_path)) as client:
        said = asyncio.create_task(client.session().user("create hello.py"))
        await answer.asked.wait()
        choice.release.set()
        answer.release.set()
        switched, final = await said
    assert switched["metadata"]["classification_method"] == "keywords"
    assert final["content"] == "It is made."


async def test_cancelling_drops_both_calls(tmp_path: Path) -> None:
    choice, guess = Held(chooses("coder")), Held(says("It is made."))
    llm = model(guess, says("Welcome."), choices=[choice, chooses("ask")])
    async with service(llm, speculative(tmp_path)) as client:
        session = client.session()
        said = asyncio.create_task(session.user("create hello.py"))
        await guess.asked.wait()
        await client.http.post("/sessions/s-1/cancel")
        (failed,) = await said
        assert failed["metadata"]["code"] == "cancelled"
        assert await wasted(session) == {"model_calls": 1, "estimated_calls": 1}
        assert (await used(session))["classification"]["estimated_calls"] == 1
        assert (await session.user("thanks"))[-1]["content"] == "Welcome."
        assert guess.dropped.is_set()


async def used(session: Session) -> dict[str, dict[str, int]]:
    """By purpose."""
    found: dict[str, dict[str, int]] = (await session.get("/sessions/{id}/usage"))["purposes"]
    return found


async def wasted(session: Session) -> dict[str, int]:
    spent = (await used(session))["speculation"]
    assert spent["total_tokens"] > 100
    return {name: spent[name] for name in ("model_calls", "estimated_calls")}


async def test_a_right_guess_is_paid_for_when_the_user_has_to_agree_first(tmp_path: Path) -> None:
    """The choice has used so much that the budget's question comes before the answer."""
    choice, guess = Held(priced(chooses("coder"), 85_000, 0)), Held(says("Never told."))
    settings = settings_for(tmp_path, speculative_routing=True, turn_tokens=100_000)
    async with service(model(guess, says("It is made."), choices=[choice]), settings) as client:
        session = client.session()
        said = asyncio.create_task(session.user("create hello.py"))
        await guess.asked.wait()
        choice.release.set()
        _, asks = await said
        assert (asks["tool_name"], asks["requires_approval"]) == ("continue_work", True)
        assert await wasted(session) == {"model_calls": 1, "estimated_calls": 1}
        assert await session.decide("approve", asks["call_id"]) == [text("It is made.")]


@pytest.mark.parametrize("picked", [{}, {"type": "switch_agent", "agent_type": "coder"}])
async def test_a_run_that_is_stopped_before_it_asks_a_model_begins_nothing(
    tmp_path: Path, picked: dict[str, str]
) -> None:
    llm = model(choices=[])
    graph = build_graph(Services.from_settings(llm, speculative(tmp_path))).compile(checkpointer=InMemorySaver())

    async def stopped() -> Any:
        stop = CancelToken()
        stop.request(Cancelled("The user cancelled."))
        with enter_scope(RunScope(cancel_token=stop)):
            return await graph.ainvoke(given("create hello.py", **picked), {"configurable": {"thread_id": "t-1"}})

    left = await asyncio.create_task(stopped())
    coroutines = [each for each in gc.get_objects() if inspect.iscoroutine(each)]
    assert [each for each in coroutines if inspect.getcoroutinestate(each) == inspect.CORO_CREATED] == []
    assert (left["ended"], llm.heard) == (True, [])
    assert left["spent"]["session"]["tokens"] == 0


async def test_a_begun_call_that_nobody_came_for_answers_no_later_message(tmp_path: Path) -> None:
    """The run stopped in between, as at a breakpoint in Studio."""
    choice, guess = Held(chooses("coder")), Held(says("The first is made."))
    llm = model(guess, says("The second is made."), choices=[choice])
    graph = build_graph(Services.from_settings(llm, speculative(tmp_path))).compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t-1"}}
    first = asyncio.create_task(graph.ainvoke(given("create hello.py"), thread, interrupt_before=["coder"]))
    await guess.asked.wait()
    choice.release.set()
    await first
    guess.release.set()
    left = await graph.ainvoke(given("create bye.py"), thread)
    assert [message.content for message in left["messages"]] == [
        "create hello.py",
        "create bye.py",
        "The second is made.",
    ]


async def test_graphs_without_a_thread_do_not_take_each_others_calls(tmp_path: Path) -> None:
    gates = [Held(chooses("coder")), Held(chooses("coder"))]
    llm = model(_echoes, _echoes, _echoes, _echoes, choices=gates)
    graph = build_graph(Services.from_settings(llm, speculative(tmp_path))).compile()
    first, second = (asyncio.create_task(graph.ainvoke(given(f"create {name}.py"))) for name in "ab")
    for gate in gates:
        await gate.asked.wait()
    for gate in gates:
        gate.release.set()
    for run in (first, second):
        request, answer = (await run)["messages"]
        assert answer.content == request.content


def given(content: str, **more: str) -> Any:
    return {"message": {"type": "user_message", "content": content, **more}}


def _echoes(heard: list[BaseMessage]) -> AIMessageChunk:
    return says(str(heard[-1].content))


def _fails_and(choice: Held) -> Any:
    def line(_: Any) -> AIMessageChunk:
        choice.release.set()
        raise DOWN

    return line
