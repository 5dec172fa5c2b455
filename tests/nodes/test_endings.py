"""The text beside a call that ends the turn, and the text of the call, make one answer that says nothing twice."""

from pathlib import Path
from typing import Any

import pytest

from graph.permissions.endings import join_ending
from tests.support.scripted import call_tool, make_model, say_text
from tests.support.service import settings_for, start_service, text_chunk

FIXED = "The parser is fixed."
TESTED = "The parser is fixed. All tests pass."


@pytest.mark.parametrize(
    ("text", "result", "answer"),
    [
        ("", FIXED, FIXED),
        (FIXED, FIXED, FIXED),
        (f"\n{FIXED}\n\n", FIXED, f"\n{FIXED}\n\n"),
        (FIXED, TESTED, TESTED),
        (f"{FIXED}\n", TESTED, TESTED),
        (TESTED, FIXED, TESTED),
        (f"I looked. {FIXED}", FIXED, f"I looked. {FIXED}"),
        (f"I looked.\n{FIXED}\nNothing else is left.", FIXED, f"I looked.\n{FIXED}\nNothing else is left."),
        (FIXED, f"Done. {FIXED}", f"Done. {FIXED}"),
        ("I mend it.", FIXED, f"I mend it.\n\n{FIXED}"),
        ("Done with the first step", "Done", "Done with the first step\n\nDone"),
        ("2 + 4 =", "4", "2 + 4 =\n\n4"),
        ("The sum is 14", "4", "The sum is 14\n\n4"),
    ],
)
def test_the_same_words_are_said_once(text: str, result: str, answer: str) -> None:
    assert join_ending(text, result) == answer
    sent = join_ending(text, result, is_sent=True)
    assert sent.startswith(text)
    assert " ".join(sent.split()) in (" ".join(answer.split()), " ".join(f"{text} {result}".split()))


@pytest.mark.parametrize(
    ("text", "result", "answer"),
    [(FIXED, FIXED, FIXED), (FIXED, TESTED, TESTED), (TESTED, FIXED, TESTED), ("I mend it.", FIXED, None)],
)
async def test_answer_is_said_once_with_tokens_and_without(
    tmp_path: Path, text: str, result: str, answer: str | None
) -> None:
    answer = answer or f"{text}\n\n{result}"
    line = call_tool("attempt_completion", text, result=result)
    async with start_service(make_model(line, line), settings_for(tmp_path)) as client:
        session = client.open_session("s-1")
        await session.switch("coder")
        assert await session.send_text("Mend it") == [text_chunk(answer, metadata={"completion": True})]
        session = client.open_session("s-2", tokens=True)
        await session.switch("coder")
        *tokens, last = await session.send_text("Mend it")
    assert "".join(chunk["token"] for chunk in tokens) == last["content"] == answer
    assert all(chunk["token"] for chunk in tokens)


async def test_question_that_repeats_the_text_is_said_once(tmp_path: Path) -> None:
    line = call_tool("ask_followup_question", "I can go on. Which file?", question="Which file?")
    async with start_service(make_model(line), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        metadata = {"question": True, "suggestions": []}
        assert await session.send_text("Mend it") == [text_chunk("I can go on. Which file?", metadata=metadata)]


@pytest.mark.parametrize("arguments", [{}, {"result": ""}, {"result": " \n"}, {"result": None}])
async def test_text_beside_a_completion_without_a_result_is_the_result(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    llm = make_model(call_tool("attempt_completion", FIXED, **arguments), say_text("You are welcome."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        assert await session.send_text("Mend it") == [text_chunk(FIXED, metadata={"completion": True})]
        assert await session.send_text("Thanks") == [text_chunk("You are welcome.")]
    assert len(llm.prompts) == 2


@pytest.mark.parametrize("arguments", [{}, {"result": ""}, {"result": " \n"}])
async def test_completion_without_any_text_is_malformed(tmp_path: Path, arguments: dict[str, Any]) -> None:
    llm = make_model(call_tool("attempt_completion", **arguments), say_text("It is done."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        assert await session.send_text("Mend it") == [text_chunk("It is done.")]
    assert str(llm.prompts[-1][-1].content).startswith("The arguments of attempt_completion are not valid: result: ")


@pytest.mark.parametrize(
    ("tool", "argument"), [("attempt_completion", "result"), ("ask_followup_question", "question")]
)
async def test_thoughts_in_the_text_of_a_call_are_dropped(tmp_path: Path, tool: str, argument: str) -> None:
    line = call_tool(tool, **{argument: f"<think>Is it?</think>\n{FIXED}"})
    async with start_service(make_model(line), settings_for(tmp_path)) as client:
        session = client.open_session("s-1")
        await session.switch("coder")
        (answer,) = await session.send_text("Mend it")
        history = await session.fetch_history()
    assert answer["content"] == FIXED
    assert "Is it?" not in str(history)
