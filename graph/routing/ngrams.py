"""Read a request by its n-grams: a second reader beside the keyword rules, with weights learned from labelled requests.

The weights are in `prompts/ngrams.json`. `python -m cli route train` makes them (`training`).
"""

import base64
import json
import math
import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import prompts
from graph.routing.scoring import FILLER_WORDS, RequestText

BUCKETS = 32_768
"""Places for the hashes of n-grams. Measured on held-out requests: with 32,768 the reader is right in 92 %, with 16,384
in 91 %, with 8,192 in 90 %. The file has 4 bits for each place and agent when it is compressed."""
SHORTEST, LONGEST = 2, 5
"""Characters of an n-gram. Chosen, not measured: a stem and an ending of English or Russian have as many."""
MAX_READ_CHARS = 1_500
"""Characters of a request that are read. Bounds the time to some milliseconds; the longest labelled request has 389."""
OPENING_WORDS = 2
"""Words at the beginning that count once more, as the opening: it often has the verb. Chosen, not measured."""


class NgramModel(NamedTuple):
    """Weights of a logistic regression: for each agent one signed byte for each bucket."""

    weights: Mapping[str, "array[int]"]
    scale: float
    """The value of a weight of 1."""

    def estimate(self, text: str, team: Collection[str]) -> dict[str, float]:
        """Return the probability of each agent of the team that the model knows; empty if it knows none."""
        features = extract_features(text)
        factor = self.scale / math.sqrt(len(features) or 1)
        known = {agent: weights for agent, weights in self.weights.items() if agent in team}
        sums = {agent: sum(map(weights.__getitem__, features)) for agent, weights in known.items()}
        return _to_probabilities({agent: factor * each for agent, each in sums.items()})

    def to_json(self) -> str:
        """Return the content of a file that `load_model` reads."""
        packed = {agent: _pack(each) for agent, each in self.weights.items()}
        return json.dumps({"scale": self.scale, "weights": packed}, indent=1) + "\n"


def load_model(path: Path) -> NgramModel:
    """Return the model of a file. Raises ValueError, which names the file and the mistake."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights = {agent: _unpack(packed) for agent, packed in content["weights"].items()}
        return NgramModel(weights, float(content["scale"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"{path} has no weights of n-grams ({error}). Make it with `route train`.") from error


def _pack(weights: "array[int]") -> str:
    return base64.b64encode(zlib.compress(weights.tobytes(), 9)).decode()


def _unpack(packed: str) -> "array[int]":
    weights = array("b", zlib.decompress(base64.b64decode(packed, validate=True)))
    if len(weights) != BUCKETS:
        raise ValueError(f"an agent has {len(weights)} weights, not {BUCKETS}")
    return weights


MODEL_FILE = prompts.PROMPTS_DIR / "ngrams.json"


@cache
def load_default_model() -> NgramModel:
    """Return the model of the project. Raises ValueError."""
    return load_model(MODEL_FILE)


def extract_features(text: str) -> list[int]:
    """Return the buckets of a request, each once, in rising order."""
    words = RequestText(text[:MAX_READ_CHARS], FILLER_WORDS).words
    return sorted({zlib.crc32(each.encode()) % BUCKETS for each in _list_ngrams(words)})


def _list_ngrams(words: list[str]) -> Iterator[str]:
    """Yield the n-grams of the characters of each word, its words, its pairs of words, and its opening."""
    for word in words[:-1]:
        padded = f" {word} "
        for length in range(SHORTEST, LONGEST + 1):
            for start in range(len(padded) - length + 1):
                yield padded[start : start + length]
        yield f"={word}"
    yield from (f"{word}_{following}" for word, following in pairwise(words))
    yield from (f"^{word}" for word in words[:OPENING_WORDS])


def find_best(scores: Mapping[str, float]) -> str:
    """Return the agent with the highest score; of several the first in the alphabet."""
    return max(sorted(scores), key=scores.__getitem__)


def _to_probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the softmax of the scores."""
    highest = max(scores.values(), default=0.0)
    powers = {agent: math.exp(score - highest) for agent, score in scores.items()}
    total = sum(powers.values())
    return {agent: power / total for agent, power in powers.items()}
