"""The counts of a model service are read in any form. What it leaves out is estimated, never free."""

import json
from pathlib import Path
from typing import Any

import pytest

from graph.settings import Settings
from tests.support.llm_server import ScriptedLLM, build_delta, encode_sse, respond_raw
from tests.support.service import settings_for, start_service, text_chunk

ANSWER = build_delta(content="hi")
END = build_delta(finish_reason="stop")
PRICE = {"m": {"prompt": 1, "cached": 0.1, "completion": 10}}
ANSWER_TOKENS = 1
"""The estimated tokens of the answer."""


def make_settings(tmp_path: Path, llm: ScriptedLLM, **changes: Any) -> Settings:
    model = {"llm_model": "m", "llm_proxy_url": llm.url, "prices": PRICE, "multi_agent_mode": False}
    return settings_for(tmp_path, **model, **changes)


async def measure_usage(tmp_path: Path, *events: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the usage of one call, as a client reads it."""
    async with (
        ScriptedLLM(respond_raw(encode_sse(*events, done=True))) as llm,
        start_service(None, make_settings(tmp_path, llm, **changes)) as client,
    ):
        session = client.open_session()
        assert (await session.send_text("Hello"))[-1] == text_chunk("hi")
        (call,) = (await session.get("/sessions/{id}/usage"))["runs"][0]["calls"]
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "cost", "estimated")
    return {name: call[name] for name in names}


def build_counts(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    cost = (prompt - cached + cached * 0.1 + completion * 10) / 1_000_000
    counts = {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion}
    return {**counts, "total_tokens": prompt + completion, "cost": pytest.approx(cost, abs=1e-6), "estimated": False}


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        pytest.param(
            [
                ANSWER | {"usage": {"prompt_tokens": 1000, "completion_tokens": 1}},
                END | {"usage": {"completion_tokens": 50}},
            ],
            build_counts(1000, 50),
            id="in two events",
        ),
        pytest.param(
            [
                ANSWER | {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}},
                END | {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
            ],
            build_counts(1000, 50),
            id="then zeros",
        ),
        pytest.param(
            [
                ANSWER | {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
                END | {"usage": None},
                {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 50}},
            ],
            build_counts(1000, 50),
            id="zeros and null first",
        ),
        pytest.param(
            [
                ANSWER | {"usage": {"prompt_tokens": 1000, "completion_tokens": 20}},
                END | {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}},
            ],
            build_counts(1000, 50),
            id="in every event",
        ),
    ],
)
async def test_counts_of_several_events_are_merged(tmp_path: Path, events: Any, counts: dict[str, Any]) -> None:
    assert await measure_usage(tmp_path, *events) == counts


def in_choice(usage: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{**END["choices"][0], "usage": usage}]}


@pytest.mark.parametrize(
    "event",
    [
        END | {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}},
        in_choice({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}),
        END | {"usage": {}, "x_groq": {"id": "req", "usage": {"prompt_tokens": 1000, "completion_tokens": 50}}},
        END | {"usage": {"prompt_tokens": 1000.0, "completion_tokens": 50.0}},
        END | {"usage": {"prompt_tokens": "1000", "completion_tokens": "50.0"}},
        END | {"usage": {"input_tokens": 1000, "output_tokens": 50}},
        END | {"usage": {"prompt_tokens": 0, "input_tokens": 1000, "completion_tokens": None, "output_tokens": 50}},
        END | {"usage": {"promptTokenCount": 1000, "candidatesTokenCount": 50, "totalTokenCount": 1050}},
        END | {"usage": {"prompt_tokens": 1000, "total_tokens": 1050}},
        END | {"usage": {"completion_tokens": 50, "total_tokens": 1050}},
    ],
)
async def test_counts_are_found_in_each_form(tmp_path: Path, event: dict[str, Any]) -> None:
    assert await measure_usage(tmp_path, ANSWER, event) == build_counts(1000, 50)


async def test_thoughts_that_only_the_total_has_are_paid(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1350}
    assert await measure_usage(tmp_path, ANSWER, END | {"usage": usage}) == build_counts(1000, 350)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 800}},
        {"prompt_tokens": 1000, "prompt_tokens_details": None, "cached_tokens": 800},
        {"prompt_tokens": 1000, "prompt_cache_hit_tokens": 800, "prompt_cache_miss_tokens": 200},
        {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": "800"}},
        {"prompt_tokens": 1000, "cache_read_input_tokens": 800, "cache_creation_input_tokens": 100},
        {"input_tokens": 100, "cache_read_input_tokens": 800, "cache_creation_input_tokens": 100},
        {"inputTokens": 100, "cacheReadInputTokens": 800, "cacheWriteInputTokens": 100},
        {"promptTokenCount": 1000, "cachedContentTokenCount": 800},
    ],
)
async def test_cached_tokens_are_found_in_each_form(tmp_path: Path, usage: dict[str, Any]) -> None:
    event = END | {"usage": {**usage, "completion_tokens": 50}}
    assert await measure_usage(tmp_path, ANSWER, event) == build_counts(1000, 50, cached=800)


async def test_more_cached_than_prompt_tokens_are_bounded(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 999}
    assert await measure_usage(tmp_path, ANSWER, END | {"usage": usage}) == build_counts(10, 5, cached=10)


@pytest.mark.parametrize(
    ("usage", "completion", "total"),
    [
        ({"total_tokens": 1050}, ANSWER_TOKENS, 1050),
        ({"total_tokens": "1050"}, ANSWER_TOKENS, 1050),
        ({"prompt_tokens": 1000}, ANSWER_TOKENS, 1001),
        ({"prompt_tokens": 1000, "completion_tokens": 0}, ANSWER_TOKENS, 1001),
        ({"completion_tokens": 50}, 50, None),
        ({}, ANSWER_TOKENS, None),
        (None, ANSWER_TOKENS, None),
        ("1050", ANSWER_TOKENS, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, ANSWER_TOKENS, None),
        ({"prompt_tokens": -1, "completion_tokens": True, "total_tokens": 1e300}, ANSWER_TOKENS, None),
        ({"prompt_tokens": "many", "completion_tokens": "nan", "total_tokens": [1]}, ANSWER_TOKENS, None),
    ],
)
async def test_missing_counts_are_estimated_and_never_free(
    tmp_path: Path, usage: Any, completion: int, total: int | None
) -> None:
    found = await measure_usage(tmp_path, ANSWER, END | {"usage": usage})
    assert found["estimated"] is True
    assert (found["completion_tokens"], found["total_tokens"]) == (completion, total or found["total_tokens"])
    assert found["prompt_tokens"] == found["total_tokens"] - completion > 500
    assert found["cost"] == pytest.approx((found["prompt_tokens"] + completion * 10) / 1_000_000, abs=1e-6)


async def test_counts_of_a_document_are_read(tmp_path: Path) -> None:
    choice = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [{**choice, "usage": {"input_tokens": 1000, "output_tokens": 50}}]}).encode()
    async with ScriptedLLM(respond_raw(body, content_type="application/json")) as llm:
        settings = make_settings(tmp_path, llm, llm_streaming=False)
        async with start_service(None, settings) as client:
            *_, usage, answer = await client.open_session(usage=True).send_text("Hello")
    assert (usage["prompt_tokens"], usage["completion_tokens"], answer) == (1000, 50, text_chunk("hi"))
