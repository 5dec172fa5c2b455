"""Any conversation is sent as a history that the strictest services accept, and that stays as it was once sent."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from graph.context.acceptable_history import make_acceptable
from graph.context.window import MIN_CONVERSATION_TOKENS, fit_context
from graph.conversation import refusal_message, rejection_message, service_message, tool_message
from graph.llm.message_encoding import messages_to_json
from graph.permissions.decisions import CANCELLED_RESULT
from graph.services import Services
from graph.state import INITIAL_WINDOW, WindowState
from graph.topology import build_graph
from graph.usage.tokens import estimate_tokens
from tests.support.conversations import check_model_input
from tests.support.history_rules import RULES, find_faults
from tests.support.properties import draw_from_seed, search_settings
from tests.support.real_models import JUDGES_PYTHON, judge_histories
from tests.support.scripted import call_tool, make_model, say_text
from tests.support.service import settings_for

numbers = count()
BLANK_TEXTS = ["", " ", "\n\n", "\u00a0", "\u200b", "\ufeff", "\u2060 \u3164"]
TEXTS = ["Done.", "Готово.", "word " * 300, "🫩", *BLANK_TEXTS]


def encode(messages: Sequence[AnyMessage]) -> list[dict[str, Any]]:
    """Return the messages of the request."""
    encoded: list[dict[str, Any]] = json.loads(messages_to_json([SystemMessage("Help."), *messages], ""))
    return encoded


def call(tool: str = "read_file", **arguments: Any) -> Any:
    """Return a call that is like no other one. Its id has nine digits, as Mistral's own services want it."""
    number = next(numbers)
    return {"name": tool, "args": arguments or {"path": f"{number}.py"}, "id": f"{number:09}", "type": "tool_call"}


def describe(messages: Sequence[AnyMessage]) -> list[str]:
    """Return each message as its role and its text, with the tools that it calls."""
    tools = [[each["function"]["name"] for each in message.get("tool_calls", [])] for message in encode(messages)[1:]]
    told = [f"{message['role']}: {message['content']}" for message in encode(messages)[1:]]
    return ["".join([text, *names]) for text, names in zip(told, tools, strict=True)]


