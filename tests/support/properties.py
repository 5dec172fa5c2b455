"""Settings of the property tests: the number of examples that each one looks at.

`make test` looks at the same examples each time, and `make test-fast` at the first few of them. PROPERTY_EXAMPLES=5000
looks further by hand, at random, and shortens what it finds; `--hypothesis-seed` chooses where.
"""

import os
from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

T = TypeVar("T")

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
"""Examples of each property; 0: each property's own number."""


def search_settings(examples: int = 150) -> settings:
    """Return the settings of a property whose own number of examples is given."""
    looks_further = examples < EXAMPLES
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not looks_further,
        database=None,
        deadline=None,  # A slow machine is no fault.
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if looks_further else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def draw_from_seed(draw: Callable[[Random], T]) -> st.SearchStrategy[T]:
    """Draw each element from one number: that is cheap, and a list is shortened element by element."""
    return st.integers(0, 2**32 - 1).map(lambda seed: draw(Random(seed)))
