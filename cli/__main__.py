"""`python -m cli explain|matrix|replay|verify|route`: what the gate says, whether an audit is whole, who answers."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from cli import route
from cli.database import open_connection
from graph.permissions.gatekeeper import Gatekeeper, all_agents, verdict_to_json
from graph.settings import Settings
from graph.tools.catalog import TOOLS
from sessions.store import audit


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="what the gate would say of a call, and why")
    explain.add_argument("agent", choices=[*all_agents()])
    explain.add_argument("tool")
    explain.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="or one JSON object")
    matrix = commands.add_parser("matrix", help="every agent with every tool")
    replay = commands.add_parser("replay", help="the calls of an audit that a policy decides otherwise")
    replay.add_argument("--audit", required=True, type=Path, metavar="FILE", help="from GET /sessions/ID/audit")
    for each in (explain, matrix, replay):
        each.add_argument("--policy", metavar="FILE", help="default: AGENT_RUNTIME__POLICY_FILE, else the project's")
    verify = commands.add_parser("verify", help="whether no entry of an audit was changed, taken out or put in")
    verify.add_argument("file", nargs="?", type=Path, help="from GET /sessions/ID/audit; absent: the database's own")
    route.add_arguments(commands)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0: done, and nothing to complain of; 1: a verdict changed, an audit is broken; 2: it could not be done."""
    options = parse_arguments(argv)
    try:
        if options.command in ("verify", "route"):
            return {"verify": verify_audit, "route": route.run_command}[options.command](options)
        gatekeeper = Gatekeeper(options.policy or Settings().policy_file)
        return {"explain": explain_verdict, "matrix": print_matrix, "replay": replay_audit}[options.command](
            gatekeeper, options
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        print(f"AGENT_RUNTIME__{str(fault['loc'][0]).upper()}: {fault['msg']}", file=sys.stderr)
    except (OSError, ValueError, TypeError, SQLAlchemyError) as error:
        print(ascii(f"It could not be done: {error}".splitlines()[0])[1:-1], file=sys.stderr)
    return 2


def explain_verdict(gatekeeper: Gatekeeper, options: argparse.Namespace) -> int:
    for name, value in verdict_to_json(
        gatekeeper.evaluate_call(options.agent, options.tool, _parse_call_arguments(options.arguments))
    ).items():
        print(f"{name + ':':10}{value}")
    return 0


def _parse_call_arguments(words: list[str]) -> dict[str, Any]:
    """Raises ValueError for what are no arguments."""
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
    """Numbers and truth values as such; what else is text."""
    return json.loads(text) if re.fullmatch(r"true|false|0|[1-9][0-9]{0,17}", text) else text


def print_matrix(gatekeeper: Gatekeeper, options: argparse.Namespace) -> int:
    rows = gatekeeper.permission_matrix()
    width = max(map(len, TOOLS)) + 2
    print(" " * width + "".join(f"{agent:14}" for agent in rows))
    for tool in TOOLS:
        cells = ("/".join(dict.fromkeys(each["decision"] for each in rows[agent][tool])) for agent in rows)
        print(f"{tool:{width}}" + "".join(f"{'-' if cell == 'deny' else cell:14}" for cell in cells).rstrip())
    print("\n-: denied. Where there are several, the arguments decide; GET /policy has the rules.")
    return 0


class AuditEntry(BaseModel):
    """What is looked at of an audit's entry."""

    model_config = ConfigDict(extra="allow", strict=True)

    seq: int
    agent: str
    tool_name: str
    original_arguments: dict[str, Any]
    decided_by: str


class AuditResult(BaseModel):
    """Of a call that an entry let pass."""

    model_config = ConfigDict(strict=True)

    number: int
    seq: int
    timestamp: str
    result_hash: str
    hash: str


VERDICT_BY_DECIDER = {"hitl_decision": "ask", "tool_result": "ask", "system": "ask", "grant": "ask", "policy": "allow"}
"""What the gate had said of a call, by who decided on it then."""


def replay_audit(gatekeeper: Gatekeeper, options: argparse.Namespace) -> int:
    entries, _ = _read_audit_file(options.audit)
    changed = list(_find_changes(gatekeeper, entries))
    for entry, before, now in changed:
        call = f"{ascii(entry['tool_name'])[1:-1]} {json.dumps(entry['original_arguments'])[:200]}"
        print(f"{entry['seq']}  {entry['agent']} {call}: {before} -> {now.decision} ({now.rule})")
    print(f"{len(changed)} of {len(entries)} entries would be decided otherwise by {gatekeeper.path}.")
    return 1 if changed else 0


def _find_changes(gatekeeper: Gatekeeper, entries: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    for entry in entries:
        before = VERDICT_BY_DECIDER.get(entry["decided_by"], "ask")
        if entry["agent"] in all_agents():
            now = gatekeeper.evaluate_call(entry["agent"], entry["tool_name"], entry["original_arguments"])
            if now.decision != before:
                yield entry, before, now


def verify_audit(options: argparse.Namespace) -> int:
    found = [_read_chain(options.file)] if options.file else list(_read_chains())
    judged = [(session, audit.first_broken_entry(session, entries, came)) for session, entries, came in found]
    broken = [(session, seq) for session, seq in judged if seq is not None]
    for session, seq in broken:
        print(f"{ascii(session)[1:-1]}: broken at entry {seq}: it was changed, put in, or one before it was taken out")
    entries = sum(len(entries) for _, entries, _ in found)
    print(f"{len(found) - len(broken)} of {len(found)} sessions are whole, {entries} entries were read.")
    return 1 if broken else 0


AuditChain = tuple[str, list[dict[str, Any]], list[dict[str, Any]]]
"""A session, its entries, and the results of the calls that passed."""


def _read_chain(path: Path) -> AuditChain:
    entries, results = _read_audit_file(path)
    named = next((each["session_id"] for each in entries if "session_id" in each), "")
    if entries and not named:
        raise ValueError(f"{path}: it does not name its session; get it as JSON, or with ?results=true")
    return named, entries, results


def _read_audit_file(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """JSON or NDJSON, as the service gives it. Raises ValueError."""
    try:
        rows = _parse_rows(path.read_text("utf-8"))
        return (
            [AuditEntry.model_validate(row).model_dump(exclude_unset=True) for row in rows if "result_hash" not in row],
            [AuditResult.model_validate(row).model_dump() for row in rows if "result_hash" in row],
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{path}: it is no audit of the service; get it from GET /sessions/ID/audit") from None


def _parse_rows(text: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if "entries" not in whole:
        return [whole]
    session = {"session_id": whole["session_id"]}
    return [{**session, **row} for row in [*whole["entries"], *whole.get("results", ())]]


def _read_chains() -> Iterator[AuditChain]:
    """Of every session; the service may run meanwhile."""
    with open_connection(Settings()) as connection:
        for session in audit.list_audited_sessions(connection):
            yield session, audit.list_entries(connection, session), audit.list_results(connection, session)


if __name__ == "__main__":
    sys.exit(main())
