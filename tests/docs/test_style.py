"""Names and docstrings follow the rules of CONTRIBUTING.md, counted over the whole source."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median

import pytest

from tests.support.paths import PROJECT_ROOT

ROOMS = ("api", "cli", "graph", "ide", "nodes", "policy", "prompts", "sessions", "textsafety", "benchmarks", "tests")
SOURCES = sorted(
    chain([PROJECT_ROOT / "server.py"], chain.from_iterable((PROJECT_ROOT / room).rglob("*.py") for room in ROOMS)),
)
IRREGULAR = frozenset(
    {
        *("been", "begun", "bound", "bought", "brought", "built", "come", "done", "drawn", "driven", "fallen", "felt"),
        *("found", "given", "gone", "grown", "had", "held", "hidden", "kept", "known", "laid", "led", "left", "lent"),
        *("lost", "made", "meant", "met", "paid", "said", "seen", "sent", "shown", "shut", "sought", "spent", "stood"),
        *("struck", "taken", "taught", "thought", "thrown", "told", "torn", "understood", "won", "worn", "written"),
    }
)
NOT_PARTICIPLES = frozenset(["embed", "exceed", "feed", "need", "proceed", "seed", "speed", "succeed"])
RIDDLES = re.compile(r"(What|Who|Whom|Whose|Whether|How|Of)\b")
LONGEST_FILE = 250
LONGEST_FUNCTION = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module


def functions() -> Iterator[tuple[Path, Function]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield path, node


def is_participle(word: str) -> bool:
    return word in IRREGULAR or (word.endswith("ed") and len(word) > 3 and word not in NOT_PARTICIPLES)


def test_function_names_are_verbs() -> None:
    """At most 3 % of all function names start with a past participle: name a function by what it does."""
    names = [node.name.strip("_") for _, node in functions() if not node.name.startswith(("__", "test_"))]
    wrong = sorted({name for name in names if is_participle(name.split("_")[0])})
    assert len(wrong) <= 0.03 * len(names), f"rename these functions, a verb first: {wrong}"


def test_function_names_are_long_enough_to_be_read() -> None:
    """The median function name of the product has at least 9 characters."""
    names = [node.name.strip("_") for path, node in functions() if "tests" not in path.parts]
    names = [name for name in names if name]
    assert median(map(len, names)) >= 9, f"write these names out: {sorted({n for n in names if len(n) < 6})}"


def test_docstrings_do_not_open_with_a_question_word() -> None:
    """Fewer than 3 % of the docstrings open with what, who, whether, how or of: start with an imperative verb."""
    found: list[str] = []
    wrong: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                found.append(text)
                if RIDDLES.match(text):
                    wrong.append(f"{path.relative_to(PROJECT_ROOT)}: {text.splitlines()[0]}")
    assert len(wrong) < 0.03 * len(found), "rewrite these docstrings:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", [str(path.relative_to(PROJECT_ROOT)) for path in SOURCES if "tests" not in path.parts])
def test_a_file_fits_on_a_few_pages(path: str) -> None:
    """No file of the product has more than 250 lines, and no function more than 40: split it."""
    text = (PROJECT_ROOT / path).read_text()
    assert len(text.splitlines()) <= LONGEST_FILE, f"{path} has more than {LONGEST_FILE} lines: split it"
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long, f"{path}: split these functions, each has more than {LONGEST_FUNCTION} lines: {long}"
