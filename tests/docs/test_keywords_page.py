"""Every example of docs/keywords.md holds."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from cli.__main__ import main
from graph.routing.keywords import Clue
from graph.routing.patterns import MAX_GAP_WORDS
from graph.routing.scoring import (
    FILLER_WORDS,
    FORM_CHECKS,
    MAX_REQUEST_CHARS,
    MIN_LONG_TEXT_WORDS,
    MIN_STATEMENT_WORDS,
    PatternIndex,
    RequestText,
    match_clues,
)
from graph.routing.words import HIGH_CONFIDENCE_MARGIN, MEDIUM_CONFIDENCE_MARGIN
from tests.support.paths import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "keywords.md").read_text(encoding="utf-8")
CODE_SPAN = re.compile(r"(`+)\s?(.+?)\s?\1(?!`)")


def read_table(first_heading: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this heading, without the heads."""
    table = re.search(rf"^\| {re.escape(first_heading)} \|.*\n\|[ -|]*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table, first_heading
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for row in table[1].splitlines()
    ]


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def code_spans(cell: str) -> list[str]:
    return [span[2] for span in CODE_SPAN.finditer(cell)]


def build_clue(term: str) -> Clue:
    return Clue(name="matches", points={"ask": 1}, terms=[term])


def matches(term: str, text: str) -> bool:
    return bool([*PatternIndex([build_clue(term)]).find_matches(RequestText(text, FILLER_WORDS))])


@pytest.mark.parametrize("row", read_table("notation"), ids=lambda row: row[1])
def test_term_matches_its_examples(row: list[str]) -> None:
    (term,), matching, others = (code_spans(cell) for cell in row[1:])
    assert matching
    assert others
    assert {text: matches(term, text) for text in matching} == dict.fromkeys(matching, True)
    assert {text: matches(term, text) for text in others} == dict.fromkeys(others, False)


def test_every_notation_has_a_row() -> None:
    notations = {span for row in read_table("notation") for span in code_spans(row[0])}
    assert notations == {"stem*", "*end", "verb!", "a|b", "a_b", "...", "^", "?", "<name>", "<error>"}


@pytest.mark.parametrize("row", read_table("mistake"), ids=lambda row: row[0])
def test_mistake_is_refused(row: list[str]) -> None:
    (term,), (message,) = map(code_spans, row)
    with pytest.raises(ValidationError, match=re.escape(message)):
        build_clue(term)


def test_every_form_has_an_example() -> None:
    rows = read_table("form")
    assert [code_spans(row[0])[0] for row in rows] == [*FORM_CHECKS]
    for form, _, example in rows:
        (name,), texts = code_spans(form), code_spans(example) or ["word " * (MIN_LONG_TEXT_WORDS + 1)]
        for text in texts:
            assert f"is a {name}" in [match.clue for match in match_clues(text)]


def test_numbers_are_those_of_the_code() -> None:
    numbers = {
        r"first (\d+) characters": MAX_REQUEST_CHARS,
        r"leads the second one by (\d+) points or more": HIGH_CONFIDENCE_MARGIN,
        r"`medium` from (\d+) points on": MEDIUM_CONFIDENCE_MARGIN,
        r"`long` \| has more than (\d+) words": MIN_LONG_TEXT_WORDS,
        r"`statement` \| has more than (\d+) words": MIN_STATEMENT_WORDS,
    }
    for pattern, number in numbers.items():
        found = re.search(pattern, PAGE)
        assert found, pattern
        assert int(found[1]) == number
    assert ("up to eight words" in PAGE) == (MAX_GAP_WORDS == 8)


def test_clue_of_the_page_is_valid() -> None:
    (block,) = read_blocks("yaml")
    assert [Clue.model_validate(clue).name for clue in yaml.safe_load(block)] == ["names a failure"]


@pytest.mark.parametrize("block", read_blocks("console"), ids=lambda block: block.splitlines()[0])
def test_command_prints_what_the_page_shows(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, output = block.split("\n", maxsplit=1)
    words = shlex.split(command)
    assert words[:4] == ["$", "python", "-m", "cli"]
    (labels,) = read_blocks("tsv")
    (tmp_path / "labels.tsv").write_text(labels, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", f"sqlite:///{tmp_path}/none.db")
    assert main(words[4:]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == output.splitlines()


def test_files_of_the_page_exist() -> None:
    paths = {span for span in code_spans(PAGE) if re.fullmatch(r"(?:prompts|graph|tests)/[\w/]+\.\w+", span)}
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (PROJECT_ROOT / path).is_file()] == []
