"""A splitter separates a model's thoughts from its answer, in whatever pieces both come."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.thoughts import MAX_CANDIDATES, Piece, Thoughts, ThoughtSplitter, join_answer, strip_thoughts

GPT_OSS_ANSWER = "<|start|>assistant<|channel|>final<|message|>"
WITH_THOUGHTS = {
    "<think>secret</think>Hello": "Hello",
    "\n <think>\nsecret\n</think>\n\nHello": "Hello",
    "<THINK>secret</Think>Hello": "Hello",
    "<thinking>secret</thinking>\nHello": "Hello",
    "<thought>secret</thought>Hello": "Hello",
    "<reasoning>secret</reasoning>Hello": "Hello",
    "<seed:think>secret</seed:think>Hello": "Hello",
    "[THINK]secret[/THINK]Hello": "Hello",
    "◁think▷secret◁/think▷Hello": "Hello",
    "<|START_THINKING|>secret<|END_THINKING|><|START_RESPONSE|>Hello": "Hello",
    "<|channel>thought\nsecret<channel|>Hello": "Hello",
    "<|channel>thought\n<channel|>\nHello": "Hello",
    f"<|channel|>analysis<|message|>secret<|end|>{GPT_OSS_ANSWER}Hello": "Hello",
    f"<|channel|>analysis<|message|>secret{GPT_OSS_ANSWER}Hello": "Hello",
    "<|channel|>analysis<|message|>secret<|channel|>final<|message|>Hello": "Hello",
    f"{GPT_OSS_ANSWER}Hello": "Hello",
    "<think>a secret</think>\n<think>another</think>Hello": "Hello",
    "<think>a</think><reasoning>b</reasoning>Hello": "Hello",
    "<think>It asks about `</think>`, the tag.</think>Hello": "Hello",
    "<think>a < b, c</d, [/THINK]</think>Hello": "Hello",
    "<think>Use `x`\n```py\nf()\n```</think>Hello <think> there": "Hello <think> there",
    "<think></think>Hello": "Hello",
    "</think>\n\nHello": "Hello",
    "<think>\n\n</think>\n\n": "",
    "<think>secret</think>": "",
    "<think>secret": "",
    "<think>": "",
    "<think>secret</thin": "",
    "<think>It is `</think>`": "",
}
"""A text, and the answer in it."""
CLOSED_ONLY = {
    "Okay, a short title.\n</think>\nFix the parser": "Fix the parser",
    "Okay, a short title.</think>Fix the parser": "Fix the parser",
    "Okay, a short title.</think> Fix the parser": "Fix the parser",
    "Okay.\n```py\nf()\n```\n</think>\n\nHello": "Hello",
    "It is about `<think>` and `</think>`.\n</think>\nHello": "Hello",
    "Okay\n</thinking>\nHello": "Hello",
    "Okay[/THINK]Hello": "Hello",
    "Okay◁/think▷Hello": "Hello",
    "thought\nOkay<channel|>Hello": "Hello",
    f"Okay<|end|>{GPT_OSS_ANSWER}Hello": "Hello",
    "Okay.\n</think>": "",
    "Okay.</think>Hello.</think>Bye": "Hello.</think>Bye",
}
ABOUT_THOUGHTS = [
    "`<think>` opens a block and `</think>` closes it.",
    "The tag <think> opens a block, and </think> closes it.",
    "The tag </think> closes it.",
    "The code `x.</think>y` is odd.",
    'It ends with "</think>", always.',
    "Look:\n```html\n<think>\nHm\n</think>\n```\nDone.",
    "Look:\n```\nHm\n</think>\n```",
    "Hello <think>a</think> there",
    "1. <think>a</think>",
    "```\n<think>a</think>\n```",
    "<thin>a</thin>",
    "<b>Hello</b>",
    "a < b",
    "[1] a list",
    "[",
    "<",
    "<thi",
    "\n\n Hello\n",
    "Hello </thi",
]


def split(*texts: str) -> list[Piece]:
    splitter = ThoughtSplitter()
    return [piece for text in texts for piece in splitter.feed(text)] + [*splitter.finish()]


@pytest.mark.parametrize(("text", "answer"), [*WITH_THOUGHTS.items(), *CLOSED_ONLY.items()])
def test_thoughts_are_separated(text: str, answer: str) -> None:
    assert strip_thoughts(text) == join_answer(split(*text)) == answer
    assert "secret" not in "".join(piece for piece in split(*text) if isinstance(piece, str))


@pytest.mark.parametrize("text", ABOUT_THOUGHTS)
def test_text_about_thoughts_stays(text: str) -> None:
    assert strip_thoughts(text) == join_answer(split(*text)) == text
    assert all(isinstance(piece, str) for piece in split(*text))


@pytest.mark.parametrize("blank", ["", " ", "\n\n", "\u00a0", "\u200b", "\ufeff", "\u2800", "\u3164", "\u00ad", "\0"])
def test_blank_text_is_no_answer(blank: str) -> None:
    assert strip_thoughts(blank * 3) == join_answer(split(*blank * 3)) == ""
    assert strip_thoughts(f"{blank}Hello{blank}") == f"{blank}Hello{blank}"


def test_pieces_come_as_soon_as_they_are_known() -> None:
    splitter = ThoughtSplitter()
    fed = ["\n", "<th", "ink>Hm", "</", "think>", "\n", "He", "llo <", "b>"]
    assert [[*splitter.feed(text)] for text in fed] == [
        *[[], [], [], [], [Thoughts("Hm", False)], [], ["He"], ["llo <"], ["b>"]]
    ]


def test_thoughts_that_were_taken_for_an_answer_are_reported_whole() -> None:
    assert split("O", "k", "ay.</th", "ink>\n", "Hello") == ["O", "k", "ay.", Thoughts("Okay.", True), "Hello"]


PARTS = [
    *"<>/`[ \n.a",
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "```",
    "</",
    "think>",
    "<channel|>",
    "Hi",
    "\u200b",
]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_size_of_the_pieces_changes_nothing(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = split(*(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)))
    assert join_answer(pieces) == strip_thoughts(text)
    answer, released = "", ""
    for piece in pieces:
        if isinstance(piece, Thoughts):
            assert not piece.was_released or piece.text == released
            released = ""
        else:
            released += piece
            answer += piece
    assert len(answer) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 200_000,
        "<think>" * 30_000,
        "<think>" + "`</think>`" * 20_000,
        "a </think> b " * 20_000,
        "<" * 200_000,
        "<think></think>" * 10_000,
        "a" + "</" * 100_000,
    ],
)
def test_work_grows_with_the_text_only(text: str) -> None:
    started = time.process_time()
    split(*(text[start : start + 3] for start in range(0, len(text), 3)))
    strip_thoughts(text)
    assert time.process_time() - started < 5  # seconds; quadratic work takes minutes


def test_closing_tags_without_thoughts_are_looked_at_a_few_times() -> None:
    text = "The tag </think> ends it. " * MAX_CANDIDATES
    assert strip_thoughts(f"{text}\n</think>\nHello") == f"{text}\n</think>\nHello"
