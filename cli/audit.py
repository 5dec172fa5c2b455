"""`python -m cli replay|verify`: past calls that another policy would decide otherwise, and the chain of an audit."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from cli.database import open_connection
from cli.gate import add_policy_argument, open_gatekeeper
from graph.permissions.gatekeeper import Gatekeeper, all_agents
from graph.settings import Settings
from policy import Verdict
from sessions.store import audit


class AuditEntry(BaseModel):
    """The fields of an audit entry that the commands read."""

    model_config = ConfigDict(extra="allow", strict=True)

    seq: int
    agent: str
    tool_name: str
    original_arguments: dict[str, Any]
    decided_by: str


class AuditResult(BaseModel):
    """The result of a call that an entry allowed."""

    model_config = ConfigDict(strict=True)

    number: int
    seq: int
    timestamp: str
    result_hash: str
    hash: str


class AuditChain(NamedTuple):
    """The audit of one session."""

    session_id: str
    entries: list[dict[str, Any]]
    results: list[dict[str, Any]]
    """The results of the calls that were allowed."""


VERDICT_BY_DECIDER = {"hitl_decision": "ask", "tool_result": "ask", "system": "ask", "grant": "ask", "policy": "allow"}
"""The gate's verdict on a past call, by `decided_by`."""
MAX_PRINTED_ARGUMENTS = 200
"""Characters of a call's arguments in a line of `replay`. Chosen, not measured."""


def add_arguments(commands: Any) -> None:
    replay = commands.add_parser("replay", help="print the calls of an audit that a policy would decide otherwise")
    replay.add_argument("--audit", required=True, type=Path, metavar="FILE", help="from GET /sessions/ID/audit")
    add_policy_argument(replay)
    replay.set_defaults(run=replay_audit)
    verify = commands.add_parser("verify", help="check that no entry of an audit was changed, removed or inserted")
    verify.add_argument("file", nargs="?", type=Path, help="from GET /sessions/ID/audit; default: the database")
    verify.set_defaults(run=verify_audit)


def replay_audit(options: argparse.Namespace) -> int:
    """Return 1 if the policy would decide an entry otherwise, else 0."""
    gatekeeper = open_gatekeeper(options)
    entries, _ = _read_audit_file(options.audit)
    changes = list(_find_changes(gatekeeper, entries))
    for entry, before, verdict in changes:
        arguments = json.dumps(entry["original_arguments"])[:MAX_PRINTED_ARGUMENTS]
        call = f"{ascii(entry['tool_name'])[1:-1]} {arguments}"
        print(f"{entry['seq']}  {entry['agent']} {call}: {before} -> {verdict.decision} ({verdict.rule})")
    print(f"{len(changes)} of {len(entries)} entries would be decided otherwise by {gatekeeper.path}.")
    return 1 if changes else 0


def _find_changes(
    gatekeeper: Gatekeeper, entries: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str, Verdict]]:
    """Yield the entries that the gatekeeper decides otherwise, with the earlier decision and the new verdict."""
    for entry in entries:
        before = VERDICT_BY_DECIDER.get(entry["decided_by"], "ask")
        if entry["agent"] in all_agents():
            verdict = gatekeeper.evaluate_call(entry["agent"], entry["tool_name"], entry["original_arguments"])
            if verdict.decision != before:
                yield entry, before, verdict


def verify_audit(options: argparse.Namespace) -> int:
    """Return 1 if a chain is broken, else 0."""
    chains = [_read_chain(options.file)] if options.file else list(_read_chains())
    broken = 0
    for session_id, entries, results in chains:
        seq = audit.first_broken_entry(session_id, entries, results)
        if seq is not None:
            broken += 1
            session = ascii(session_id)[1:-1]
            print(f"{session}: broken at entry {seq}: it was changed, put in, or one before it was taken out")
    total = sum(len(chain.entries) for chain in chains)
    print(f"{len(chains) - broken} of {len(chains)} sessions are whole, {total} entries were read.")
    return 1 if broken else 0


def _read_chain(path: Path) -> AuditChain:
    """Return the chain of a file. Raises ValueError for a file that does not name its session."""
    entries, results = _read_audit_file(path)
    session_id = next((each["session_id"] for each in entries if "session_id" in each), "")
    if entries and not session_id:
        raise ValueError(f"{path}: it does not name its session; get it as JSON, or with ?results=true")
    return AuditChain(session_id, entries, results)


def _read_audit_file(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the entries and the results of an audit in JSON or NDJSON, as the service sends it. Raises ValueError."""
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
    """Yield the chain of every session in the database. The service may run meanwhile."""
    with open_connection(Settings()) as connection:
        for session_id in audit.list_audited_sessions(connection):
            yield AuditChain(
                session_id, audit.list_entries(connection, session_id), audit.list_results(connection, session_id)
            )
