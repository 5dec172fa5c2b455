"""`python -m cli route`: whom a request would go to and why, how often that is right, what users then changed."""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from cli.database import connected
from graph.llm import open_model
from graph.routing.classifier import by_keywords, classify, explanation
from graph.settings import Settings
from prompts import team
from sessions.store import routings

AT_ONCE = 4
"""Requests that the model is asked about at a time."""
TEAM = team(multi_agent=True)


class Labelled(NamedTuple):
    agent: str
    text: str
    groups: tuple[str, ...]
    """What else is said of it: its language, how hard it is."""


def arguments(commands: Any) -> None:
    route: argparse.ArgumentParser = commands.add_parser("route", help="who answers a request")
    asked = route.add_subparsers(dest="asked", required=True)
    explain = asked.add_parser("explain", help="whom the words of a request speak for, and why")
    explain.add_argument("text")
    evaluate = asked.add_parser("eval", help="how often labelled requests go where they should")
    evaluate.add_argument("file", type=Path, help="a line each: AGENT TAB REQUEST, with any columns between; or JSON")
    evaluate.add_argument("--model", action="store_true", help="ask the configured model as well: it may cost money")
    asked.add_parser("overrides", help="what users changed by hand, from the database")


def route(options: argparse.Namespace) -> int:
    return {"explain": _explain, "eval": _evaluate, "overrides": _overrides}[options.asked](options)


def _explain(options: argparse.Namespace) -> int:
    said = explanation(options.text, TEAM)
    print(f"agent:      {said['agent']}\nconfidence: {said['confidence']}\nreason:     {said['reasoning']}\n")
    print(_line("", TEAM))
    for each in said["evidence"]:
        clue = f"{each['clue']} ({each['words']})" if each["words"] else each["clue"]
        print(_line(clue[:44], [each["points"].get(agent, "") for agent in TEAM]))
    print(_line("points", said["points"].values()))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    """Always 0: what is good enough is not for it to say."""
    requests = [*_read(options.file)]
    settings = Settings()
    _report("By the words alone", [(each, by_keywords(each.text, TEAM).agent) for each in requests])
    if options.model:
        answered = asyncio.run(_by_the_model(settings, requests))
        _report(f"By {settings.llm_model}", [(each, agent) for each, agent in answered if agent])
        print(f"{sum(not agent for _, agent in answered)} of {len(requests)} got no usable answer of it.\n")
    try:
        _overrides(options)
    except (ValueError, SQLAlchemyError):
        print("There is no database to say what users changed by hand.")
    return 0


async def _by_the_model(settings: Settings, requests: Sequence[Labelled]) -> list[tuple[Labelled, str]]:
    """With no agent where it gave no usable answer."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with open_model(settings) as llm:

        async def chosen(each: Labelled) -> tuple[Labelled, str]:
            async with turns:
                choice = await classify(llm, each.text, TEAM)
            return each, choice.agent if choice.method == "llm" else ""

        return await asyncio.gather(*map(chosen, requests))


def _read(path: Path) -> Iterator[Labelled]:
    """Raises ValueError, naming the line."""
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = _of_json(line) if line.startswith("{") else _of_columns(line)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number}: write AGENT TAB REQUEST, or JSON with agent and text") from None
        if found.agent not in TEAM:
            raise ValueError(f"{path}:{number}: there is no such agent; there are {', '.join(TEAM)}")
        yield found


def _of_json(line: str) -> Labelled:
    read = json.loads(line)
    groups = tuple(value for name, value in read.items() if name not in ("agent", "text") and isinstance(value, str))
    return Labelled(read["agent"], str(read["text"]), groups)


def _of_columns(line: str) -> Labelled:
    """`\\n` in a request stands for the end of a line."""
    agent, *groups, text = line.split("\t")
    if not agent or not text:
        raise ValueError
    return Labelled(agent, text.replace("\\n", "\n"), tuple(groups))


def _report(title: str, chosen: Sequence[tuple[Labelled, str]]) -> None:
    print(f"{title}: {_share([each.agent == agent for each, agent in chosen])}")
    for group in sorted({group for each, _ in chosen for group in _groups(each)}):
        print(f"  {group}: {_share([each.agent == agent for each, agent in chosen if group in _groups(each)])}")
    _matrix("should go to, goes to", Counter((each.agent, agent) for each, agent in chosen))


def _groups(each: Labelled) -> set[str]:
    return {*each.groups, " ".join(each.groups)} - {""}


def _share(right: Sequence[bool]) -> str:
    return f"{100 * sum(right) / max(len(right), 1):.1f} % of {len(right)}"


def _overrides(_: argparse.Namespace) -> int:
    with connected(Settings()) as connection:
        rows = [*routings.everywhere(connection)]
    changed = [row for row in rows if row["override"]]
    print(f"Users changed {len(changed)} of {len(rows)} choices by hand.")
    for kind, those in _by_kind(rows):
        print(f"  {kind}: {sum(bool(row['override']) for row in those)} of {len(those)}")
    _matrix("was given to, changed to", Counter((row["agent"], row["override"]) for row in changed))
    asked = [row for row in rows if row["method"] != "keywords"]
    print(f"The words alone agree with the model in {_share([row['agent'] == row['expected'] for row in asked])}.")
    _matrix("by the words, by the model", Counter((row["expected"], row["agent"]) for row in asked))
    return 0


def _by_kind(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    kind: Callable[[dict[str, Any]], str] = lambda row: f"{row['method']}, confidence {row['confidence']}"  # noqa: E731
    for name in sorted({*map(kind, rows)}):
        yield name, [row for row in rows if kind(row) == name]


def _matrix(title: str, counted: Counter[tuple[str, str]]) -> None:
    columns = [*TEAM, *sorted({column for _, column in counted} - TEAM.keys())]
    print(f"\n{_line(title, columns)}")
    for name in [*TEAM, *sorted({name for name, _ in counted} - TEAM.keys())]:
        print(_line(name, [counted[name, column] or "-" for column in columns]))
    print()


def _line(head: str, cells: Iterable[Any]) -> str:
    return f"{head:46}" + "".join(f"{cell!s:>12}" for cell in cells)
