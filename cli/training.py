"""`python -m cli route train`: train the n-gram reader on labelled requests, and keep it if it is no worse."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cli.database import open_connection
from cli.labelled_requests import TEAM, LabelledRequest, read_requests
from graph.routing.ngrams import MODEL_FILE, NgramModel, load_model
from graph.routing.training import TrainingExample, train_model
from graph.routing.words import read_words_with
from graph.settings import Settings
from sessions.store import routings

CORPUS = Path("tests", "corpus")


def add_training_arguments(subcommands: Any) -> None:
    train: argparse.ArgumentParser = subcommands.add_parser(
        "train", help="train the n-grams on labelled requests and on the users' changes; keep them if they are no worse"
    )
    train.add_argument("files", nargs="*", type=Path, default=[CORPUS / "requests.tsv"], help="as for `eval`")
    train.add_argument(
        "--held-out", type=Path, default=CORPUS / "requests_held_out.tsv", help="requests that only judge the result"
    )
    train.add_argument("--output", type=Path, default=MODEL_FILE, help=f"default: {MODEL_FILE.name} beside the prompts")
    train.set_defaults(run=_train_ngrams)


def _train_ngrams(options: argparse.Namespace) -> int:
    """Return 0 if the new weights were written, 1 if they are worse than the present ones. Raises ValueError."""
    held_out = [*read_requests(options.held_out)]
    labelled = [each for file in options.files for each in read_requests(file)]
    judged = {each.text for each in held_out}
    if both := judged & {each.text for each in labelled}:
        raise ValueError(f"{options.held_out} has requests to learn from as well, such as {min(both)[:80]!r}")
    examples = [TrainingExample(each.text, each.agent) for each in labelled]
    examples += [each for each in _read_overrides() if each.text not in judged]
    print(f"{len(labelled)} labelled requests, {len(examples) - len(labelled)} that users changed by hand.")
    trained = train_model(examples)
    before, after = _score_present(options.output, held_out), _score_model(trained, held_out)
    print(f"Held-out requests that go to the right agent: {before} before, {after} now, of {len(held_out)}.")
    if after < before:
        print(f"{options.output} stays as it is.")
        return 1
    options.output.write_text(trained.to_json(), encoding="utf-8")
    print(f"{options.output} is new.")
    return 0


def _score_present(path: Path, requests: Sequence[LabelledRequest]) -> int:
    """Return the score of the present weights; 0 if there are none."""
    return _score_model(load_model(path), requests) if path.exists() else 0


def _score_model(model: NgramModel, requests: Iterable[LabelledRequest]) -> int:
    """Return how many requests go to the right agent, by both readers together."""
    return sum(read_words_with(model, each.text, TEAM).choice.agent == each.agent for each in requests)


def _read_overrides() -> Iterator[TrainingExample]:
    """Yield the requests whose agent users changed by hand; none without a database."""
    try:
        with open_connection(Settings()) as connection:
            rows = [*routings.list_all_routings(connection)]
    except (ValueError, SQLAlchemyError):
        return
    for row in rows:
        if row["override"] in TEAM and row["text"].strip():
            yield TrainingExample(row["text"], row["override"])
