"""A conversation that outgrows a model's window is made smaller and sent once more, and later turns fit at once.

The scripted service counts as a provider does, refuses what is too large in the provider's words, and reports usage.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.llm_server import (
    LLMRequest,
    Responder,
    ScriptedLLM,
    ScriptedReply,
    build_delta,
    encode_sse,
    respond_choice,
    respond_raw,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import GatewayClient, SessionClient, settings_for, start_service, text_chunk

WINDOW = 8_000
"""Tokens. The universal agent's prompt and tools take some 2,500 of them."""

Refuse = Callable[[int, int], Responder]
"""Refuses a request, by its tokens and the window."""


def refuse_json(status: int, error: Any) -> Responder:
    return respond_status(status, json.dumps({"error": error}).encode())


REFUSALS: dict[str, Refuse] = {
    "OpenAI": lambda size, window: refuse_json(
        400,
        {
            "message": f"This model's maximum context length is {window} tokens. However, your messages resulted in "
            f"{size} tokens. Please reduce the length of the messages.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
    ),
    "llama.cpp": lambda size, window: refuse_json(
        400,
        {
            "code": 400,
            "message": "the request exceeds the available context size, try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": size,
            "n_ctx": window,
        },
    ),
    "vLLM, without a size": lambda size, window: refuse_json(
        400, {"message": f"This model's maximum context length is {window} tokens.", "code": 400}
    ),
    "Anthropic": lambda size, window: refuse_json(
        400, {"type": "invalid_request_error", "message": f"prompt is too long: {size} tokens > {window} maximum"}
    ),
    "LiteLLM, without numbers": lambda size, window: refuse_json(
        400, {"message": "litellm.ContextWindowExceededError: litellm.BadRequestError: no", "type": None, "code": "400"}
    ),
    "413": lambda size, window: respond_status(413, b"<html><title>413 Request Entity Too Large</title></html>"),
    "a rate of tokens": lambda size, window: refuse_json(
        429, {"message": f"Request too large for m on TPM: Limit {window}, Requested {size}.", "type": "tokens"}
    ),
    "500": lambda size, window: refuse_json(500, {"message": "the request exceeds the available context size"}),
    "in a stream": lambda size, window: respond_raw(
        encode_sse({"error": {"code": "context_length_exceeded", "message": "too many"}})
    ),
}


@dataclass
class Provider:
    """A service with a window for each model, and a tokenizer of its own: a digit has more tokens than a letter."""

    windows: dict[str, int]
    refuse: Refuse = REFUSALS["OpenAI"]
    letter_tokens: float = 1 / 3
    digit_tokens: float = 1 / 3
    plain_window: int = 1_000_000
    """The window of requests without tools."""
    answers: list[ScriptedReply] = field(default_factory=list)
    """The answers to requests with tools, in order; afterwards "Noted."."""
    refused: list[str] = field(default_factory=list)
    """The models that refused a request."""
    accepted: list[int] = field(default_factory=list)
    """The sizes of the accepted requests with tools."""

    def respond(self, request: LLMRequest) -> Responder:
        model, size = request.body["model"], self.count(request)
        window = min(self.windows[model], self.windows[model] if "tools" in request.body else self.plain_window)
        if size > window:
            self.refused.append(model)
            return self.refuse(size, window)
        usage = {"prompt_tokens": size, "completion_tokens": 5, "total_tokens": size + 5}
        if "tools" not in request.body:
            return ScriptedReply("They talk.", usage=usage)
        self.accepted.append(size)
        reply = self.answers.pop(0) if self.answers else respond_text("Noted.")
        return ScriptedReply(reply.text, reply.tool_calls, usage=usage)

    def count(self, request: LLMRequest) -> int:
        parts = [json.dumps(request.body.get("tools", ""))]
        parts += [f"{each['content']}{each.get('tool_calls', '')}" for each in request.body["messages"]]
        text = "".join(parts)
        digits = sum(map(str.isdigit, text))
        return int(digits * self.digit_tokens + (len(text) - digits) * self.letter_tokens)


@asynccontextmanager
async def serve(
    folder: Path, respond: Callable[[LLMRequest], Responder], **changes: Any
) -> AsyncIterator[tuple[ScriptedLLM, GatewayClient]]:
    async with ScriptedLLM(otherwise=respond) as llm:
        given = {"llm_model": "scripted", "llm_proxy_url": llm.url, "llm_retries": 1, "llm_retry_delay_seconds": 0}
        others = {"multi_agent_mode": False, "log_level": "CRITICAL"}
        async with start_service(None, settings_for(folder, **{**given, **others, **changes})) as client:
            yield llm, client


def write_prose(number: int, chars: int = 3_000) -> str:
    return f"Text {number}: " + "lorem ipsum dolor sit amet " * (chars // 27)


async def talk(session: SessionClient, numbers: Iterable[int], write: Callable[[int], str] = write_prose) -> None:
    for number in numbers:
        *_, answer = await session.send_text(write(number))
        assert answer == text_chunk("Noted.")


def newest_request(llm: ScriptedLLM) -> list[dict[str, Any]]:
    """Return the messages of the newest request of a specialist."""
    messages: list[dict[str, Any]] = [each for each in llm.requests if "tools" in each.body][-1].body["messages"]
    return messages


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
async def test_conversation_that_outgrows_the_window_goes_on(tmp_path: Path, refuse: Refuse) -> None:
    """One request is refused; the same turn is answered, and the room that was learned is enough for all others."""
    provider = Provider({"scripted": WINDOW}, refuse)
    async with serve(tmp_path, provider.respond) as (llm, client):
        session = client.open_session()
        await talk(session, range(20))
        assert "Text 19: lorem" in newest_request(llm)[-1]["content"]
        assert len(await session.fetch_history()) == 40
    assert (len(provider.refused), len(provider.accepted)) == (1, 20)


async def test_learned_room_is_for_all_sessions(tmp_path: Path) -> None:
    provider = Provider({"scripted": WINDOW})
    async with serve(tmp_path, provider.respond) as (_, client):
        for name in ("s-1", "s-2", "s-3"):
            await talk(client.open_session(name), range(10))
    assert len(provider.refused) == 1


@pytest.mark.parametrize("digit_tokens", [0.8, 1.5])
async def test_dense_result_is_cut_until_it_fits(tmp_path: Path, digit_tokens: float) -> None:
    """A result of digits has up to five times the tokens of the estimate."""
    provider = Provider({"scripted": 30_000}, digit_tokens=digit_tokens)
    provider.answers = [respond_tool_call("read_file", path="hex.txt"), respond_text("Read.")]
    async with serve(tmp_path, provider.respond) as (_, client):
        session = client.open_session()
        await session.send_text("Read hex.txt")
        assert await session.send_result("0123456789" * 7_000) == [text_chunk("Read.")]
        await talk(session, range(5))
    assert len(provider.refused) <= 2
    assert len(provider.accepted) == 7


async def test_reported_usage_keeps_dense_text_within_the_setting(tmp_path: Path) -> None:
    """A service that counts 1.7 tokens for an estimated one refuses nothing, without a margin in the setting."""
    provider = Provider({"scripted": 12_000}, letter_tokens=1.7 / 3, digit_tokens=1.7 / 3)
    async with serve(tmp_path, provider.respond, context_tokens=12_000) as (_, client):
        await talk(client.open_session(), range(20))
    assert provider.refused == []
    assert max(provider.accepted) > 12_000 * 0.5


async def test_reported_usage_gives_sparse_text_more_room(tmp_path: Path) -> None:
    """A model that counts 0.6 tokens for an estimated one gets more of the conversation; one that counts 0.1 does not.

    The second report is not plausible: the service counts only what its cache lacked, or cut the prompt.
    """
    sizes = []
    for letter_tokens in (0.6 / 3, 0.1 / 3):
        provider = Provider({"scripted": 1_000_000}, letter_tokens=letter_tokens, digit_tokens=letter_tokens)
        folder = tmp_path / str(letter_tokens)
        folder.mkdir()
        async with serve(folder, provider.respond, context_tokens=8_000) as (_, client):
            await talk(client.open_session(), range(20))
        sizes.append(max(provider.accepted))
    assert 8_000 * 0.6 < sizes[0] <= 8_000
    assert sizes[1] <= 8_000 * 0.1


async def test_window_that_is_too_small_is_one_error_and_the_session_lives(tmp_path: Path) -> None:
    """Even a prompt alone is too large; with another model at the service the next message is answered."""
    provider = Provider({"scripted": 1_500})
    async with serve(tmp_path, provider.respond, multi_agent_mode=True) as (_, client):
        session = client.open_session()
        *_, error = await session.send_text("Explain a.py")
        assert error["metadata"]["code"] == "llm_unavailable"
        assert error["error"] == (
            "The request is too large for the model (status 400). "
            "Set AGENT_RUNTIME__CONTEXT_TOKENS below the model's window of 1500 tokens."
        )
        assert provider.refused == ["scripted"] * 2
        provider.windows["scripted"] = WINDOW
        *_, answer = await session.send_text("Explain b.py")
        assert answer == text_chunk("Noted.")


async def test_fallback_gets_a_request_that_the_first_model_finds_too_large(tmp_path: Path) -> None:
    """Later requests fit the first model."""
    provider = Provider({"scripted": WINDOW, "other": 100_000})
    async with serve(tmp_path, provider.respond, llm_fallback_model="other") as (llm, client):
        await talk(client.open_session(), range(20))
    models = [request.body["model"] for request in llm.requests if "tools" in request.body]
    assert (models.count("other"), provider.refused) == (1, ["scripted"])
    assert models[-1] == "scripted"


async def test_request_that_is_too_large_for_both_models_fits_the_smaller(tmp_path: Path) -> None:
    provider = Provider({"scripted": WINDOW, "other": 6_000})
    async with serve(tmp_path, provider.respond, llm_fallback_model="other") as (_, client):
        await talk(client.open_session(), [*range(3), 3, *range(4, 12)], lambda number: write_prose(number, 12_000))
    assert provider.refused == ["scripted", "other"]


async def test_first_model_gets_a_smaller_request_while_the_fallback_is_down(tmp_path: Path) -> None:
    provider = Provider({"scripted": WINDOW})

    def respond(request: LLMRequest) -> Responder:
        return provider.respond(request) if request.body["model"] == "scripted" else respond_status(500)

    async with serve(tmp_path, respond, llm_fallback_model="other") as (_, client):
        await talk(client.open_session(), range(10))
    assert provider.refused == ["scripted"]


async def test_fallback_has_a_room_of_its_own(tmp_path: Path) -> None:
    """The first model is down for good; the second, with a smaller window, refuses one request in all."""
    provider = Provider({"other": WINDOW})

    def respond(request: LLMRequest) -> Responder:
        return provider.respond(request) if request.body["model"] == "other" else respond_status(500)

    changes = {"llm_fallback_model": "other", "llm_retries": 0, "llm_breaker_failures": 1}
    async with serve(tmp_path, respond, **changes) as (_, client):
        await talk(client.open_session(), range(20))
    assert provider.refused == ["other"]


@pytest.mark.parametrize("chars", [20_000, 60_000])
async def test_first_message_fits_a_fallback_that_just_learned_its_room(tmp_path: Path, chars: int) -> None:
    """The request is cut to the room exactly, so its size is estimated as that or as some tokens more."""
    provider = Provider({"other": WINDOW})

    def respond(request: LLMRequest) -> Responder:
        return provider.respond(request) if request.body["model"] == "other" else respond_status(500)

    async with serve(tmp_path, respond, llm_fallback_model="other") as (_, client):
        *_, answer = await client.open_session().send_text(write_prose(1, chars))
    assert (answer, provider.refused) == (text_chunk("Noted."), ["other"])


async def test_speculative_call_that_is_too_large_is_repeated(tmp_path: Path) -> None:
    provider = Provider({"scripted": WINDOW}, plain_window=1_000_000)
    release = asyncio.Event()

    def respond(request: LLMRequest) -> Responder:
        if "tools" in request.body:
            return provider.respond(request)
        return replace(respond_choice("ask"), after=release)

    async def release_after(llm: ScriptedLLM, number: int) -> None:
        await llm.wait_for_requests(number)
        release.set()

    async with serve(tmp_path, respond, multi_agent_mode=True, speculative_routing=True) as (llm, client):
        releasing = asyncio.create_task(release_after(llm, 2))
        *_, answer = await client.open_session().send_text(f"What is this? {'lorem ipsum ' * 3_000}")
        await releasing
    assert answer == text_chunk("Noted.")
    assert (provider.refused, len(provider.accepted)) == (["scripted"], 1)


async def test_summary_that_is_too_large_is_made_of_fewer_messages(tmp_path: Path) -> None:
    provider = Provider({"scripted": WINDOW}, plain_window=1_800)
    async with serve(tmp_path, provider.respond, context_tokens=WINDOW) as (llm, client):
        session = client.open_session()
        await talk(session, range(30))
        assert "> They talk." in newest_request(llm)[1]["content"]
        refused, repeated, *_ = [place for place, each in enumerate(llm.requests) if "tools" not in each.body]
        assert repeated - refused <= 3  # at once; a failed summary waits for more messages


async def test_answer_that_fills_the_window_shrinks_the_next_request(tmp_path: Path) -> None:
    """A service that notices the end of the window while it writes breaks off; the next request leaves more room."""
    full = encode_sse(
        build_delta(content="One"), {"error": {"message": "Context size has been exceeded.", "code": 500}}
    )
    async with ScriptedLLM(respond_raw(full, slices=len(encode_sse(build_delta(content="One"))))) as llm:
        settings = settings_for(
            tmp_path, llm_model="scripted", llm_proxy_url=llm.url, multi_agent_mode=False, log_level="CRITICAL"
        )
        async with start_service(None, settings) as client:
            session = client.open_session()
            *_, error = await session.send_text("lorem ipsum " * 5_000)
            assert error["error"] == "The model's answer broke off. Try again."
            llm.steps.append(respond_text("Noted."))
            assert await session.send_text("And?") == [text_chunk("Noted.")]
    first, second = (len(json.dumps(request.body["messages"])) for request in llm.requests)
    assert second < first * 0.7
