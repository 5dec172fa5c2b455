"""The usage of model calls is counted for a run, an agent and a session, in tokens and in money."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from graph import prices, wire
from graph.execution.outcome import Outcome
from graph.settings import OFFLINE_MODEL, Settings
from graph.usage import totals
from graph.usage.call import build_usage, build_usage_metadata
from graph.usage.meter import Meter
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from tests.support.properties import search_settings
from tests.support.scripted import DeferredReply, call_tool, make_model, say_text, with_usage
from tests.support.service import SessionClient, settings_for, start_service, text_chunk
from tests.support.storage import open_storage
from tests.support.views import wait_until_idle

PRICES = {
    "big": {"prompt": 2.5, "cached": 0.25, "completion": 10},
    "small-*": {"prompt": 0.1, "completion": 0.4},
}
MONEY_SETTINGS: dict[str, Any] = {"llm_model": "big", "prices": PRICES, "currency": "EUR"}


def build_token_counts(read: int, written: int, cached: int = 0) -> dict[str, int]:
    counts = {"prompt_tokens": read, "cached_tokens": cached, "completion_tokens": written}
    return {**counts, "total_tokens": read + written}


def build_totals(
    read: int, written: int, cached: int = 0, calls: int = 1, cost: float | None = None, unpriced: int = 0
) -> dict[str, Any]:
    counts = {**build_token_counts(read, written, cached), "model_calls": calls, "cost": cost}
    return {**counts, "unpriced_calls": unpriced, "estimated_calls": 0}


def build_answer_row(
    agent: str, model_name: str, read: int, written: int, cached: int = 0, cost: float | None = None
) -> dict[str, Any]:
    about = {"agent": agent, "purpose": "answer", "model": model_name}
    return {**about, **build_token_counts(read, written, cached), "cost": cost, "estimated": False}


async def fetch_usage(session: SessionClient) -> dict[str, Any]:
    found: dict[str, Any] = await session.get("/sessions/{id}/usage")
    return found


async def test_usage_is_split_by_agent_purpose_and_run(database: str) -> None:
    llm = make_model(
        with_usage(call_tool("read_file", path="a.py"), 1000, 100, cached=800),
        with_usage(say_text("Read."), 2000, 50, model_name="small-2"),
        with_usage(say_text("Fixed."), 10, 1, model_name="unheard-of"),
    )
    async with start_service(llm, settings_for(database, **MONEY_SETTINGS)) as client:
        session = client.open_session()
        await session.switch("ask", content="Read a.py")
        await session.send_result("x")
        await session.switch("coder", content="Fix it")
        usage = await fetch_usage(session)
        newest = await session.get("/sessions/{id}/usage", runs=1)
        assert (await client.http.get("/sessions/none/usage")).status_code == 404
        assert (await client.http.get("/sessions/s-1/usage?runs=-1")).status_code == 422
    runs = usage.pop("runs")
    whole = build_totals(3010, 151, cached=800, calls=3, cost=0.00192, unpriced=1)
    other = build_totals(10, 1, unpriced=1)
    assert usage == {
        "session_id": "s-1",
        **whole,
        "currency": "EUR",
        "agents": {"ask": build_totals(3000, 150, cached=800, calls=2, cost=0.00192), "coder": other},
        "purposes": {"answer": whole},
        "budget": {"max_model_calls": {"limit": 100, "used": 1, "left": 99}},
    }
    assert newest["runs"] == runs[:1]
    assert runs == [
        {"run_id": run["run_id"], "created_at": run["created_at"], **sums, "calls": [made]}
        for run, sums, made in zip(
            runs,
            [other, build_totals(2000, 50, cost=0.00022), build_totals(1000, 100, cached=800, cost=0.0017)],
            [
                build_answer_row("coder", "unheard-of", 10, 1),
                build_answer_row("ask", "small-2", 2000, 50, cost=0.00022),
                build_answer_row("ask", "big", 1000, 100, cached=800, cost=0.0017),
            ],
            strict=True,
        )
    ]


async def test_usage_without_a_model_call_is_zero(tmp_path: Path) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        session_id = (await client.http.post("/sessions")).json()["session_id"]
        usage = await fetch_usage(client.open_session(session_id))
    assert usage == {
        "session_id": session_id,
        **build_totals(0, 0, calls=0),
        "currency": "USD",
        "agents": {},
        "purposes": {},
        "runs": [],
        "budget": {"max_model_calls": {"limit": 100, "used": 0, "left": 100}},
    }


async def test_cost_is_sent_to_clients_that_opted_in_to_usage(tmp_path: Path) -> None:
    llm = make_model(
        with_usage(call_tool("calculator", expr="1 + 1"), 960, 10),
        with_usage(say_text("2."), 40, 90, model_name="new"),
        with_usage(say_text("3."), 1, 1),
    )
    async with start_service(llm, settings_for(tmp_path, **MONEY_SETTINGS)) as client:
        session = client.open_session(usage=True)
        partly, _ = (await session.switch("ask", content="Count"))[1:]
        whole, _ = await session.send_text("Count on")
    told = {"type": "usage", "currency": "EUR", "is_final": False}
    assert partly == {**told, **build_token_counts(1000, 100), "model_calls": 2, "cost": 0.0025, "unpriced_calls": 1}
    assert whole == {**told, **build_token_counts(1, 1), "model_calls": 1, "cost": 0.000012}


async def test_the_offline_model_is_free(tmp_path: Path) -> None:
    """It costs nothing when other models have prices; without prices no model has a cost."""
    for known, expected in (({"prices": PRICES}, (0.0, 0)), ({}, (None, 1))):
        async with start_service(
            make_model(with_usage(say_text("Hi."), 5, 1)), settings_for(tmp_path, **known)
        ) as client:
            session = client.open_session(f"s-{len(known)}")
            await session.switch("ask", content="Hello")
            usage = await fetch_usage(session)
            assert (usage["cost"], usage["unpriced_calls"]) == expected


@pytest.mark.parametrize("line", [say_text("A few words."), with_usage(say_text("A few words."), 0, 0)])
async def test_unreported_usage_is_estimated(tmp_path: Path, line: Any) -> None:
    async with start_service(make_model(line, say_text("")), settings_for(tmp_path, **MONEY_SETTINGS)) as client:
        session = client.open_session(usage=True)
        told, _ = (await session.switch("ask", content="Hello"))[1:]
        usage = await fetch_usage(session)
    assert told["completion_tokens"] == 4
    assert told["prompt_tokens"] > 500
    assert told["estimated_calls"] == 1
    assert (usage["estimated_calls"], usage["total_tokens"]) == (1, told["total_tokens"])
    assert usage["cost"] == told["cost"] == (told["prompt_tokens"] * 2.5 + 40) / 1_000_000
    assert usage["runs"][0]["calls"][0]["estimated"] is True


async def test_failed_run_is_counted(database: str) -> None:
    llm = make_model(
        with_usage(call_tool("calculator", expr="1 + 1"), 7, 3),
        ZeroDivisionError(),
        with_usage(say_text("Back."), 5, 1),
    )
    async with start_service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.open_session()
        assert (await session.switch("ask", content="Count"))[-1]["metadata"]["code"] == "internal"
        assert (await fetch_usage(session))["total_tokens"] == 10
        assert await session.send_text("Again") == [text_chunk("Back.")]
        usage = await fetch_usage(session)
    assert [run["total_tokens"] for run in usage["runs"]] == [6, 10]
    assert usage["total_tokens"] == 16


@pytest.mark.parametrize("line", [say_text(" "), call_tool("calculator", expr="1")])
async def test_unusable_answer_is_counted(tmp_path: Path, line: Any) -> None:
    """The answers are an empty text, and a call beyond the limit of tool calls."""
    settings = settings_for(tmp_path, max_turn_tool_calls=1)
    llm = make_model(with_usage(call_tool("calculator", expr="2"), 1, 1), with_usage(line, 7, 3))
    async with start_service(llm, settings) as client:
        session = client.open_session(usage=True)
        *_, told, error = await session.switch("ask", content="Count")
    assert error["type"] == "error"
    assert told == {"type": "usage", **build_token_counts(8, 4), "model_calls": 2, "is_final": False}


async def test_cancelled_run_is_counted(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Never."))
    llm = make_model(with_usage(call_tool("calculator", expr="1 + 1"), 7, 3), held)
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        running = asyncio.create_task(session.switch("ask", content="Count"))
        await held.requested.wait()
        await client.http.post("/sessions/s-1/cancel")
        await running
        usage = await fetch_usage(session)
    first, second = usage["runs"][0]["calls"]
    assert (first["total_tokens"], first["estimated"]) == (10, False)
    assert (second["completion_tokens"], second["estimated"]) == (0, True)
    assert second["prompt_tokens"] > 500


async def test_both_parts_of_a_handed_over_run_are_counted(database: str) -> None:
    settings = settings_for(database, shutdown_seconds=0)
    cut = DeferredReply(say_text("Never."))
    async with start_service(make_model(with_usage(call_tool("calculator", expr="1"), 7, 3), cut), settings) as client:
        running = asyncio.create_task(client.open_session().switch("ask", content="Count"))
        await cut.requested.wait()
    with pytest.raises(httpx.HTTPError):
        await running
    line = with_usage(say_text("1."), 5, 1)
    async with start_service(make_model(line), settings) as client:
        session = client.open_session()
        await wait_until_idle(session)
        usage = await fetch_usage(session)
    assert [call["total_tokens"] for call in usage["runs"][0]["calls"]] == [10, 6]
    assert usage["total_tokens"] == 16


async def test_retried_transaction_counts_a_run_once(database: str) -> None:
    bill = totals.sum_run_calls([Meter(settings_for(database)).price_call(make_usage(1, 1))])
    async with open_storage(database) as stored:
        await stored.prepare()

        def finished(connection: Any) -> None:
            row = session_rows.find_including_deleted(connection, "s-1") or session_rows.create_session(
                connection, "s-1"
            )
            outcome = Outcome([], "ask", 1, [], None)
            session = {"usage": None, "runs_since_prune": 0, **row}
            run_rows.finish_run(connection, "run-1", session, outcome, [], bill, lease_epoch=1, release_key=False)  # type: ignore[arg-type]

        await stored.fetch_rows(
            "insert into runs (id, session_id, body_hash, input, options, status, attempts, created_at,"
            " number) values ('run-1', 's-1', '', '{}', '{}', 'running', 1, '', 1)"
        )
        await stored.database.transact(finished)
        await stored.database.transact(finished)
        row = await stored.database.transact(lambda connection: session_rows.find_including_deleted(connection, "s-1"))
    assert row
    assert (row["usage"]["total_tokens"], row["runs_since_prune"]) == (2, 1)


async def test_undo_keeps_the_usage_and_a_fork_starts_at_zero(database: str) -> None:
    llm = make_model(*(with_usage(say_text("Hi."), 10, 1) for _ in range(3)))
    async with start_service(llm, settings_for(database, max_session_tokens=1000, **MONEY_SETTINGS)) as client:
        session = client.open_session()
        await session.switch("ask", content="Hello")
        await session.send_text("Hello again")
        await client.http.post("/sessions/s-1/undo")
        kept = await fetch_usage(session)
        copy = client.open_session((await client.http.post("/sessions/s-1/fork")).json()["session_id"])
        fresh = await fetch_usage(copy)
        await copy.send_text("Hello")
        later = await fetch_usage(copy)
    assert (kept["total_tokens"], kept["budget"]["session_tokens"]["used"]) == (22, 22)
    assert (fresh["total_tokens"], fresh["cost"], fresh["budget"]["session_tokens"]["used"]) == (0, None, 0)
    assert (later["total_tokens"], later["budget"]["session_tokens"]["used"]) == (11, 11)


@search_settings(100)
@given(st.lists(st.tuples(*[st.integers(0, 10**7)] * 3), min_size=1, max_size=60), st.decimals(0, 100, places=4))
def test_sums_of_money_do_not_drift(made: list[tuple[int, int, int]], price: Decimal) -> None:
    """The sum is exact, however the calls are divided into runs."""
    known = {"big": {"prompt": price, "cached": price / 4, "completion": price * 4}}
    meter = Meter(settings_for("sqlite:///x", llm_model="big", prices=known))
    priced = [meter.price_call(make_usage(read, written, cached)) for read, written, cached in made]
    session: totals.UsageTotals | None = None
    for start in range(0, len(priced), 7):
        session = totals.add_run(session, totals.sum_run_calls(priced[start : start + 7]))
    assert session
    exact = sum(Decimal((call.metadata or {})["cost"]) for call in priced) + Decimal(0)
    for each in (session, session["agents"]["ask"], session["purposes"]["answer"]):
        assert Decimal(str(each["cost"])) == exact
    assert totals.to_json(session)["cost"] == prices.to_json_number(exact)


def make_usage(read: int, written: int, cached: int = 0) -> wire.Usage:
    usage = {**build_usage_metadata(read, written), "input_token_details": {"cache_read": cached}}
    return build_usage(usage, agent="ask", purpose="answer")  # type: ignore[arg-type]


def test_usage_without_prices_has_no_cost() -> None:
    before: totals.UsageTotals = {**build_token_counts(7, 3), "model_calls": 2}  # type: ignore[typeddict-item]
    run = totals.sum_run_calls([Meter(settings_for("sqlite:///x", **MONEY_SETTINGS)).price_call(make_usage(1000, 0))])
    assert totals.to_json(before) == build_totals(7, 3, calls=2, unpriced=2)
    assert totals.to_json(totals.add_run(before, run)) == build_totals(1007, 3, calls=3, cost=0.0025, unpriced=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("big", 2.5), ("small-1", 0.1), ("bigger", None), (OFFLINE_MODEL, 0), ("", 2.5)],
)
def test_a_price_is_found_by_the_name_of_the_model(name: str, expected: float | None) -> None:
    meter = Meter(settings_for("sqlite:///x", **MONEY_SETTINGS))
    call = meter.price_call(build_usage(build_usage_metadata(1_000_000, 0), agent="ask", purpose="answer", model=name))
    assert (call.cost, call.currency) == (expected, None if expected is None else "EUR")


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": {"big": {"prompt": -1, "completion": 1}}},
        {"prices": {"big": {"prompt": "NaN", "completion": 1}}},
        {"prices": {"big": {"prompt": 1, "completion": "Infinity"}}},
        {"prices": {"big": {"prompt": 1}}},
        {"prices": {"big": {"prompt": 1, "completion": 1, "cache": 1}}},
        {"max_turn_cost": 1},
        {"max_session_cost": 1},
        {"max_session_cost": -1, "prices": PRICES},
        {"max_turn_tokens": -1},
        {"budget_warning": 0},
        {"budget_warning": 1.1},
    ],
)
def test_invalid_usage_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_for(tmp_path, **wrong)


def test_prices_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__PRICES", '{"big": {"prompt": 0.1, "completion": 3}}')
    price = Settings(_env_file=None).prices["big"]
    assert (price.prompt, price.cached, price.completion) == (Decimal("0.1"), None, Decimal(3))
