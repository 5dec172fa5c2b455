"""The service in a process that can be killed at a named point: `python -m tests.chaos.replica`.

`CHAOS_POINT` is `name:n:signal`, with a name of INJECTION_POINTS: at its n-th pass the process sends itself the signal.
`CHAOS_WITHOUT` is a name of REMOVED_PARTS: that part is removed.
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
from tests.chaos.points import INJECTION_POINTS, REMOVED_PARTS, InjectionPoint
from tests.support.forks import redirect_output

Callback = Callable[[], None]


def install_injections(point: str, without: str) -> None:
    for target, replacement in REMOVED_PARTS.get(without, {}).items():
        _replace_target(target, replacement)
    if point:
        name, number, what = point.split(":")
        _send_signal_at(INJECTION_POINTS[name], int(number), signal.Signals[what])


def _send_signal_at(point: InjectionPoint, number: int, what: signal.Signals) -> None:
    left = number

    def count_pass() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), what)

    for target in point.targets:
        _replace_target(target, lambda original: _wrap_function(original, point, count_pass))


def _wrap_function(original: Callable[..., Any], point: InjectionPoint, on_pass: Callback) -> Callable[..., Any]:
    def is_meant(args: tuple[Any, ...]) -> bool:
        return not point.work or point.work in args[1].__qualname__

    @wraps(original)
    async def call_async(*args: Any, **named: Any) -> Any:
        if point.moment == "before" and is_meant(args):
            on_pass()
        result = await original(*args, **named)
        if point.moment == "after" and is_meant(args):
            on_pass()
        return result

    @wraps(original)
    def call_sync(*args: Any, **named: Any) -> Any:
        if point.moment == "before" and is_meant(args):
            on_pass()
        result = original(*args, **named)
        if point.moment == "after" and is_meant(args):
            on_pass()
        return result

    return call_async if inspect.iscoroutinefunction(original) else call_sync


def _replace_target(target: str, replacement: Callable[[Any], Any]) -> None:
    holder, name, original = resolve_target(target)
    is_static = isinstance(inspect.getattr_static(holder, name), staticmethod)
    made = replacement(original)
    setattr(holder, name, staticmethod(made) if is_static else made)


def resolve_target(target: str) -> tuple[Any, str, Any]:
    """Resolve `module:path.to.name`; return the object that has the attribute, its name and its value."""
    module, _, path = target.partition(":")
    holder: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    return holder, name, getattr(holder, name)


def main() -> None:
    install_injections(os.environ.get("CHAOS_POINT", ""), os.environ.get("CHAOS_WITHOUT", ""))
    product.serve()


def serve_in_fork(environment: dict[str, str], output: str) -> None:
    """Run the service in a forked process; its output goes to the file `output`."""
    _prepare_process(environment, output)
    main()


def verify_in_fork(environment: dict[str, str], output: str) -> None:
    """Run `python -m cli verify` in a forked process; its output goes to the file `output`."""
    _prepare_process(environment, output)
    sys.exit(product.verify_audit())


def _prepare_process(environment: dict[str, str], output: str) -> None:
    with open(output, "ab", buffering=0) as file:
        redirect_output(file.fileno())
    os.environ.update(environment)


if __name__ == "__main__":
    main()
