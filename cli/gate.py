"""`python -m cli explain|matrix`: the gate's verdict on a call, and on every tool of every agent."""

import argparse
import json
import re
from typing import Any

from graph.permissions.gatekeeper import Gatekeeper, all_agents, verdict_to_json
from graph.settings import Settings
from graph.tools.catalog import TOOLS


def add_arguments(commands: Any) -> None:
    explain = commands.add_parser("explain", help="print the gate's verdict on a call, and its reason")
    explain.add_argument("agent", choices=[*all_agents()])
    explain.add_argument("tool")
    explain.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="or one JSON object")
    add_policy_argument(explain)
    explain.set_defaults(run=explain_verdict)
    matrix = commands.add_parser("matrix", help="print a table of every agent and every tool")
    add_policy_argument(matrix)
    matrix.set_defaults(run=print_matrix)


def add_policy_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE", help="default: AGENT_RUNTIME__POLICY_FILE, else the project's")


def open_gatekeeper(options: argparse.Namespace) -> Gatekeeper:
    """Return the gatekeeper of `--policy`, or of the settings. Raises ValueError for an invalid policy."""
    return Gatekeeper(options.policy or Settings().policy_file)


def explain_verdict(options: argparse.Namespace) -> int:
    gatekeeper = open_gatekeeper(options)
    verdict = gatekeeper.explain_call(options.agent, options.tool, _parse_call_arguments(options.arguments))
    for name, value in verdict_to_json(verdict).items():
        print(f"{name + ':':10}{value}")
    return 0


def _parse_call_arguments(words: list[str]) -> dict[str, Any]:
    """Return the arguments of a call: one JSON object, or words of the form NAME=VALUE. Raises ValueError."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            return dict(json.loads(words[0]))
        except (ValueError, RecursionError):
            raise ValueError("the arguments are no JSON object; write NAME=VALUE, or one JSON object") from None
    pairs = [word.partition("=") for word in words]
    if wrong := next((name for name, equals, _ in pairs if not equals), None):
        raise ValueError(f"{wrong!r} is no argument; write NAME=VALUE, or one JSON object")
    return {name: _parse_value(text) for name, _, text in pairs}


def _parse_value(text: str) -> Any:
    """Return the number or truth value that a text is, else the text. Numbers of 18 digits fit into 64 bits."""
    return json.loads(text) if re.fullmatch(r"true|false|0|[1-9][0-9]{0,17}", text) else text


def print_matrix(options: argparse.Namespace) -> int:
    rows = open_gatekeeper(options).permission_matrix()
    width = max(map(len, TOOLS)) + 2
    print(" " * width + "".join(f"{agent:14}" for agent in rows))
    for tool in TOOLS:
        cells = ("/".join(dict.fromkeys(each["decision"] for each in rows[agent][tool])) for agent in rows)
        print(f"{tool:{width}}" + "".join(f"{'-' if cell == 'deny' else cell:14}" for cell in cells).rstrip())
    print("\n-: denied. Where there are several, the arguments decide; GET /policy has the rules.")
    return 0
