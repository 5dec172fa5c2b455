"""What model calls used and cost: of a call, a run, an agent and a session; in tokens and in money."""

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
from tests.scripted import Held, calls, costs, model, says
from tests.service import Session, service, settings_for, text
from tests.storage import storage

pytestmark = pytest.mark.anyio

PRICES = {
    "big": {"prompt": 2.5, "cached": 0.25, "completion": 10},
    "small-*": {"prompt": 0.1, "completion": 0.4},
}
MONEY: dict[str, Any] = {"llm_model": "big", "prices": PRICES, "currency": "EUR"}


def tokens(read: int, written: int, cached: int = 0) -> dict[str, int]:
    counts = {"prompt_tokens": read, "cached_tokens": cached, "completion_tokens": written}
    return {**counts, "total_tokens": read + written}


def expected_totals(
    read: int, written: int, cached: int = 0, calls: int = 1, cost: float | None = None, unpriced: int = 0
) -> dict[str, Any]:
    counts = {**tokens(read, written, cached), "model_calls": calls, "cost": cost}
    return {**counts, "unpriced_calls": unpriced, "estimated_calls": 0}


def answer(agent: str, by: str, read: int, written: int, cached: int = 0, cost: float | None = None) -> dict[str, Any]:
    about = {"agent": agent, "purpose": "answer", "model": by}
    return {**about, **tokens(read, written, cached), "cost": cost, "estimated": False}


async def used(session: Session) -> dict[str, Any]:
    found: dict[str, Any] = await session.get("/sessions/{id}/usage")
    return found


async def test_the_usage_of_a_session_by_agent_purpose_and_run(database: str) -> None:
    llm = model(
        costs(calls("read_file", path="a.py"), 1000, 100, cached=800),
        costs(says("Read."), 2000, 50, by="small-2"),
        costs(says("Fixed."), 10, 1, by="unheard-of"),
    )
    async with service(llm, settings_for(database, **MONEY)) as client:
        session = client.session()
        await session.switch("ask", content="Read a.py")
        await session.result("x")
        await session.switch("coder", content="Fix it")
        usage = await used(session)
        newest = await session.get("/sessions/{id}/usage", runs=1)
        assert (await client.http.get("/sessions/none/usage")).status_code == 404
        assert (await client.http.get("/sessions/s-1/usage?runs=-1")).status_code == 422
    runs = usage.pop("runs")
    whole = expected_totals(3010, 151, cached=800, calls=3, cost=0.00192, unpriced=1)
    other = expected_totals(10, 1, unpriced=1)
    assert usage == {
        "session_id": "s-1",
        **whole,
        "currency": "EUR",
        "agents": {"ask": expected_totals(3000, 150, cached=800, calls=2, cost=0.00192), "coder": other},
        "purposes": {"answer": whole},
        "budget": {"max_model_calls": {"limit": 100, "used": 1, "left": 99}},
    }
    assert newest["runs"] == runs[:1]
    assert runs == [
        {"run_id": run["run_id"], "created_at": run["created_at"], **sums, "calls": [made]}
        for run, sums, made in zip(
            runs,
            [other, expected_totals(2000, 50, cost=0.00022), expected_totals(1000, 100, cached=800, cost=0.0017)],
            [
                answer("coder", "unheard-of", 10, 1),
                answer("ask", "small-2", 2000, 50, cost=0.00022),
                answer("ask", "big", 1000, 100, cached=800, cost=0.0017),
            ],
            strict=True,
        )
    ]


async def test_a_session_without_a_model_call(tmp_path: Path) -> None:
    async with service(model(), settings_for(tmp_path)) as client:
        session_id = (await client.http.post("/sessions")).json()["session_id"]
        usage = await used(client.session(session_id))
    assert usage == {
        "session_id": session_id,
        **expected_totals(0, 0, calls=0),
        "currency": "USD",
        "agents": {},
        "purposes": {},
        "runs": [],
        "budget": {"max_model_calls": {"limit": 100, "used": 0, "left": 100}},
    }


async def test_money_is_told_to_clients_that_opted_in_to_usage(tmp_path: Path) -> None:
    llm = model(
        costs(calls("calculator", expr="1 + 1"), 1000, 0), costs(says("2."), 0, 100, by="new"), costs(says("3."), 1, 1)
    )
    async with service(llm, settings_for(tmp_path, **MONEY)) as client:
        session = client.session(usage=True)
        partly, _ = (await session.switch("ask", content="Count"))[1:]
        whole, _ = await session.user("Count on")
    told = {"type": "usage", "currency": "EUR", "is_final": False}
    assert partly == {**told, **tokens(1000, 100), "model_calls": 2, "cost": 0.0025, "unpriced_calls": 1}
    assert whole == {**told, **tokens(1, 1), "model_calls": 1, "cost": 0.000012}


