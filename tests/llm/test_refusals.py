"""A refusal of a model service: the log has the service's reason, the user gets a sentence that fits."""

import json
from pathlib import Path
from typing import Any

import pytest

from graph.errors import LLMUnavailable
from graph.llm import open_model
from graph.llm.overflow import Overflow, find_overflow
from graph.llm.refusals import Refusal
from graph.settings import Settings
from tests.support.llm_server import (
    Exchange,
    Responder,
    ScriptedLLM,
    build_delta,
    encode_sse,
    hang_after,
    respond_choice,
    respond_raw,
    respond_status,
    respond_text,
)
from tests.support.service import agent_switch_chunk, settings_for, start_service, text_chunk

OUR_KEY = "our-own-key-of-today"
DOWN = "The model service is overloaded or down"
RATE_LIMIT = "The rate limit of the model service is reached"
ACCOUNT = "The account at the model service has no credit or quota left"
KEY = "The model service refused the key"
MODEL = "The model service does not know the model"
TOOLS = "The model cannot call tools"
STREAMING = "The model service does not stream this model"
CONTENT = "The content filter of the model service refused the request"
REQUEST = "The model service refused the request"
FAULT = "The model service reported a fault"


def build_settings(url: str, **others: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retries": 0, "llm_api_key": OUR_KEY, **others}
    return Settings(_env_file=None, **given)


def refuse(status: int, body: Any, **headers: str) -> Responder:
    return respond_status(status, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)


def refuse_openai(status: int, message: str, **fields: Any) -> Responder:
    return refuse(status, {"error": {"message": message, **fields}})


def build_closing_error(code: int, message: str) -> dict[str, Any]:
    """Return OpenRouter's closing event for a provider that failed."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return {"choices": [{**choice, "error": {"code": code, "message": message}}]}


async def fail(llm: ScriptedLLM, **others: Any) -> str:
    """Return the sentence for the user."""
    async with open_model(build_settings(llm.url, **others)) as model:
        with pytest.raises(LLMUnavailable) as failed:
            await model.ainvoke("Hi")
    return str(failed.value)


QUOTED = {"error": {"message": "Unsupported value", "param": "temperature", "code": "unsupported_value"}}
LOGGED: dict[str, tuple[Any, str]] = {
    "OpenAI": (
        {"error": {"message": "No 'x' here.", "type": "invalid_request_error", "param": "x", "code": "unknown"}},
        ", code unknown, type invalid_request_error, param x: No 'x' here.",
    ),
    "a text": ({"error": "input too short", "error_type": "validation"}, ", type validation: input too short"),
    "a bare message": ({"object": "error", "message": "Bad", "type": "BadRequestError"}, ", type BadRequestError: Bad"),
    "FastAPI": ({"detail": "Not Found"}, ": Not Found"),
    "pydantic": (
        {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": {"a": "private"}}]},
        ", type missing, param x: Field required",
    ),
    "Mistral": (
        {
            "object": "error",
            "message": {"detail": [{"type": "extra", "loc": ["body", "x"], "msg": "No."}]},
            "code": None,
        },
        ", type extra, param x: No.",
    ),
    "a text and a message": ({"error": "Odd", "message": "It is odd.", "status": 400}, ": It is odd. (Odd)"),
    "Databricks": ({"error_code": "BAD", "message": "No."}, ", code BAD: No."),
    "Gemini": (
        [{"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}],
        ", code INVALID_ARGUMENT: No.",
    ),
    "Anthropic": ({"type": "error", "error": {"type": "odd_error", "message": "Odd"}}, ", type odd_error: Odd"),
    "Mistral around pydantic": (
        {"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"], "msg": "No"}]}, "type": "invalid"},
        ", type extra_forbidden, param x: No",
    ),
    "a list of errors": ({"errors": [{"code": 7003, "message": "No route"}]}, ", code 7003: No route"),
    "LiteLLM around OpenAI": (
        {"error": {"message": f"litellm.X: Y - {json.dumps(QUOTED)}", "type": "None", "param": None, "code": "400"}},
        ", code unsupported_value, param temperature: litellm.X: Y - Unsupported value",
    ),
    "OpenRouter around a provider": (
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(QUOTED)}}},
        ", code unsupported_value, param temperature: Unsupported value",
    ),
    "an event": (b'event: error\ndata: {"error": {"message": "As an event"}}\n\n', ": As an event"),
    "HTML": (b"<!doctype html><html><head><title>400 Bad &amp; wrong</title>x</html>", ": 400 Bad & wrong"),
    "HTML without a title": (b"<html><body><h1>Go</h1> away</body></html>", ": Go away"),
    "text in two lines": (b"One\r\nWARNING forged \x1b[31mline", ": One WARNING forged \\x1b[31mline"),
    "half JSON": (b'{"error": {"message": "cut o', ': {"error": {"message": "cut o'),
    "a BOM": (b'\xef\xbb\xbf{"message": "marked"}', ": marked"),
    "nothing": (b"", ""),
    "no JSON that ends": (b"[" * 70_000, f": {'[' * 300}"),
    "300 characters": ({"message": "ab " * 200}, f": {('ab ' * 200)[:300]}"),
    "our key": ({"message": f"You sent {OUR_KEY}."}, ": You sent ***."),
    "keys": (
        {"message": "One key: sk-or-v1-0123456789abcdef. Or AIzaSyA0123456789abc?key=x1y2, api_key: hunter"},
        ": One key: *** Or ***?key=***, api_key: ***",
    ),
    "an address with a password": ({"message": "via http://me:pw@proxy/v1"}, ": via http://***@proxy/v1"),
    "a quoted conversation": (
        {"message": "1 error [type=literal, input_value={'content': 'private'}, input_type=dict]"},
        ": 1 error [type=literal, input_value=***",
    ),
}


@pytest.mark.parametrize(("body", "line"), LOGGED.values(), ids=LOGGED)
async def test_reason_is_in_the_log_and_not_in_the_sentence(
    caplog: pytest.LogCaptureFixture, body: Any, line: str
) -> None:
    async with ScriptedLLM(refuse(400, body)) as llm:
        sentence = await fail(llm)
    assert [record.getMessage() for record in caplog.records] == [f"model scripted, attempt 1: status 400{line}"]
    assert sentence == "The model service refused the request (status 400). The log of this service has its reason."


async def test_reason_in_a_stream_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = {"error": {"message": "Odd", "type": "invalid_request_error", "code": "odd"}}
    async with ScriptedLLM(respond_raw(encode_sse(error))) as llm:
        assert await fail(llm) == f"{REQUEST}. The log of this service has its reason."
    assert "code odd, type invalid_request_error: Odd" in caplog.text


async def test_refusal_whose_body_does_not_end_is_reported_in_time() -> None:
    async def refuse_endlessly(exchange: Exchange) -> None:
        await exchange.send_head(400, "application/json", Transfer_Encoding="chunked")
        while True:
            await exchange.send_piece(b"x" * 65_536)

    async def refuse_silently(exchange: Exchange) -> None:
        await exchange.send_head(400, "application/json", Content_Length="9")
        await hang_after(seconds=6)(exchange)

    async with ScriptedLLM(refuse_endlessly, refuse_silently) as llm:
        for _ in range(2):
            assert (await fail(llm)).startswith(f"{REQUEST} (status 400).")


KINDS: dict[str, tuple[Responder, str, int]] = {
    "402": (refuse(402, b""), f"{ACCOUNT} (status 402)", 1),
    "insufficient_quota": (refuse_openai(429, "Check.", code="insufficient_quota"), f"{ACCOUNT} (status 429)", 1),
    "quota behind LiteLLM": (
        refuse_openai(429, "litellm.RateLimitError: You exceeded your current quota.", type="throttling_error"),
        f"{ACCOUNT} (status 429)",
        1,
    ),
    "Anthropic's credit": (
        refuse_openai(400, "Your credit balance is too low to access the API.", type="invalid_request_error"),
        f"{ACCOUNT} (status 400)",
        1,
    ),
    "a budget of LiteLLM": (
        refuse_openai(400, "Budget has been exceeded! Current cost: 1", type="budget_exceeded"),
        f"{ACCOUNT} (status 400)",
        1,
    ),
    "DeepSeek's balance": (refuse_openai(402, "Insufficient Balance", type="unknown_error"), f"{ACCOUNT} (", 1),
    "401": (refuse(401, {"detail": "unauthorized"}), f"{KEY} (status 401)", 1),
    "403": (refuse(403, b"<html>Forbidden</html>"), f"{KEY} (status 403)", 1),
    "Gemini's key": (
        refuse(400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]),
        f"{KEY} (status 400)",
        1,
    ),
    "LiteLLM's key": (refuse_openai(400, "No connected db.", type="no_db_connection"), f"{KEY} (status 400)", 1),
    "404": (refuse(404, {"detail": "Not Found"}), f"{MODEL} (status 404)", 1),
    "403 model_not_found": (refuse_openai(403, "No access.", code="model_not_found"), f"{MODEL} (status 403)", 1),
    "LiteLLM's model": (refuse_openai(400, "Invalid model name passed in model=x."), f"{MODEL} (status 400)", 1),
    "DeepSeek's model": (refuse_openai(400, "Model Not Exist"), f"{MODEL} (status 400)", 1),
    "Ollama's model": (refuse_openai(404, "model 'x' not found, try pulling it first"), f"{MODEL} (status 404)", 1),
    "no tools": (refuse_openai(400, "registry/gemma3 does not support tools"), f"{TOOLS} (status 400)", 1),
    "no endpoint with tools": (
        refuse_openai(404, "No endpoints found that support tool use.", code=404),
        f"{TOOLS} (status 404)",
        1,
    ),
    "no stream": (
        refuse_openai(400, "Your organization must be verified to stream this model.", param="stream"),
        f"{STREAMING} (status 400)",
        1,
    ),
    "Azure's filter": (
        refuse_openai(400, "The response was filtered", code="content_filter"),
        f"{CONTENT} (status 400)",
        1,
    ),
    "429": (refuse_openai(429, "Slow down", type="requests", code="rate_limit_exceeded"), f"{RATE_LIMIT} (", 2),
    "Gemini's quota of a minute": (
        refuse(
            429,
            [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"}}],
        ),
        f"{RATE_LIMIT} (status 429). Try again in a moment.",
        2,
    ),
    "Gemini's quota behind LiteLLM": (
        refuse_openai(429, "litellm.RateLimitError: You exceeded your current quota. Please retry in 100ms."),
        f"{RATE_LIMIT} (status 429). Try again in a moment.",
        2,
    ),
    "a rate limit with another status": (refuse_openai(503, "", code="rate_limit_exceeded"), f"{RATE_LIMIT} (", 2),
    "a delay in the words": (
        refuse_openai(429, "Rate limit reached. Please try again in 1m12.5s."),
        f"{RATE_LIMIT} (status 429). Try again in 72 seconds.",
        1,
    ),
    "500": (refuse(500, b"oops"), f"{DOWN} (status 500)", 2),
    "529": (refuse_openai(529, "Overloaded", type="overloaded_error"), f"{DOWN} (status 529)", 2),
    "overloaded in a stream": (
        respond_raw(encode_sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
        f"{DOWN}. Try again in a moment.",
        2,
    ),
    "vLLM's error in a stream": (
        respond_raw(encode_sse({"object": "error", "message": "No.", "type": "BadRequestError", "code": 400})),
        f"{REQUEST} (status 400)",
        1,
    ),
    "quota in a stream": (
        respond_raw(encode_sse({"error": {"message": "No.", "code": "insufficient_quota"}})),
        f"{ACCOUNT}. Check its plan.",
        1,
    ),
    "unknown in a stream": (respond_raw(encode_sse({"error": {"message": "Odd"}})), FAULT, 2),
    "an error of the first choice": (
        respond_raw(encode_sse(build_closing_error(502, "Upstream"))),
        f"{DOWN} (status 502)",
        2,
    ),
    "an error event without an error object": (
        respond_raw(b'event: error\ndata: {"message": "Slow down", "code": 429}\n\n'),
        f"{RATE_LIMIT} (status 429)",
        2,
    ),
    "DashScope's own format": (
        respond_raw(b'{"code": "InvalidApiKey", "message": "No.", "request_id": "1"}'),
        KEY,
        1,
    ),
    "DashScope's overflow": (
        respond_raw(b'{"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}'),
        "The request is too large for the model. Set AGENT_RUNTIME__CONTEXT_TOKENS below the model's window of 30720",
        1,
    ),
    "MiniMax": (
        respond_raw(b'{"choices": null, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}'),
        ACCOUNT,
        1,
    ),
    "Baidu": (respond_raw(b'{"error_code": 18, "error_msg": "Open api qps request limit reached"}'), FAULT, 2),
    "Cloudflare": (
        respond_raw(b'{"success": false, "errors": [{"code": 10000, "message": "Authentication error"}]}'),
        KEY,
        1,
    ),
    "a detail with status 200": (respond_raw(b'{"detail": "Model not found"}'), MODEL, 1),
    "LiteLLM's class with status 500": (
        refuse_openai(500, "litellm.AuthenticationError: AnthropicException - no", code="500"),
        KEY,
        1,
    ),
    "LiteLLM's class with status 400": (refuse_openai(400, "litellm.NotFoundError: OpenAIException - no"), MODEL, 1),
    "LiteLLM's class of a fault": (refuse_openai(400, "litellm.APIConnectionError: OllamaException - no"), DOWN, 2),
    "LiteLLM's inner class": (
        refuse_openai(500, "litellm.APIError: OpenAIException - litellm.RateLimitError: no"),
        RATE_LIMIT,
        2,
    ),
    "LiteLLM's class with status 500 of a request": (refuse_openai(500, "litellm.BadRequestError: no"), REQUEST, 1),
    "an error in a document": (
        respond_raw(b'{"error": {"message": "Odd", "code": 402}}'),
        f"{ACCOUNT} (status 402)",
        1,
    ),
}


@pytest.mark.parametrize(("step", "begin", "requests"), KINDS.values(), ids=KINDS)
async def test_sentence_fits_the_refusal(step: Responder, begin: str, requests: int) -> None:
    """A refusal that waiting does not mend is not repeated."""
    async with ScriptedLLM(step, step) as llm:
        sentence = await fail(llm, llm_retries=1, llm_retry_delay_seconds=0)
        assert sentence.startswith(begin)
        assert len(llm.requests) == requests


@pytest.mark.parametrize(
    "event",
    [
        {"status": "queued", "message": "You are third in line."},
        {"type": "ping", "message": "Still there."},
        {"code": 0, "message": "ok"},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"choices": [], "error": None, "detail": ""},
    ],
)
async def test_word_about_a_queue_is_no_refusal(event: dict[str, Any]) -> None:
    body = encode_sse(event, build_delta(content="Hi."), event, build_delta(finish_reason="stop"), done=True)
    async with ScriptedLLM(respond_raw(body)) as llm, open_model(build_settings(llm.url)) as model:
        assert (await model.ainvoke("Hi")).text == "Hi."


async def test_rate_limit_of_a_first_message_does_not_open_the_breaker(tmp_path: Path) -> None:
    """The classification and the answer are refused six times in all; the next session is served."""
    limited = refuse_openai(429, "Slow down", code="rate_limit_exceeded")
    async with ScriptedLLM(*[limited] * 6, respond_choice("ask"), respond_text("Hello.")) as llm:
        settings = settings_for(tmp_path, llm_model="scripted", llm_proxy_url=llm.url, llm_retry_delay_seconds=0)
        async with start_service(None, settings) as client:
            *_, refused = await client.open_session("s-1").send_text("Hello")
            assert refused["error"] == f"{RATE_LIMIT} (status 429). Try again in a moment."
            assert await client.open_session("s-2").send_text("Hello") == [
                agent_switch_chunk("orchestrator", "ask"),
                text_chunk("Hello."),
            ]


@pytest.mark.parametrize("step", [refuse_openai(402, "Pay."), refuse_openai(429, "No.", code="insufficient_quota")])
async def test_empty_account_does_not_open_the_breaker(step: Responder) -> None:
    async with (
        ScriptedLLM(*[step] * 3) as llm,
        open_model(build_settings(llm.url, llm_breaker_failures=1)) as model,
    ):
        for _ in range(3):
            with pytest.raises(LLMUnavailable, match="account"):
                await model.ainvoke("Hi")


SIZES = [
    ("OpenAI", "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8500 in the "
     "messages, 500 in the completion).", 8192, 9000),
    ("OpenAI, earlier", "This model's maximum context length is 4097 tokens. However, your messages resulted in 6164 "
     "tokens.", 4097, 6164),
    ("GPT-5", "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
     272000, 300000),
    ("vLLM", "This model's maximum context length is 8192 tokens. However, you requested 0 output tokens and your "
     "prompt contains at least 8193 input tokens, for a total of at least 8193 tokens.", 8192, 8193),
    ("vLLM, another", "You passed 9000 input tokens and requested 500 output tokens. However, the model's context "
     "length is only 8192 tokens", 8192, 9000),
    ("vLLM, a prompt", "The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 8192, 9000),
    ("SGLang", "The input (9000 tokens) is longer than the model's context length (8192 tokens).", 8192, 9000),
    ("SGLang, in all", "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested "
     "a total of 9000 tokens: 8000 tokens from the input", 8192, 9000),
    ("Anthropic", "prompt is too long: 210000 tokens > 200000 maximum", 200000, 210000),
    ("Anthropic, with the answer", "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000", 200000,
     195000),
    ("Gemini", "The input token count (1300000) exceeds the maximum number of tokens allowed (1048575).", 1048575,
     1300000),
    ("Gemini, without a count", "The input token count exceeds the maximum number of tokens allowed 1048576.", 1048576,
     0),
    ("Copilot", "prompt token count of 130000 exceeds the limit of 128000", 128000, 130000),
    ("llama.cpp", "request (8708 tokens) exceeds the available context size (8192 tokens), try increasing it", 8192,
     8708),
    ("llama-cpp-python", "Requested tokens (1234) exceed context window of 512", 512, 1234),
    ("LM Studio", "the model is loaded with context length of only 4096 tokens, which is not enough", 4096, 0),
    ("xAI", "This model's maximum prompt length is 131072 but the request contains 537812 tokens", 131072, 537812),
    ("Mistral", "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context "
     "length", 32768, 40000),
    ("Moonshot", "Your request exceeded model token limit: 131072 (requested: 150000)", 131072, 150000),
    ("Together", "The prompt is too long: 9000, model maximum context length: 8192", 8192, 9000),
    ("Cerebras", "Please reduce the length of the messages. Current length is 9000 while limit is 8192", 8192, 9000),
    ("text-generation-inference", "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000", 4096,
     5000),
    ("Qwen", "Range of input length should be [1, 129024]", 129024, 0),
    ("OpenRouter", "This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 "
     "tokens (199000 of text input, 1000 in the output).", 131072, 200000),
    ("a rate of tokens", "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
     "Requested 35000.", 30000, 35000),
    ("with commas", "the maximum context length is 131,072 tokens, but you requested 150,000 tokens", 131072, 150000),
    ("Bedrock", "Input is too long for requested model.", 0, 0),
    ("OpenAI, no numbers", "Your input exceeds the context window of this model.", 0, 0),
    ("Ollama", "input length exceeds context length", 0, 0),
    ("MiniMax", "invalid params, context window exceeds limit (2013)", 0, 0),
    ("Cohere", "too many tokens: size limit exceeded by 1234 tokens", 0, 0),
    ("LiteLLM's class", "litellm.ContextWindowExceededError: litellm.BadRequestError: foo", 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("words", "limit", "counted"), [row[1:] for row in SIZES], ids=[row[0] for row in SIZES])
def test_sizes_of_an_overflow_are_read(words: str, limit: int, counted: int) -> None:
    assert find_overflow(Refusal(400, message=words)) == Overflow(limit, counted)


@pytest.mark.parametrize(
    ("refusal", "overflow"),
    [
        (Refusal(413), Overflow()),
        (Refusal(code="context_length_exceeded"), Overflow()),
        (Refusal(429, message="Request too large: Limit 30000, Requested 35000"), Overflow(30000, 35000)),
        (Refusal(500, type="exceed_context_size_error", context_tokens=256, counted_tokens=1407), Overflow(256, 1407)),
        (Refusal(429, message="Rate limit reached: Limit 10000, Used 9000, Requested 2000"), None),
        (Refusal(429, message="Too many tokens, please wait before trying again."), None),
        (Refusal(400, message="max_tokens is too large: 9. This model supports at most 4 completion tokens"), None),
        (Refusal(400, message="Invalid 'tools[0].function.name': string too long"), None),
        (Refusal(401, message="the prompt is too long"), None),
    ],
)
def test_overflow_is_told_from_other_refusals(refusal: Refusal, overflow: Overflow | None) -> None:
    assert find_overflow(refusal) == overflow
