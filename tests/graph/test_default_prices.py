"""A well-known model has the list price of its service. A name that could be anybody's model has none."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage, calc_price

from graph.settings import Settings
from graph.usage.call import build_usage, build_usage_metadata
from graph.usage.default_prices import find_default_prices
from graph.usage.meter import Meter
from tests.support.llm_server import ScriptedLLM, respond_text
from tests.support.service import settings_for, start_service

PROXY = "http://127.0.0.1:8002"
OFFICE = "https://llm.example.com/v1"


def has_price(model: str, address: str) -> bool:
    return model in find_default_prices((model,), address)


@pytest.mark.parametrize("address", [PROXY, OFFICE, "http://litellm:4000"])
@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o", "GPT-4o", "gpt-4o-2024-08-06", "gpt-4o-20240806", "o3", "claude-sonnet-4-5", "gemini-2.5-pro"),
        *("openai/gpt-4o", "anthropic/claude-sonnet-4-5-20250929", "gemini/gemini-2.5-flash", "xai/grok-4"),
        *("openrouter/openai/gpt-4o", "deepseek/deepseek-chat", "groq/llama-3.3-70b-versatile", "azure/gpt-4o"),
    ],
)
def test_name_that_means_one_service_has_its_price(model: str, address: str) -> None:
    assert has_price(model, address)


@pytest.mark.parametrize("address", [PROXY, OFFICE, "http://[::1]:8000", "http://vllm/v1"])
@pytest.mark.parametrize(
    "model",
    [
        *("my-gpt-4o", "gpt-4o-local", "gpt-4o-mini-finetuned", "gpt-4-my", "claude-sonnet-4-local", "gpt-oss-20b"),
        *("llama-3.3-70b-versatile", "deepseek-chat", "deepseek-r1", "qwen3-coder", "mistral-large-latest"),
        *("openai/gpt-oss-20b", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3-32B", "team/gpt-4o"),
        *("moonshotai/Kimi-K2-Instruct", "openai/", "/gpt-4o", "openai/nothing-like-it", "openai/my/gpt-4o"),
    ],
)
def test_name_of_a_model_that_anybody_may_run_has_no_price(model: str, address: str) -> None:
    assert not has_price(model, address)


@pytest.mark.parametrize(
    ("address", "model", "expected"),
    [
        ("https://api.openai.com/v1", "gpt-4o", True),
        ("https://api.deepseek.com", "deepseek-chat", True),
        ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", True),
        ("https://openrouter.ai/api/v1", "qwen/qwen3-coder", True),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "models/gemini-2.5-flash", True),
        ("https://x.openai.azure.com/openai/v1", "gpt-4o", True),
        ("https://x.openai.azure.com/openai/v1", "my-deployment", False),
        ("https://api.groq.com/openai/v1", "gpt-4o", False),
        ("https://openrouter.ai/api/v1", "nobody/nothing", False),
    ],
)
def test_address_of_a_service_decides(address: str, model: str, expected: bool) -> None:
    assert has_price(model, address) is expected


@pytest.mark.parametrize(
    ("model", "service", "prompt", "cached"),
    [
        ("gpt-4o", "openai", 1_000, 800),
        ("claude-sonnet-4-5", "anthropic", 1_000, 0),
        ("claude-sonnet-4-5", "anthropic", 500_000, 100),
        ("gemini-2.5-pro", "google", 150_000, 0),
        ("gemini-2.5-pro", "google", 300_000, 0),
    ],
)
def test_cost_is_that_of_the_package(model: str, service: str, prompt: int, cached: int) -> None:
    """Some prices rise with the length of the prompt."""
    call = build_usage(build_usage_metadata(prompt, 50), agent="ask", purpose="answer", model=model)
    priced = find_default_prices((model,), PROXY)[model].calculate_cost(
        call.model_copy(update={"cached_tokens": cached})
    )
    counts = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=50)
    assert priced == calc_price(counts, model, provider_id=service).total_price


@pytest.mark.parametrize(
    ("changes", "cost", "unpriced"),
    [
        ({"llm_model": "openai/gpt-4o"}, "list", 0),
        ({"llm_model": "openai/gpt-4o", "default_prices": False}, None, 1),
        ({"llm_model": "openai/gpt-4o", "currency": "EUR"}, None, 1),
        ({"llm_model": "openai/gpt-4o", "prices": {"openai/*": {"prompt": 1, "completion": 2}}}, 0.00002, 0),
        ({"llm_model": "gpt-4o-local"}, None, 1),
    ],
)
async def test_default_prices_are_below_the_prices_of_the_settings(
    tmp_path: Path, changes: dict[str, Any], cost: Any, unpriced: int
) -> None:
    async with (
        ScriptedLLM(respond_text("Hi.")) as llm,
        start_service(None, settings_for(tmp_path, llm_proxy_url=llm.url, multi_agent_mode=False, **changes)) as client,
    ):
        session = client.open_session()
        await session.send_text("Hello")
        usage = await session.get("/sessions/{id}/usage")
    if cost == "list":
        cost = float(round(calc_price(Usage(input_tokens=10, output_tokens=5), "gpt-4o").total_price, 6))
    assert (usage["total_tokens"], usage["cost"], usage["unpriced_calls"]) == (15, cost, unpriced)


def test_fallback_model_has_a_price_too() -> None:
    meter = Meter(Settings(_env_file=None, llm_model="gpt-4o-local", llm_fallback_model="gpt-4o"))
    counts = build_usage_metadata(1_000_000, 0)
    costs = {
        model: meter.price_call(build_usage(counts, agent="ask", purpose="answer", model=model)).cost
        for model in ("gpt-4o-local", "gpt-4o")
    }
    assert costs["gpt-4o-local"] is None
    assert costs["gpt-4o"]


def test_offline_model_has_no_default_price() -> None:
    call = build_usage(build_usage_metadata(1_000, 0), agent="ask", purpose="answer")
    priced = Meter(Settings(_env_file=None)).price_call(call)
    assert (priced.cost, priced.unpriced_calls) == (None, None)


def test_limit_of_money_works_with_default_prices_and_needs_some_price() -> None:
    limited = Settings(_env_file=None, llm_model="gpt-4o", max_turn_cost=Decimal(1))
    Meter(limited)
    with pytest.raises(ValueError, match="needs a price of my-model: set AGENT_RUNTIME__PRICES"):
        Meter(limited.model_copy(update={"llm_model": "my-model"}))
    with pytest.raises(ValueError, match="needs AGENT_RUNTIME__PRICES"):
        Settings(_env_file=None, llm_model="gpt-4o", max_turn_cost=Decimal(1), default_prices=False)
