"""Separate a model's thoughts from its answer. Many services write both into one text.

Thoughts stand at the beginning of an answer. The same tag later in a text, in code or in quotes is what the user asked
about, and stays. The template of some models opens the block itself, so their thoughts have the closing tag only.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from textsafety import is_blank, is_blank_text

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think", "antthinking")
_FINAL = "<|channel|>final<|message|>"
_BLOCKS: dict[str, tuple[str, ...]] = {
    **{f"<{name}>": (f"</{name}>",) for name in _NAMES},
    "[think]": ("[/think]",),  # Mistral
    "◁think▷": ("◁/think▷",),  # Kimi
    "<|start_thinking|>": ("<|end_thinking|>",),  # Cohere
    "<|channel>thought\n": ("<channel|>",),  # Gemma
    "<|channel|>analysis<|message|>": ("<|end|>", f"<|start|>assistant{_FINAL}", _FINAL),  # gpt-oss
}
"""The opening tags, in lower case, each with its closing tags."""
_LONE_CLOSINGS = tuple({tag for closings in _BLOCKS.values() for tag in closings} - {"<|end|>"})
"""The closing tags that end thoughts without an opening tag. `<|end|>` ends any message of gpt-oss."""
_HEADERS = ("<|start|>assistant", _FINAL, "<|channel|>commentary<|message|>", "<|start_response|>", *_LONE_CLOSINGS)
"""What may stand before an answer and is no part of it. A closing tag there closes empty thoughts."""
_FIRST_CHARACTER = re.compile(r"[<\[◁]")
"""The first character of every tag."""
_QUOTES = frozenset("`'\"«»“”‘’")
_FENCE = "```"
MAX_CANDIDATES = 8
"""Closing tags that are looked at in an answer without an opening tag. Each costs a look at the whole text before it.
Chosen, not measured: a real one is among the first."""


def _compile(tags: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of any of the tags, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(tags, key=len, reverse=True))), re.IGNORECASE)


_BEGINNING = _compile([*_BLOCKS, *_HEADERS])
_OPENING = _compile(_BLOCKS)
_LONE_CLOSING = _compile(_LONE_CLOSINGS)
_CLOSING_OF = {opening: _compile(closings) for opening, closings in _BLOCKS.items()}


class Thoughts(NamedTuple):
    """Thoughts that have ended."""

    text: str
    was_released: bool
    """True: all of this text was returned as answer before its closing tag came. It is no part of the answer."""


Piece = str | Thoughts
"""A piece of the answer, or thoughts."""
EmitPiece = Callable[[Piece], None]


class ThoughtSplitter:
    """A reader of one answer, piece by piece. Blank text before an answer is returned with it, or not at all."""

    def __init__(self) -> None:
        self._read: Callable[[str, list[Piece], bool], str | None] = self._read_beginning
        self._held = ""
        self._is_in_answer = False
        self._has_thoughts = False
        self._blank: list[str] = []
        self._block = ""
        self._thoughts: list[str] = []
        self._released: list[str] = []
        self._candidates = 0

    def feed(self, text: str) -> Sequence[Piece]:
        """Return the pieces that are known with this text. A possible tag at its end is held back."""
        if self._is_in_answer and not ("<" in text or "[" in text or "◁" in text):  # most pieces: this must be fast
            self._released.append(text)
            return (text,)
        return self._read_all(text, is_end=False)

    def finish(self) -> Sequence[Piece]:
        """Return the rest, at the end of the text. Thoughts that are still open end here."""
        pieces = self._read_all("", is_end=True)
        if self._read == self._read_thoughts:
            self._end_thoughts(pieces, was_released=False)
        return pieces

    def _read_all(self, text: str, is_end: bool) -> list[Piece]:
        pieces: list[Piece] = []
        rest: str | None = self._held + text
        self._held = ""
        while rest is not None:
            rest = self._read(rest, pieces, is_end)
        self._is_in_answer = not self._held and self._read in (self._read_answer, self._read_rest)
        return pieces

    def _read_beginning(self, text: str, pieces: list[Piece], is_end: bool) -> str | None:
        """Read what stands before the answer. Return the text that follows a tag, None if there is no more."""
        start = next((place for place, char in enumerate(text) if not is_blank(char)), len(text))
        self._blank.append(text[:start])
        text = text[start:]
        if not text:
            return None
        if match := _BEGINNING.match(text):
            self._blank.clear()
            self._has_thoughts = True
            self._block = match[0].lower()
            if self._block in _BLOCKS:
                self._read = self._read_thoughts
            return text[match.end() :]
        if not is_end and _find_partial_tag(text, [*_BLOCKS, *_HEADERS]) == 0:
            self._held = text
            return None
        self._read = self._read_rest if self._has_thoughts else self._read_answer
        return ("" if self._has_thoughts else "".join(self._blank)) + text

    def _read_thoughts(self, text: str, pieces: list[Piece], is_end: bool) -> str | None:
        """Read an opened block up to its closing tag. A closing tag between backticks is a part of the thoughts."""
        start = 0
        while match := _CLOSING_OF[self._block].search(text, start):
            if _character_before(self._thoughts, text, match.start()) != "`":
                break
            if match.end() == len(text) and not is_end:
                self._thoughts.append(text[: match.start()])
                self._held = text[match.start() :]
                return None
            if text[match.end() : match.end() + 1] != "`":
                break
            start = match.end()
        if match is None:
            held = len(text) if is_end else _find_partial_tag(text, _BLOCKS[self._block])
            self._thoughts.append(text[:held])
            self._held = text[held:]
            return None
        self._thoughts.append(text[: match.start()])
        self._end_thoughts(pieces, was_released=False)
        return text[match.end() :]

    def _read_answer(self, text: str, pieces: list[Piece], is_end: bool) -> str | None:
        """Read an answer that has no thoughts, unless a closing tag shows that all of it was thoughts."""
        match = _LONE_CLOSING.search(text)
        if match is None or (match.end() == len(text) and not is_end):
            held = match.start() if match else len(text) if is_end else _find_partial_tag(text, _LONE_CLOSINGS)
            self._release(text[:held], pieces)
            self._held = text[held:]
            return None
        before = "".join(self._released) + text[: match.start()]
        if _ends_thoughts(before, text[match.end() : match.end() + 1]):
            was_released = bool(self._released)
            if was_released:
                self._release(text[: match.start()], pieces)
            self._thoughts = [before]
            self._end_thoughts(pieces, was_released=was_released)
            return text[match.end() :]
        self._candidates += 1
        if self._candidates == MAX_CANDIDATES:
            self._read = self._read_rest
            return text
        self._release(text[: match.end()], pieces)
        return text[match.end() :]

    def _read_rest(self, text: str, pieces: list[Piece], is_end: bool) -> str | None:
        """Read an answer whose thoughts have ended."""
        if text:
            pieces.append(text)
        return None

    def _release(self, text: str, pieces: list[Piece]) -> None:
        if text:
            self._released.append(text)
            pieces.append(text)

    def _end_thoughts(self, pieces: list[Piece], *, was_released: bool) -> None:
        """Add the thoughts to the pieces unless they are blank, and go back to the beginning of an answer."""
        text = "".join(self._thoughts)
        if was_released or not is_blank_text(text):
            pieces.append(Thoughts(text, was_released))
        self._thoughts = []
        self._has_thoughts = True
        self._read = self._read_beginning


def join_answer(pieces: Iterable[Piece]) -> str:
    """Return the answer that the pieces are."""
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        elif piece.was_released:
            texts.clear()
    return "".join(texts)


def strip_thoughts(text: str) -> str:
    """Return an answer without its thoughts; empty if it has nothing else, or nothing that a reader can see."""
    splitter = ThoughtSplitter()
    return join_answer([*splitter.feed(text), *splitter.finish()])


def quote_thoughts(text: str) -> str:
    """Return thoughts as a quotation in Markdown."""
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def _find_partial_tag(text: str, tags: Sequence[str]) -> int:
    """Return where the beginning of one of the tags stands at the end of the text; the length if there is none."""
    for place in range(max(0, len(text) - max(map(len, tags)) + 1), len(text)):
        if _FIRST_CHARACTER.match(text, place):
            end = text[place:].lower()
            if any(tag.startswith(end) for tag in tags):
                return place
    return len(text)


def _character_before(earlier: Sequence[str], text: str, place: int) -> str:
    """Return the character before the place in a text that `earlier` texts precede."""
    return text[place - 1] if place else next((part[-1] for part in reversed(earlier) if part), "")


def _ends_thoughts(before: str, after: str) -> bool:
    """Return whether a closing tag without an opening tag ends thoughts, or is what the text is about.

    `after` is the character that follows the tag; empty at the end.
    """
    line = before[before.rfind("\n") + 1 :]
    if before.count(_FENCE) % 2 or line.count("`") % 2 or before[-1:] in _QUOTES or after in _QUOTES:
        return False
    if any(before[: match.start()][-1:] not in _QUOTES for match in _OPENING.finditer(before)):
        return False
    is_within_sentence = before[-1:] == after == " " and before.rstrip()[-1:].isalnum()
    return not is_within_sentence