READ, WRITE = call(), call("write_file", path="a.py", content="a")
FINISH = call("attempt_completion", result="Fixed.")
ASK = call("ask_followup_question", question="Which?")
QUESTION = service_message("", calls=[call("continue_work", used="4 of 5")], aside=True)
A, B = HumanMessage("A"), HumanMessage("B")
ENDED = "The turn has ended with this result."
UNKNOWN = "no result came; it is not known whether it ran"
CONVERSATIONS: dict[str, tuple[list[AnyMessage], list[str]]] = {
    "the first model call fails": ([A, B], ["user: A", "assistant: (no answer)", "user: B"]),
    "a later model call fails": (
        [A, AIMessage("", tool_calls=[READ]), tool_message(READ, "x"), B],
        ["user: A", "assistant: read_file", "tool: x", "assistant: (no answer)", "user: B"],
    ),
    "the user goes on while a call is open": (
        [A, AIMessage("", tool_calls=[WRITE]), tool_message(WRITE, CANCELLED_RESULT, error=True), B],
        ["user: A", "assistant: write_file", f"tool: {CANCELLED_RESULT}", "assistant: (no answer)", "user: B"],
    ),
    "a rejection with an answer needs nothing": (
        [A, AIMessage("", tool_calls=[WRITE]), rejection_message(WRITE, "No."), AIMessage("Left."), B],
        ["user: A", "assistant: write_file", "tool: No.", "assistant: Left.", "user: B"],
    ),
    "the turn ends with a result": (
        [A, AIMessage("Tests pass.", tool_calls=[FINISH]), tool_message(FINISH, ENDED), B],
        [
            "user: A",
            "assistant: Tests pass.attempt_completion",
            f"tool: {ENDED}",
            "assistant: Tests pass.\n\nFixed.",
            "user: B",
        ],
    ),
    "the turn ends with a question": (
        [A, AIMessage("\n", tool_calls=[ASK]), tool_message(ASK, "Asked."), B],
        ["user: A", "assistant: ask_followup_question", "tool: Asked.", "assistant: Which?", "user: B"],
    ),
    "the end of the turn was refused, so the user did not see it": (
        [A, AIMessage("", tool_calls=[FINISH]), refusal_message(FINISH, "Not yet."), B],
        ["user: A", "assistant: attempt_completion", "tool: Not yet.", "assistant: (no answer)", "user: B"],
    ),
    "asides are left out": (
        [
            A,
            QUESTION,
            rejection_message(QUESTION.tool_calls[0], "No."),
            service_message("Stopped here.", aside=True),
            B,
        ],
        ["user: A", "assistant: (no answer)", "user: B"],
    ),
    "a call without a result": (
        [A, AIMessage("", tool_calls=[READ, WRITE]), tool_message(WRITE, "ok"), B],
        [
            "user: A",
            "assistant: read_filewrite_file",
            "tool: ok",
            f"tool: {UNKNOWN}",
            "assistant: (no answer)",
            "user: B",
        ],
    ),
    "a model call while a call is open": (
        [A, AIMessage("", tool_calls=[READ])],
        ["user: A", "assistant: read_file", f"tool: {UNKNOWN}"],
    ),
    "results without their call": (
        [tool_message(READ, "x"), A, AIMessage("Yes."), tool_message(READ, "x"), B],
        ["user: A", "assistant: Yes.", "user: B"],
    ),
    "a second result of a call": (
        [A, AIMessage("", tool_calls=[READ]), tool_message(READ, "x"), tool_message(READ, "y")],
        ["user: A", "assistant: read_file", "tool: x"],
    ),
    "nothing at all": ([], ["user: (continue)"]),
    "the assistant has the first and the last word": (
        [AIMessage("Hello."), A, AIMessage("Yes.")],
        ["user: (continue)", "assistant: Hello.", "user: A", "assistant: Yes.", "user: (continue)"],
    ),
    "two texts of the assistant": (
        [A, AIMessage("The first"), AIMessage("and the second half."), B],
        [
            "user: A",
            "assistant: The first",
            "user: (continue)",
            "assistant: and the second half.",
            "user: B",
        ],
    ),
    "a system message in the middle": (
        [A, AIMessage("Yes."), SystemMessage("Be brief.")],
        ["user: A", "assistant: Yes.", "user: Be brief."],
    ),
}


