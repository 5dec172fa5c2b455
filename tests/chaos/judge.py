"""Check the final state: the IDE's ledger, the model's, the database and the histories must agree."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.databases import Row, parse_json
from tests.chaos.ledger import LedgerEntry
from tests.chaos.protocol import Message, find_faults, find_unanswered

DECISIONS = {"approve", "edit", "reject"}


@dataclass(frozen=True)
class Evidence:
    ledger: list[LedgerEntry]
    model: list[LedgerEntry]
    runs: list[Row]
    audit: list[Row]
    histories: Mapping[str, Sequence[Message]]
    expected_codes: frozenset[str]
    """The codes of errors that may end a run in this scenario."""
    has_no_retries: bool
    """Nothing was killed, so no run is repeated."""

    def filter_ledger(self, what: str) -> list[LedgerEntry]:
        return [line for line in self.ledger if line["what"] == what]


Check = Callable[[Evidence], Iterator[str]]


def apply_checks(evidence: Evidence) -> list[str]:
    return [f"{rule.__name__.replace('_', ' ')}: {sentence}" for rule in CHECKS for sentence in rule(evidence)]


def check_client_violations(evidence: Evidence) -> Iterator[str]:
    for line in evidence.filter_ledger("violation"):
        yield f"{line['session']}: {line['sentence']}"
    for line in evidence.filter_ledger("failed"):
        if line["code"] not in evidence.expected_codes:
            yield f"{line['session']}: {line['key']} ended with the error {line['code']}"


def check_model_faults(evidence: Evidence) -> Iterator[str]:
    for line in evidence.model:
        if line["what"] == "fault":
            yield line["sentence"]


def check_single_model_calls(evidence: Evidence) -> Iterator[str]:
    if not evidence.has_no_retries:
        return
    asked = Counter((each["session"], each["turn"], each["step"]) for each in evidence.model if each["what"] == "asked")
    for (session, turn, step), times in asked.items():
        if times > 1:
            yield f"{session}: turn {turn}, step {step} was asked {times} times"


def check_event_ids(evidence: Evidence) -> Iterator[str]:
    newest: dict[str, tuple[str, int]] = {}
    known: dict[tuple[str, int], str] = {}
    for line in evidence.filter_ledger("event"):
        stream, number = line["stream"], line["number"]
        run, before = newest.get(stream, (line["run"], 0))
        if run != line["run"] or number <= before:
            yield f"{line['session']}: after {run}-{before} came {line['run']}-{number}"
        newest[stream] = (line["run"], number)
        if not _is_same_event(known.setdefault((line["run"], number), line["data"]), line["data"]):
            yield f"{line['session']}: {line['run']}-{number} came with two contents"


def _is_same_event(first: str, second: str) -> bool:
    """Return whether two events are one: a call that was closed later becomes an error of the same number."""
    if first == second:
        return True
    one, other = json.loads(first), json.loads(second)
    closed = (other.get("metadata") or {}).get("code") == "call_not_open"
    return one.get("type") == "tool_call" and closed


def check_stored_events(evidence: Evidence) -> Iterator[str]:
    """Compare the stored events of a run with those of readers who followed it to an end without a failure."""
    received: dict[str, dict[int, str]] = defaultdict(dict)
    ended = set()
    for line in evidence.filter_ledger("event"):
        events = received[line["run"]]
        if line["name"] == "done" and not (events and _is_failure(events[max(events)])):
            ended.add(line["run"])
        elif line["name"] != "done":
            events.setdefault(line["number"], line["data"])
    for run in evidence.runs:
        stored = parse_json(run["events"]) or [] if run["id"] in ended else []
        for number, _, data in stored:
            got = received[run["id"]].get(number, "{}")
            if not (_is_same_event(got, data) or _is_same_event(data, got)):
                yield f"{run['session_id']}: {run['id']}-{number} is stored, and was not received so"


def _is_failure(data: str) -> bool:
    chunk = json.loads(data)
    return bool(chunk.get("type") == "error" and chunk["is_final"])


def check_runs_finished(evidence: Evidence) -> Iterator[str]:
    for run in evidence.runs:
        if run["status"] != "done":
            yield f"{run['session_id']}: run {run['id']} ({run['idempotency_key']}) is {run['status']}"


def check_acknowledged_messages(evidence: Evidence) -> Iterator[str]:
    """Expect each acknowledged message once and in order.

    A message may be there again for each run of it that failed, and may be missing if its last run failed."""
    contents = {s: [each["content"] for each in history] for s, history in evidence.histories.items()}
    order: dict[str, list[int]] = defaultdict(list)
    for line, has_failed in _find_acknowledged(evidence, "user_message", "switch_agent"):
        session, content = line["session"], line["message"]["content"]
        if session not in contents:
            continue
        times = contents[session].count(content)
        allowed = 1 + _count_failures(evidence, session, content)
        if not (0 if has_failed else 1) <= times <= allowed:
            yield f"{session}: {content!r} is {times} times in the history"
        order[session] += [contents[session].index(content)] if times else []
    for session, places in order.items():
        if places != sorted(places):
            yield f"{session}: the user's messages are not in their order"


def _find_acknowledged(evidence: Evidence, *kinds: str) -> Iterator[tuple[LedgerEntry, bool]]:
    """Yield the acknowledged messages of these kinds, each with whether its last run failed."""
    acknowledged = {(line["session"], line["key"]) for line in evidence.filter_ledger("acknowledged")}
    ends = {
        (line["session"], line["key"]): line["what"]
        for line in evidence.ledger
        if line["what"] in ("outcome", "failed")
    }
    seen = set()
    for line in evidence.filter_ledger("sent"):
        name = (line["session"], line["key"])
        if line["message"]["type"] in kinds and name in acknowledged and name not in seen:
            seen.add(name)
            yield line, ends.get(name) == "failed"


def _count_failures(evidence: Evidence, session: str, content: str) -> int:
    mine = (
        run
        for run in evidence.runs
        if run["session_id"] == session and parse_json(run["input"]).get("content") == content
    )
    return sum(_has_failed(run) for run in mine)


def _has_failed(run: Row) -> bool:
    events = parse_json(run["events"]) or []
    return bool(events) and _is_failure(events[-1][2])


def check_tool_results(evidence: Evidence) -> Iterator[str]:
    """Expect each result once, as it was sent."""
    for line, has_failed in _find_acknowledged(evidence, "tool_result"):
        history = evidence.histories.get(line["session"])
        if history is None or has_failed:
            continue
        call_id, result = line["message"]["call_id"], line["message"].get("result")
        told = [each["content"] for each in history if each.get("tool_call_id") == call_id]
        if len(told) != 1 or (result and result not in told[0]):
            yield f"{line['session']}: the result of {call_id} is in the history as {told}"


def check_histories(evidence: Evidence) -> Iterator[str]:
    for session, history in evidence.histories.items():
        for sentence in find_faults(history):
            yield f"{session}: {sentence}"
        if left := find_unanswered(history):
            yield f"{session}: {', '.join(sorted(left))} is open"


def check_call_execution(evidence: Evidence) -> Iterator[str]:
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    answered = set()
    for line in evidence.ledger:
        if line["what"] == "answered":
            answered.add((line["session"], line["call_id"]))
        if line["what"] != "event" or '"tool_call"' not in line["data"]:
            continue
        call = json.loads(line["data"])
        ids[line["session"], call["arguments"].get("path", "")].add(call["call_id"])
        if (line["session"], call["call_id"]) in answered and not call["requires_approval"]:
            yield f"{line['session']}: {call['call_id']} was answered, and is to be executed again"
    for (session, path), found in ids.items():
        if len(found) > 1:
            yield f"{session}: the call for {path} has the ids {', '.join(sorted(found))}"
    done = Counter((line["session"], line["call_id"]) for line in evidence.filter_ledger("executed"))
    for (session, call_id), times in done.items():
        if times > 1:
            yield f"{session}: {call_id} was executed {times} times"


def check_write_decisions(evidence: Evidence) -> Iterator[str]:
    """Expect one decision at most for each call, one for each executed write_file, and none that is lost."""
    decisions: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in evidence.audit:
        if row["decision"] in DECISIONS:
            decisions[row["session_id"], row["call_id"]].append(row["decision"])
    for (session, call_id), found in decisions.items():
        if len(found) > 1:
            yield f"{session}: {call_id} was decided {len(found)} times: {', '.join(found)}"
    for line in evidence.filter_ledger("executed"):
        if line["session"] not in evidence.histories:
            continue
        found = decisions[line["session"], line["call_id"]]
        if line["tool"] == "write_file" and found not in (["approve"], ["edit"]):
            yield f"{line['session']}: {line['call_id']} was executed with the decisions {found}"
    for line, has_failed in _find_acknowledged(evidence, "hitl_decision"):
        said = line["message"]
        if not has_failed and [said["decision"]] != decisions[line["session"], said["call_id"]]:
            yield f"{line['session']}: {said['decision']} of {said['call_id']} is not in the audit"


CHECKS: Sequence[Check] = (
    check_client_violations,
    check_model_faults,
    check_single_model_calls,
    check_event_ids,
    check_stored_events,
    check_runs_finished,
    check_acknowledged_messages,
    check_tool_results,
    check_histories,
    check_call_execution,
    check_write_decisions,
)


def format_report(found: Sequence[Any], most: int = 12) -> str:
    more = [f"... and {len(found) - most} more"] if len(found) > most else []
    return "\n".join(f"  {each}" for each in [*found[:most], *more])
