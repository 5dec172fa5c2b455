"""The service in a process that can be killed at a named point: `python -m tests.chaos.replica`.

`CHAOS_POINT`: `name:n:signal`, a name of `points.POINTS`; the process sends itself the signal at the n-th passing.
`CHAOS_WITHOUT`: what is taken out, a name of `points.WITHOUT`.
"""

import inspect
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from tests.chaos import product
from tests.chaos.points import POINTS, WITHOUT, Point

Counted = Callable[[], None]


def install(point: str, without: str) -> None:
    for target, replacement in WITHOUT.get(without, {}).items():
        _replace(target, replacement)
    if point:
        name, number, what = point.split(":")
        _send_at(POINTS[name], int(number), signal.Signals[what])


def _send_at(point: Point, number: int, what: signal.Signals) -> None:
    left = number

    def passed() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), what)

    for target in point.targets:
        _replace(target, lambda original: _passing(original, point, passed))


def _passing(original: Callable[..., Any], point: Point, passed: Counted) -> Callable[..., Any]:
    def is_meant(args: tuple[Any, ...]) -> bool:
        return not point.work or point.work in args[1].__qualname__

    @wraps(original)
    async def asynchronous(*args: Any, **named: Any) -> Any:
        if point.moment == "before" and is_meant(args):
            passed()
        result = await original(*args, **named)
        if point.moment == "after" and is_meant(args):
            passed()
        return result

    @wraps(original)
    def synchronous(*args: Any, **named: Any) -> Any:
        if point.moment == "before" and is_meant(args):
            passed()
        result = original(*args, **named)
        if point.moment == "after" and is_meant(args):
            passed()
        return result

    return asynchronous if inspect.iscoroutinefunction(original) else synchronous


def _replace(target: str, replacement: Callable[[Any], Any]) -> None:
    holder, name, original = found_at(target)
    is_static = isinstance(inspect.getattr_static(holder, name), staticmethod)
    made = replacement(original)
    setattr(holder, name, staticmethod(made) if is_static else made)


def found_at(target: str) -> tuple[Any, str, Any]:
    """What `module:path.to.name` names: what holds it, under which name, and itself."""
    module, _, path = target.partition(":")
    holder: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    return holder, name, getattr(holder, name)


def main() -> None:
    install(os.environ.get("CHAOS_POINT", ""), os.environ.get("CHAOS_WITHOUT", ""))
    product.serve()


def forked(environment: dict[str, str], output: str) -> None:
    """In a process that has all modules loaded already. `output`: the file that takes what it says."""
    _settle(environment, output)
    main()


def verify(environment: dict[str, str], output: str) -> None:
    """As `forked`: `python -m cli verify`."""
    _settle(environment, output)
    sys.exit(product.verify_audit())


def _settle(environment: dict[str, str], output: str) -> None:
    with open(output, "ab", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ.update(environment)


if __name__ == "__main__":
    main()
