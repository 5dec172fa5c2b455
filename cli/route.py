"""`python -m cli route`: explain the routing of a request, score it on labelled requests, report the users' changes."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cli.database import open_connection
from cli.labelled_requests import TEAM, LabelledRequest, read_requests
from cli.training import add_training_arguments
from graph.llm import open_model
from graph.routing.classifier import classify
from graph.routing.ngrams import find_best, load_default_model
from graph.routing.words import classify_by_keywords, explain_scores, read_words
from graph.settings import Settings
from sessions.store import routings

MAX_CONCURRENT_REQUESTS = 4
"""Requests that the model classifies at a time. Chosen, not measured: most services limit the rate of requests."""


def add_arguments(commands: Any) -> None:
    route: argparse.ArgumentParser = commands.add_parser("route", help="explain and score the choice of an agent")
    subcommands = route.add_subparsers(dest="command", required=True)
    explain = subcommands.add_parser("explain", help="print the agent that the words of a request speak for, and why")
    explain.add_argument("text")
    explain.set_defaults(run=_explain_routing)
    evaluate = subcommands.add_parser("eval", help="print how often labelled requests go to the right agent")
    evaluate.add_argument("file", type=Path, help="one line each: AGENT TAB REQUEST, with any columns between; or JSON")
    evaluate.add_argument("--model", action="store_true", help="score the configured model as well; it may cost money")
    evaluate.set_defaults(run=_evaluate_routing)
    add_training_arguments(subcommands)
    overrides = subcommands.add_parser("overrides", help="print the choices that users changed, from the database")
    overrides.set_defaults(run=_report_overrides)


def _explain_routing(options: argparse.Namespace) -> int:
    scores = explain_scores(options.text, TEAM)
    print(f"agent:      {scores['agent']}\nconfidence: {scores['confidence']}\nreason:     {scores['reasoning']}")
    print(f"agreed:     {'yes' if scores['agreed'] else 'no'}\n")
    print(_format_line("", TEAM))
    for each in scores["evidence"]:
        clue = f"{each['clue']} ({each['words']})" if each["words"] else each["clue"]
        print(_format_line(clue[:44], [each["points"].get(agent, "") for agent in TEAM]))
    print(_format_line("points", scores["points"].values()))
    print(_format_line("probability by n-grams", [scores["probabilities"].get(agent, "") for agent in TEAM]))
    return 0


def _evaluate_routing(options: argparse.Namespace) -> int:
    """Return 0 whatever the score is: the tests decide which score is good enough."""
    requests = [*read_requests(options.file)]
    settings = Settings()
    readings = [read_words(each.text, TEAM) for each in requests]
    _print_report(
        "By the words alone", [(each, read.choice.agent) for each, read in zip(requests, readings, strict=True)]
    )
    _print_readers(requests, [read.is_agreed for read in readings])
    if options.model:
        choices = asyncio.run(_classify_by_model(settings, requests))
        _print_report(f"By {settings.llm_model}", [(each, agent) for each, agent in choices if agent])
        print(f"{sum(not agent for _, agent in choices)} of {len(requests)} got no usable answer of it.\n")
    try:
        _report_overrides(options)
    except (ValueError, SQLAlchemyError):
        print("There is no database to say what users changed by hand.")
    return 0


def _print_readers(requests: Sequence[LabelledRequest], agreed: Sequence[bool]) -> None:
    """Print the score of each reader of the words, and of the requests that they agree on."""
    by_rules = [classify_by_keywords(each.text, TEAM).agent == each.agent for each in requests]
    ngrams = load_default_model()
    by_ngrams = [find_best(ngrams.estimate(each.text, TEAM)) == each.agent for each in requests]
    print(f"The keyword rules: {_format_share(by_rules)}\nThe n-grams: {_format_share(by_ngrams)}")
    print(f"They agree: {_format_share(agreed)}")
    print(f"Where they agree: {_format_share([hit for hit, agree in zip(by_rules, agreed, strict=True) if agree])}\n")


async def _classify_by_model(
    settings: Settings, requests: Sequence[LabelledRequest]
) -> list[tuple[LabelledRequest, str]]:
    """Return each request with the model's choice; the agent is empty if the model gave no usable answer."""
    slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
    async with open_model(settings) as llm:

        async def choose_agent(request: LabelledRequest) -> tuple[LabelledRequest, str]:
            async with slots:
                choice = await classify(llm, request.text, TEAM)
            return request, choice.agent if choice.method == "llm" else ""

        return await asyncio.gather(*map(choose_agent, requests))


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
    for kind, members in _group_by_kind(rows):
        print(f"  {kind}: {sum(bool(row['override']) for row in members)} of {len(members)}")
    _print_matrix("was given to, changed to", Counter((row["agent"], row["override"]) for row in changed))
    by_model = [row for row in rows if row["method"] != "keywords"]
    agreement = _format_share([row["agent"] == row["expected"] for row in by_model])
    print(f"The words alone agree with the model in {agreement}.")
    _print_matrix("by the words, by the model", Counter((row["expected"], row["agent"]) for row in by_model))
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