async def test_the_offline_model_is_free(tmp_path: Path) -> None:
    """Where there are prices; where there are none nothing has one."""
    for known, expected in (({"prices": PRICES}, (0.0, 0)), ({}, (None, 1))):
        async with service(model(costs(says("Hi."), 5, 1)), settings_for(tmp_path, **known)) as client:
            session = client.session(f"s-{len(known)}")
            await session.switch("ask", content="Hello")
            usage = await used(session)
            assert (usage["cost"], usage["unpriced_calls"]) == expected


@pytest.mark.parametrize("line", [says("A few words."), costs(says("A few words."), 0, 0)])
async def test_a_model_that_does_not_say_what_it_used_is_estimated(tmp_path: Path, line: Any) -> None:
    async with service(model(line, says("")), settings_for(tmp_path, **MONEY)) as client:
        session = client.session(usage=True)
        told, _ = (await session.switch("ask", content="Hello"))[1:]
        usage = await used(session)
    assert told["completion_tokens"] == 4
    assert told["prompt_tokens"] > 500
    assert told["estimated_calls"] == 1
    assert (usage["estimated_calls"], usage["total_tokens"]) == (1, told["total_tokens"])
    assert usage["cost"] == told["cost"] == (told["prompt_tokens"] * 2.5 + 40) / 1_000_000
    assert usage["runs"][0]["calls"][0]["estimated"] is True


async def test_a_run_that_failed_is_paid_for(database: str) -> None:
    llm = model(costs(calls("calculator", expr="1 + 1"), 7, 3), ZeroDivisionError(), costs(says("Back."), 5, 1))
    async with service(llm, settings_for(database, log_level="CRITICAL")) as client:
        session = client.session()
        assert (await session.switch("ask", content="Count"))[-1]["metadata"]["code"] == "internal"
        assert (await used(session))["total_tokens"] == 10
        assert await session.user("Again") == [text("Back.")]
        usage = await used(session)
    assert [run["total_tokens"] for run in usage["runs"]] == [6, 10]
    assert usage["total_tokens"] == 16


@pytest.mark.parametrize("line", [says(" "), calls("calculator", expr="1")])
async def test_an_answer_that_cannot_be_used_is_paid_for(tmp_path: Path, line: Any) -> None:
    """It says nothing; it asks for more tools than it may."""
    settings = settings_for(tmp_path, max_tool_calls=1)
    llm = model(costs(calls("calculator", expr="2"), 1, 1), costs(line, 7, 3))
    async with service(llm, settings) as client:
        session = client.session(usage=True)
        *_, told, error = await session.switch("ask", content="Count")
    assert error["type"] == "error"
    assert told == {"type": "usage", **tokens(8, 4), "model_calls": 2, "is_final": False}


async def test_a_run_that_was_cancelled_is_paid_for(tmp_path: Path) -> None:
    held = Held(says("Never."))
    llm = model(costs(calls("calculator", expr="1 + 1"), 7, 3), held)
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        running = asyncio.create_task(session.switch("ask", content="Count"))
        await held.asked.wait()
        await client.http.post("/sessions/s-1/cancel")
        await running
        usage = await used(session)
    first, second = usage["runs"][0]["calls"]
    assert (first["total_tokens"], first["estimated"]) == (10, False)
    assert (second["completion_tokens"], second["estimated"]) == (0, True)
    assert second["prompt_tokens"] > 500


async def test_a_run_that_was_handed_over_is_paid_for_on_both_sides(database: str) -> None:
    settings = settings_for(database, shutdown_seconds=0)
    cut = Held(says("Never."))
    async with service(model(costs(calls("calculator", expr="1"), 7, 3), cut), settings) as client:
        running = asyncio.create_task(client.session().switch("ask", content="Count"))
        await cut.asked.wait()
    with pytest.raises(httpx.HTTPError):
        await running
    line = costs(says("1."), 5, 1)
    async with service(model(line), settings) as client:
        session = client.session()
        async with asyncio.timeout(20):
            while (await session.get("/sessions/{id}/view"))["running"]:
                pass
        usage = await used(session)
    assert [call["total_tokens"] for call in usage["runs"][0]["calls"]] == [10, 6]
    assert usage["total_tokens"] == 16


