"""A field that a model does not accept is left out, once for the process, and the request is repeated."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graph.errors import LLMUnavailable
from graph.llm import open_model
from graph.llm.refusals import Refusal
from graph.llm.refused_fields import find_refused_field
from graph.settings import Settings
from tests.support.llm_server import (
    LLMRequest,
    Responder,
    ScriptedLLM,
    encode_sse,
    respond_choice,
    respond_raw,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import agent_switch_chunk, settings_for, start_service, text_chunk, tool_call_chunk

READ_FILE_TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
FIELDS = {
    "tools": [READ_FILE_TOOL],
    "parallel_tool_calls": False,
    "temperature": 0.3,
    "top_p": 0.9,
    "stop": ["END"],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def refuse_field(name: str, status: int = 400) -> Responder:
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    body = {"error": {"message": message, "param": name, "code": "unsupported_parameter"}}
    return respond_status(status, json.dumps(body).encode())


def answer_as(*refused: str, answers: list[Responder]) -> Callable[[LLMRequest], Responder]:
    """Answer as a model that refuses these fields, each in a refusal of its own."""

    def answer(request: LLMRequest) -> Responder:
        name = next((name for name in refused if name in request.body), "")
        return refuse_field(name) if name else answers.pop(0)

    return answer


def build_settings(url: str, **others: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retries": 0, **others}
    return Settings(_env_file=None, **given)


async def test_model_without_temperature_and_parallel_calls_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-5 and the o-series refuse a temperature, and some models a choice of parallel calls."""
    answers: list[Responder] = [
        respond_choice("ask"),
        respond_tool_call("read_file", path="a.py"),
        respond_text("It prints."),
        respond_choice("coder"),
        respond_text("Done."),
    ]
    llm = ScriptedLLM(otherwise=answer_as("temperature", "parallel_tool_calls", answers=answers))
    async with llm:
        settings = settings_for(tmp_path, llm_model="gpt-5", llm_proxy_url=llm.url, log_level="WARNING")
        async with start_service(None, settings) as client:
            session = client.open_session("s-1")
            assert await session.send_text("What does a.py do?") == [
                agent_switch_chunk("orchestrator", "ask"),
                tool_call_chunk("read_file", path="a.py"),
            ]
            assert await session.send_result("print()") == [text_chunk("It prints.")]
            assert await client.open_session("s-2").send_text("Write b.py") == [
                agent_switch_chunk("orchestrator", "coder"),
                text_chunk("Done."),
            ]
    assert len(llm.requests) == 5 + 2  # each field was refused once
    kept = [record.getMessage() for record in caplog.records if "does not accept" in record.getMessage()]
    assert kept == [
        f"model gpt-5 does not accept {name}; its requests go without it from now on"
        for name in ("temperature", "parallel_tool_calls")
    ]


async def test_requests_at_the_same_time_are_each_repeated() -> None:
    llm = ScriptedLLM(otherwise=answer_as("temperature", answers=[respond_text("Hello.")] * 3))
    async with llm, open_model(build_settings(llm.url)) as model:
        bound = model.bind(temperature=0.3)
        assert [answer.text for answer in await asyncio.gather(*[bound.ainvoke("Hi") for _ in range(3)])] == [
            "Hello."
        ] * 3


async def test_fallback_model_has_fields_of_its_own() -> None:
    steps: list[Responder] = [refuse_field("temperature"), respond_status(500), respond_text("Here.")]
    async with (
        ScriptedLLM(*steps) as llm,
        open_model(build_settings(llm.url, llm_fallback_model="other")) as model,
    ):
        assert (await model.bind(temperature=0.3).ainvoke("Hi")).text == "Here."
    assert [(request.body["model"], "temperature" in request.body) for request in llm.requests] == [
        ("scripted", True),
        ("scripted", False),
        ("other", True),
    ]


async def test_field_refused_in_a_stream_is_left_out() -> None:
    error = {"error": {"message": "Unknown field `stream_options`", "type": "invalid_request_error"}}
    async with (
        ScriptedLLM(respond_raw(encode_sse(error)), respond_text("Hello.")) as llm,
        open_model(build_settings(llm.url)) as model,
    ):
        assert "".join([str(chunk.text) async for chunk in model.astream("Hi")]) == "Hello."
    assert "stream_options" not in llm.requests[1].body


@pytest.mark.parametrize("name", ["model", "messages", "tools", "stream", "seed"])
async def test_required_or_unsent_field_is_not_left_out(name: str) -> None:
    async with ScriptedLLM(refuse_field(name)) as llm, open_model(build_settings(llm.url)) as model:
        with pytest.raises(LLMUnavailable, match=r"\(status 400\)"):
            await model.bind_tools([READ_FILE_TOOL], parallel_tool_calls=False).ainvoke("Hi")
        assert len(llm.requests) == 1


async def test_service_that_repeats_a_refusal_is_not_asked_for_ever() -> None:
    llm = ScriptedLLM(otherwise=lambda _: refuse_field("temperature"))
    async with llm, open_model(build_settings(llm.url)) as model:
        with pytest.raises(LLMUnavailable, match=r"\(status 400\)"):
            await model.bind(temperature=0.3).ainvoke("Hi")
        assert len(llm.requests) == 2


NAMED = [
    (Refusal(400, param="temperature"), "temperature"),
    (Refusal(400, param="stream_options.include_usage"), "stream_options"),
    (Refusal(400, message="Unrecognized request argument supplied: parallel_tool_calls"), "parallel_tool_calls"),
    (Refusal(400, message="property 'stream_options' is unsupported"), "stream_options"),
    (Refusal(400, message='Unknown name "parallel_tool_calls": Cannot find field.'), "parallel_tool_calls"),
    (Refusal(400, message="temperature: Extra inputs are not permitted"), "temperature"),
    (Refusal(400, message="`temperature` may only be set to 1 when thinking is enabled."), "temperature"),
    (Refusal(400, message="`temperature` and `top_p` cannot both be specified"), "temperature"),
    (Refusal(400, message="x does not support parameters: ['top_p', 'temperature']"), "top_p"),
    (Refusal(400, message="does not support 0.3 with this model. Only the default (1) is supported"), "temperature"),
    (Refusal(422, type="extra_forbidden", param="parallel_tool_calls"), "parallel_tool_calls"),
    (Refusal(404, message="No endpoints found that support the provided 'top_p' value"), "top_p"),
    (Refusal(400, message="Unknown field 'stop'"), "stop"),
    (Refusal(400, message="The model can not stop here"), ""),
    (Refusal(400, param="messages", message="Bad with temperature"), ""),
    (Refusal(400, message="Invalid 'tools': the temperatures are wrong"), ""),
    (Refusal(401, message="`temperature`"), ""),
    (Refusal(400, message="No reason"), ""),
]


@pytest.mark.parametrize(("refusal", "name"), NAMED)
def test_field_is_found_in_the_words_of_a_service(refusal: Refusal, name: str) -> None:
    assert find_refused_field(refusal, FIELDS) == name