@pytest.mark.parametrize(("messages", "sent"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_short_text_stands_where_services_expect_one(messages: list[AnyMessage], sent: list[str]) -> None:
    assert describe(make_acceptable(messages)) == sent
    assert find_faults(encode(make_acceptable(messages))) == {}


@pytest.mark.parametrize("blank", BLANK_TEXTS)
def test_blank_texts_are_not_sent(blank: str) -> None:
    """A text may look blank in many ways, and services refuse most of them."""
    call_message = AIMessage(blank, tool_calls=[READ])
    messages: list[AnyMessage] = [HumanMessage(blank), AIMessage(blank), B, call_message, tool_message(READ, blank)]
    assert describe(make_acceptable(messages)) == [
        "user: (empty message)",
        "assistant: (no answer)",
        "user: B",
        "assistant: read_file",
        "tool: (no output)",
    ]
    assert call_message.content == blank


def draw_any_message(dice: Random) -> AnyMessage:
    """Draw a message as a client of the graph might write it, in no order, with a few ids for all calls."""
    calls: list[Any] = [{**call(), "id": name} for name in dice.sample("abc", dice.choice([0, 0, 1, 2]))]
    text = dice.choice(TEXTS)
    drawn: list[AnyMessage] = [
        HumanMessage(text),
        HumanMessage([{"type": "text", "text": text}]),
        AIMessage(text, tool_calls=calls),
        service_message(text, calls=calls, aside=True),
        ToolMessage(text, tool_call_id=dice.choice("abc"), name="read_file"),
        SystemMessage(text),
    ]
    return dice.choice(drawn)


@search_settings()
@given(messages=st.lists(draw_from_seed(draw_any_message), max_size=12))
def test_any_messages_become_an_acceptable_history(messages: list[AnyMessage]) -> None:
    sent = make_acceptable(messages)
    faults = find_faults(encode(sent))
    assert faults == {} or (faults.keys() == {"anthropic"} and "unique" in faults["anthropic"])  # ids are drawn twice
    assert make_acceptable(sent) == sent
    said = [str(message.text) for message in messages if message.type in ("human", "system")]
    heard = [str(message.text) for message in sent if message.type == "human"]
    assert [text for text in heard if not text.startswith("(")] == [text for text in said if text not in BLANK_TEXTS]


def draw_turn(dice: Random) -> list[AnyMessage]:
    """Draw what the graph writes between two messages of the user, complete or broken off anywhere."""
    steps: list[AnyMessage] = [HumanMessage(dice.choice(["Fix it.", "Почему?", "word " * 300]))]
    for _ in range(dice.choice([0, 1, 2, 6])):
        if dice.random() < 0.1:
            question = service_message("", calls=[call("continue_work", used="4 of 5")], aside=True)
            steps += [question, tool_message(question.tool_calls[0], "The user agreed to go on.")]
        calls = [call() for _ in range(dice.choice([1, 1, 1, 3]))]
        steps += [AIMessage(dice.choice(TEXTS), tool_calls=calls), *(dice.choice(RESULTS)(each) for each in calls)]
    return [*steps, *dice.choice(ENDS)()]


RESULTS: list[Callable[[Any], ToolMessage]] = [
    lambda each: tool_message(each, "x" * 3_000),
    lambda each: tool_message(each, ""),
    lambda each: tool_message(each, CANCELLED_RESULT, error=True),
    lambda each: refusal_message(each, "Architect may write only *.md files."),
    lambda each: rejection_message(each, "The user rejected this call."),
]


def end_with_control_call() -> list[AnyMessage]:
    finish = call("attempt_completion", result="word " * 300)
    return [AIMessage("", tool_calls=[finish]), tool_message(finish, ENDED)]


def end_with_declined_question() -> list[AnyMessage]:
    question = service_message("", calls=[call("continue_work", used="4 of 5")], aside=True)
    stop = service_message("Stopped here.", aside=True)
    return [question, rejection_message(question.tool_calls[0], "No."), stop]


ENDS: list[Callable[[], list[AnyMessage]]] = [
    list,  # a failure or a cancellation
    lambda: [AIMessage("Done.")],
    lambda: [AIMessage("\n")],
    lambda: [service_message("You rejected three proposals in a row. What should I do instead?")],
    end_with_control_call,
    end_with_declined_question,
]


@search_settings()
@given(
    turns=st.lists(draw_from_seed(draw_turn), min_size=1, max_size=12),
    room=st.sampled_from([MIN_CONVERSATION_TOKENS, 3_000, 50_000]),
    dice=st.randoms(),
)
def test_every_model_call_has_an_acceptable_history(turns: list[list[AnyMessage]], room: int, dice: Random) -> None:
    """Failures, cancellations, refusals, rejections, asides and compactions come in any order."""
    memory = INITIAL_WINDOW
    for messages in iter_model_calls(turns):
        found = fit_context(messages, memory, room)
        assert find_faults(encode(found.messages)) == {}
        assert estimate_tokens(*found.messages) <= room
        memory = found.memory
        if (upto := found.summarize_upto) and dice.random() < 0.3:
            memory = WindowState(summary="Read.", upto=upto, start=max(upto, memory["start"]), short=memory["short"])


def iter_model_calls(turns: list[list[AnyMessage]]) -> Iterator[list[AnyMessage]]:
    """Yield the conversation at each model call."""
    conversation = [message for turn in turns for message in turn]
    for end, (last, following) in enumerate(pairwise([*conversation, HumanMessage("")]), 1):
        if last.type != "ai" and following.type != "tool":
            yield conversation[:end]


@search_settings()
@given(turns=st.lists(draw_from_seed(draw_turn), min_size=1, max_size=12))
def test_what_was_sent_is_sent_again_unchanged(turns: list[list[AnyMessage]]) -> None:
    """The provider's prompt cache holds the messages of the request before."""
    before: list[AnyMessage] = []
    for messages in iter_model_calls(turns):
        sent = make_acceptable(messages)
        assert sent[: len(before)] == before
        before = sent


@pytest.mark.parametrize(
    "interference",
    [{}, {"message": None}, {"messages": [B]}, [B]],
    ids=["nothing", "null", "ignored", "a state update"],
)
async def test_thread_continues_after_an_input_that_answers_no_call(interference: Any) -> None:
    """A LangGraph client can run or update a paused thread in any way. A list is an update of its messages."""
    llm = make_model(call_tool("write_file", path="a.py", content="x"), *map(say_text, ["One.", "Two.", "Three."]))
    settings = settings_for("sqlite:///unused.db", multi_agent_mode=False)
    graph = build_graph(Services.from_settings(llm, settings)).compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    await graph.ainvoke({"message": {"type": "user_message", "content": "Fix it"}}, config)
    if isinstance(interference, list):
        await graph.aupdate_state(config, {"messages": interference})
    else:
        await graph.ainvoke(interference, config)
    for text in ("And now?", "And then?"):
        await graph.ainvoke({"message": {"type": "user_message", "content": text}}, config)
    for messages in llm.prompts:
        check_model_input(messages)


@pytest.mark.real_model
@pytest.mark.skipif(not JUDGES_PYTHON, reason="HISTORY_JUDGES names no python that has the code of model services")
def test_the_code_of_model_services_accepts_every_history() -> None:
    """The rules in this file are read from pages; these are what the pages describe."""
    turns = [[draw_turn(Random(f"{seed} {place}")) for place in range(6)] for seed in range(40)]
    conversations = [messages for drawn in turns for messages in iter_model_calls(drawn)]
    conversations += [messages for messages, _ in CONVERSATIONS.values() if messages]
    refused: list[AnyMessage] = [A, AIMessage("", tool_calls=[READ]), tool_message(READ, "x"), B]
    *verdicts, last = judge_histories([*(encode(make_acceptable(each)) for each in conversations), encode(refused)])
    assert [verdict for verdict in verdicts if verdict] == []
    assert {"mistral_v2v3", "mistral_v3_tekken", "gemma3"} <= last.keys()


@pytest.mark.parametrize(
    ("service", "messages"),
    [
        ("openai", [A, AIMessage("", tool_calls=[READ]), B]),
        ("openai", [A, tool_message(READ, "x")]),
        ("anthropic", [AIMessage("Yes."), A]),
        ("anthropic", [A, AIMessage("\n", tool_calls=[READ]), tool_message(READ, "x")]),
        ("anthropic", [A, AIMessage("", tool_calls=[READ]), B, tool_message(READ, "x")]),
        ("anthropic", [A, AIMessage("Yes.")]),
        ("mistral", [A, B]),
        ("mistral", [A, AIMessage("", tool_calls=[READ]), tool_message(READ, "x"), B]),
        ("mistral", [A, AIMessage("Yes."), AIMessage("Yes.")]),
        ("gemini", [A, AIMessage("Yes."), AIMessage("", tool_calls=[READ]), tool_message(READ, "x")]),
        ("gemini", [A, AIMessage("", tool_calls=[READ, WRITE]), tool_message(READ, "x")]),
        ("gemma", [A, AIMessage("", tool_calls=[READ]), tool_message(READ, "x"), B]),
    ],
)
def test_the_rules_refuse_what_services_refuse(service: str, messages: list[AnyMessage]) -> None:
    """Rules that refuse nothing would prove nothing."""
    assert RULES[service](encode(messages))