async def test_a_run_is_booked_once_when_its_transaction_is_made_again(database: str) -> None:
    bill = totals.sum_run_calls([Meter(settings_for(database)).price_call(used_up(1, 1))])
    async with storage(database) as stored:
        await stored.prepare()

        def finished(connection: Any) -> None:
            row = session_rows.find_including_deleted(connection, "s-1") or session_rows.create_session(
                connection, "s-1"
            )
            outcome = Outcome([], "ask", 1, [], None)
            session = {"usage": None, "unpruned": 0, **row}
            run_rows.finish_run(connection, "run-1", session, outcome, [], bill, epoch=1, release_key=False)  # type: ignore[arg-type]

        await stored.rows(
            "insert into runs (id, session_id, body_hash, input, options, status, attempts, created_at,"
            " number) values ('run-1', 's-1', '', '{}', '{}', 'running', 1, '', 1)"
        )
        await stored.database.transact(finished)
        await stored.database.transact(finished)
        row = await stored.database.transact(lambda connection: session_rows.find_including_deleted(connection, "s-1"))
    assert row
    assert (row["usage"]["total_tokens"], row["unpruned"]) == (2, 1)


async def test_undoing_gives_nothing_back_and_a_copy_has_spent_nothing(database: str) -> None:
    llm = model(*(costs(says("Hi."), 10, 1) for _ in range(3)))
    async with service(llm, settings_for(database, session_tokens=1000, **MONEY)) as client:
        session = client.session()
        await session.switch("ask", content="Hello")
        await session.user("Hello again")
        await client.http.post("/sessions/s-1/undo")
        kept = await used(session)
        copy = client.session((await client.http.post("/sessions/s-1/fork")).json()["session_id"])
        fresh = await used(copy)
        await copy.user("Hello")
        later = await used(copy)
    assert (kept["total_tokens"], kept["budget"]["session_tokens"]["used"]) == (22, 22)
    assert (fresh["total_tokens"], fresh["cost"], fresh["budget"]["session_tokens"]["used"]) == (0, None, 0)
    assert (later["total_tokens"], later["budget"]["session_tokens"]["used"]) == (11, 11)


@given(st.lists(st.tuples(*[st.integers(0, 10**7)] * 3), min_size=1, max_size=60), st.decimals(0, 100, places=4))
def test_sums_of_money_do_not_drift(made: list[tuple[int, int, int]], price: Decimal) -> None:
    """However a session's runs are cut, and whatever is asked in between."""
    known = {"big": {"prompt": price, "cached": price / 4, "completion": price * 4}}
    meter = Meter(settings_for("sqlite:///x", llm_model="big", prices=known))
    priced = [meter.price_call(used_up(read, written, cached)) for read, written, cached in made]
    session: totals.UsageTotals | None = None
    for start in range(0, len(priced), 7):
        session = totals.add_run(session, totals.sum_run_calls(priced[start : start + 7]))
    assert session
    exact = sum(Decimal((call.metadata or {})["cost"]) for call in priced) + Decimal(0)
    assert Decimal(session["cost"]) == exact
    assert Decimal(session["agents"]["ask"]["cost"]) == Decimal(session["purposes"]["answer"]["cost"]) == exact
    assert totals.to_json(session)["cost"] == prices.to_json_number(exact)


def used_up(read: int, written: int, cached: int = 0) -> wire.Usage:
    usage = {**build_usage_metadata(read, written), "input_token_details": {"cache_read": cached}}
    return build_usage(usage, agent="ask", purpose="answer")  # type: ignore[arg-type]


def test_what_was_counted_before_there_were_prices_has_none() -> None:
    before = {**tokens(7, 3), "model_calls": 2}
    run = totals.sum_run_calls([Meter(settings_for("sqlite:///x", **MONEY)).price_call(used_up(1000, 0))])
    assert totals.to_json(before) == expected_totals(7, 3, calls=2, unpriced=2)
    assert totals.to_json(totals.add_run(before, run)) == expected_totals(1007, 3, calls=3, cost=0.0025, unpriced=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("big", 2.5), ("small-1", 0.1), ("bigger", None), (OFFLINE_MODEL, 0), ("", 2.5)],
)
def test_a_price_is_found_by_the_name_of_the_model(name: str, expected: float | None) -> None:
    meter = Meter(settings_for("sqlite:///x", **MONEY))
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
        {"turn_money": 1},
        {"session_money": 1},
        {"session_money": -1, "prices": PRICES},
        {"turn_tokens": -1},
        {"budget_warning": 0},
        {"budget_warning": 1.1},
    ],
)
def test_settings_that_cannot_be_refuse_the_start(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_for(tmp_path, **wrong)


def test_prices_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__PRICES", '{"big": {"prompt": 0.1, "completion": 3}}')
    price = Settings(_env_file=None).prices["big"]
    assert (price.prompt, price.cached, price.completion) == (Decimal("0.1"), None, Decimal(3))
