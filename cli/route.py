"""`python -m cli route`: whom a request would go to and why, how often that is right, what users then changed."""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from cli.database import open_connection
from graph.llm import open_model
from graph.routing.classifier import classify, classify_by_keywords, explain_scores
from graph.settings import Settings
from prompts import select_team
from sessions.store import routings

MAX_CONCURRENT_REQUESTS = 4
"""Requests that the model is asked about at a time."""
TEAM = select_team(multi_agent=True)


class LabelledRequest(NamedTuple):
    agent: str
    text: str
    groups: tuple[str, ...]
    """What else is said of it: its language, how hard it is."""


def add_arguments(commands: Any) -> None:
    route: argparse.ArgumentParser = commands.add_parser("route", help="who answers a request")
    asked = route.add_subparsers(dest="asked", required=True)
    explain = asked.add_parser("explain", help="whom the words of a request speak for, and why")
    explain.add_argument("text")
    evaluate = asked.add_parser("eval", help="how often labelled requests go where they should")
    evaluate.add_argument("file", type=Path, help="a line each: AGENT TAB REQUEST, with any columns between; or JSON")
    evaluate.add_argument("--model", action="store_true", help="ask the configured model as well: it may cost money")
    asked.add_parser("overrides", help="what users changed by hand, from the database")


def run_command(options: argparse.Namespace) -> int:
    return {"explain": _explain_routing, "eval": _evaluate_routing, "overrides": _report_overrides}[options.asked](
        options
    )


def _explain_routing(options: argparse.Namespace) -> int:
    said = explain_scores(options.text, TEAM)
    print(f"agent:      {said['agent']}\nconfidence: {said['confidence']}\nreason:     {said['reasoning']}\n")
    print(_format_line("", TEAM))
    for each in said["evidence"]:
        clue = f"{each['clue']} ({each['words']})" if each["words"] else each["clue"]
        print(_format_line(clue[:44], [each["points"].get(agent, "") for agent in TEAM]))
    print(_format_line("points", said["points"].values()))
    return 0


def _evaluate_routing(options: argparse.Namespace) -> int:
    """Always 0: what is good enough is not for it to say."""
    requests = [*_read_requests(options.file)]
    settings = Settings()
    _print_report("By the words alone", [(each, classify_by_keywords(each.text, TEAM).agent) for each in requests])
    if options.model:
        answered = asyncio.run(_classify_by_model(settings, requests))
        _print_report(f"By {settings.llm_model}", [(each, agent) for each, agent in answered if agent])
        print(f"{sum(not agent for _, agent in answered)} of {len(requests)} got no usable answer of it.\n")
    try:
        _report_overrides(options)
    except (ValueError, SQLAlchemyError):
        print("There is no database to say what users changed by hand.")
    return 0


async def _classify_by_model(
    settings: Settings, requests: Sequence[LabelledRequest]
) -> list[tuple[LabelledRequest, str]]:
    """With no agent where it gave no usable answer."""
    turns = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
    async with open_model(settings) as llm:

        async def chosen(each: LabelledRequest) -> tuple[LabelledRequest, str]:
            async with turns:
                choice = await classify(llm, each.text, TEAM)
            return each, choice.agent if choice.method == "llm" else ""

        return await asyncio.gather(*map(chosen, requests))


def _read_requests(path: Path) -> Iterator[LabelledRequest]:
    """Raises ValueError, naming the line."""
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = _parse_json_line(line) if line.startswith("{") else _parse_columns(line)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number}: write AGENT TAB REQUEST, or JSON with agent and text") from None
        if found.agent not in TEAM:
            raise ValueError(f"{path}:{number}: there is no such agent; there are {', '.join(TEAM)}")
        yield found


def _parse_json_line(line: str) -> LabelledRequest:
    read = json.loads(line)
    groups = tuple(value for name, value in read.items() if name not in ("agent", "text") and isinstance(value, str))
    return LabelledRequest(read["agent"], str(read["text"]), groups)


def _parse_columns(line: str) -> LabelledRequest:
    """`\\n` in a request stands for the end of a line."""
    agent, *groups, text = line.split("\t")
    if not agent or not text:
        raise ValueError
    return LabelledRequest(agent, text.replace("\\n", "\n"), tuple(groups))


def _print_report(title: str, choices: Sequence[tuple[LabelledRequest, str]]) -> None:
    print(f"{title}: {_format_share([each.agent == agent for each, agent in choices])}")
    for group in sorted({group for each, _ in choices for group in _group_names(each)}):
        hits = [each.agent == agent for each, agent in choices if group in _group_names(each)]
        print(f"  {group}: {_format_share(hits)}")
    _print_matrix("should go to, goes to", Counter((each.agent, agent) for each, agent in choices))


def _group_names(request: LabelledRequest) -> set[str]:
    return {*request.groups, " ".join(request.groups)} - {""}


def _format_share(hits: Sequence[bool]) -> str:
    return f"{100 * sum(hits) / max(len(hits), 1):.1f} % of {len(hits)}"


def _report_overrides(_: argparse.Namespace) -> int:
    with open_connection(Settings()) as connection:
        rows = [*routings.list_all_routings(connection)]
    changed = [row for row in rows if row["override"]]
    print(f"Users changed {len(changed)} of {len(rows)} choices by hand.")
    for kind, those in _group_by_kind(rows):
        print(f"  {kind}: {sum(bool(row['override']) for row in those)} of {len(those)}")
    _print_matrix("was given to, changed to", Counter((row["agent"], row["override"]) for row in changed))
    asked = [row for row in rows if row["method"] != "keywords"]
    print(
        f"The words alone agree with the model in {_format_share([row['agent'] == row['expected'] for row in asked])}."
    )
    _print_matrix("by the words, by the model", Counter((row["expected"], row["agent"]) for row in asked))
    return 0


def _group_by_kind(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    kind: Callable[[dict[str, Any]], str] = lambda row: f"{row['method']}, confidence {row['confidence']}"  # noqa: E731
    for name in sorted({*map(kind, rows)}):
        yield name, [row for row in rows if kind(row) == name]


def _print_matrix(title: str, counts: Counter[tuple[str, str]]) -> None:
    columns = [*TEAM, *sorted({column for _, column in counts} - TEAM.keys())]
    print(f"\n{_format_line(title, columns)}")
    for name in [*TEAM, *sorted({name for name, _ in counts} - TEAM.keys())]:
        print(_format_line(name, [counts[name, column] or "-" for column in columns]))
    print()


def _format_line(head: str, cells: Iterable[Any]) -> str:
    return f"{head:46}" + "".join(f"{cell!s:>12}" for cell in cells)
