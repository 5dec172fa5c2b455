"""`python -m cli COMMAND`: explain the gate's verdicts, check an audit, explain the routing, draw the graph."""

import argparse
import sys

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from cli import audit, gate, picture, route


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments; `run` is the function of the command."""
    parser = argparse.ArgumentParser(prog="python -m cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (gate, audit, route, picture):
        module.add_arguments(commands)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done, and nothing is wrong. 1: a verdict would change, or an audit is broken. 2: the command failed.
    """
    options = parse_arguments(argv)
    try:
        status: int = options.run(options)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        print(f"AGENT_RUNTIME__{str(fault['loc'][0]).upper()}: {fault['msg']}", file=sys.stderr)
    except (OSError, ValueError, TypeError, SQLAlchemyError) as error:
        print(ascii(f"It could not be done: {error}".splitlines()[0])[1:-1], file=sys.stderr)
    else:
        return status
    return 2


if __name__ == "__main__":
    sys.exit(main())
