"""A call with one reading is taken in that reading, before the gate judges it; any other one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from graph.tools.coercion import coerce_arguments, resolve_tool_name
from tests.llm.test_model_failures import UNIVERSAL_SWITCH, start_scripted_service
from tests.support.llm_server import respond_raw_tool_call, respond_text, respond_tool_call
from tests.support.service import text_chunk, tool_call_chunk


@pytest.mark.parametrize(
    ("tool", "sent", "read"),
    [
        (
            "read_file",
            {"path": "a.py", "start_line": 1.0, "end_line": 20.0},
            {"path": "a.py", "start_line": 1, "end_line": 20},
        ),
        ("read_file", {"path": "a.py", "start_line": "10"}, {"path": "a.py", "start_line": 10}),
        ("search_in_code", {"query": "1.0", "max_results": "50.0"}, {"query": "1.0", "max_results": 50}),
        (
            "list_files",
            {"path": "src", "recursive": "true", "include_hidden": "False"},
            {"path": "src", "recursive": True, "include_hidden": False},
        ),
        ("search_in_code", {"query": "true", "file_pattern": "[1]"}, {"query": "true", "file_pattern": "[1]"}),
    ],
)
async def test_typed_values_are_sent_and_kept(
    tmp_path: Path, tool: str, sent: dict[str, Any], read: dict[str, Any]
) -> None:
    async with start_scripted_service(tmp_path, respond_tool_call(tool, **sent), respond_text("Done.")) as (
        llm,
        client,
    ):
        session = client.open_session()
        shown = await session.send_text("Look")
        assert shown == [UNIVERSAL_SWITCH, tool_call_chunk(tool, **read)]
        assert json.dumps(shown[-1]["arguments"]) == json.dumps(read)  # 1 == 1.0 == True
        await session.send_result()
        assert llm.requests[-1].body["messages"][2]["tool_calls"][0]["function"]["arguments"] == json.dumps(read)
        assert (await session.fetch_history())[1]["tool_calls"][0]["function"]["arguments"] == json.dumps(read)


async def test_list_in_a_text_is_a_list_of_suggestions(tmp_path: Path) -> None:
    question = respond_tool_call("ask_followup_question", question="Which?", suggestions='["a", "b"]')
    async with start_scripted_service(tmp_path, question) as (_, client):
        assert await client.open_session().send_text("Go") == [
            UNIVERSAL_SWITCH,
            text_chunk("Which?", metadata={"question": True, "suggestions": ["a", "b"]}),
        ]


async def test_typed_values_are_shown_for_approval_and_audited(tmp_path: Path) -> None:
    call = respond_tool_call("execute_command", command="make", timeout="120.0", shell="true")
    async with start_scripted_service(tmp_path, call, respond_text("Done.")) as (_, client):
        session = client.open_session()
        shown = (await session.send_text("Build"))[-1]
        assert (shown["requires_approval"], shown["arguments"]) == (
            True,
            {"command": "make", "timeout": 120, "shell": True},
        )
        await session.decide("approve")
        [entry] = (await session.get("/sessions/{id}/audit"))["entries"]
        assert json.dumps(entry["original_arguments"]) == json.dumps(shown["arguments"])


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps('{"path": "a.py"}'),
        json.dumps('  {"path": "a.py"}\n'),
    ],
)
@pytest.mark.parametrize("is_streaming", [True, False])
async def test_object_wrapped_in_a_text_is_unwrapped(tmp_path: Path, raw: str, is_streaming: bool) -> None:
    steps = [respond_raw_tool_call("read_file", raw), respond_text("Done.")]
    async with start_scripted_service(tmp_path, *steps, llm_streaming=is_streaming) as (_, client):
        assert await client.open_session().send_text("Read") == [
            UNIVERSAL_SWITCH,
            tool_call_chunk("read_file", path="a.py"),
        ]


@pytest.mark.parametrize(
    "raw",
    [
        '```json\n{"path": "a.py"}\n```',
        '{"path": "a.py"}<|im_end|>',
        '{}{"path": "a.py"}',
        json.dumps('{}{"path": "a.py"}'),
        json.dumps(json.dumps('{"path": "a.py"}')),
        json.dumps('{"path": "a.py"'),
        json.dumps("a.py"),
        json.dumps(json.dumps("a.py" * 100)),
        '["a.py"]',
        json.dumps('{"path": ' + "[" * 65 + "]" * 65 + "}"),
        '{"path": ' + "[" * 65 + "]" * 65 + "}",
    ],
)
async def test_text_with_no_single_object_is_refused(tmp_path: Path, raw: str) -> None:
    async with start_scripted_service(tmp_path, respond_raw_tool_call("read_file", raw), respond_text("Sorry.")) as (
        llm,
        client,
    ):
        assert await client.open_session().send_text("Read") == [UNIVERSAL_SWITCH, text_chunk("Sorry.")]
        assert llm.requests[-1].body["messages"][3]["content"].startswith("The arguments are not a JSON object: ")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": "a.py", "start_line": value})
        for value in ("1.5", 1.5, "one", "", "0x10", "010", "1e3", "1,000", True, "true", [1], "9" * 30, 1e300, "٣")
    ]
    + [("list_files", {"path": "a", "recursive": value}) for value in ("yes", "1", 1, 0.0, "on", "", [True])]
    + [
        ("ask_followup_question", {"question": "Which?", "suggestions": value})
        for value in ("a", "a, b", "['a']", '{"a": 1}', '["a"', "[1]", "[" * 5000)
    ]
    + [("echo", {"text": value}) for value in (1, True, ["a"])],
)
def test_values_with_no_single_reading_stay_as_they_are(tool: str, arguments: dict[str, Any]) -> None:
    coerced = coerce_arguments(tool, arguments)
    expected = {**arguments, "suggestions": [1]} if arguments.get("suggestions") == "[1]" else arguments
    assert json.dumps(coerced) == json.dumps(expected)


@pytest.mark.parametrize("value", ["yes", "1"])
async def test_value_with_no_single_reading_is_refused(tmp_path: Path, value: str) -> None:
    steps = [respond_tool_call("list_files", path=".", recursive=value), respond_text("Sorry.")]
    async with start_scripted_service(tmp_path, *steps) as (llm, client):
        assert await client.open_session().send_text("Look") == [UNIVERSAL_SWITCH, text_chunk("Sorry.")]
        refusal = llm.requests[-1].body["messages"][3]["content"]
        assert refusal.startswith("The arguments of list_files are not valid: recursive: ")


@pytest.mark.parametrize(
    "name",
    [
        "functions.read_file",
        "functions.read_file:0",
        "default_api.read_file",
        "default_api:read_file",
        "tools.read_file",
        "read_file<|channel|>commentary",
        "functions.read_file<|constrain|>json",
        " read_file ",
        "read_file\n",
        "Read_File",
        "READ_FILE",
    ],
)
async def test_decorated_name_of_one_tool_is_that_tool(tmp_path: Path, name: str) -> None:
    async with start_scripted_service(tmp_path, respond_tool_call(name, path="a.py"), respond_text("Done.")) as (
        llm,
        client,
    ):
        session = client.open_session()
        assert await session.send_text("Read") == [UNIVERSAL_SWITCH, tool_call_chunk("read_file", path="a.py")]
        await session.send_result()
        assert llm.requests[-1].body["messages"][2]["tool_calls"][0]["function"]["name"] == "read_file"


@pytest.mark.parametrize("name", ["functions.Attempt_Completion", " attempt_completion "])
async def test_decorated_control_tool_ends_the_turn_alone(tmp_path: Path, name: str) -> None:
    step = respond_tool_call(name, result="Done.") & respond_tool_call("read_file", id="call_2", path="a.py")
    async with start_scripted_service(tmp_path, step) as (_, client):
        said = await client.open_session(parallel_tools=True).send_text("Go")
    assert said == [UNIVERSAL_SWITCH, text_chunk("Done.", metadata={"completion": True})]


@pytest.mark.parametrize(
    "name",
    [
        "readfile",
        "read",
        "read-file",
        "read_file_2",
        "my.read_file",
        "read_file()",
        "functions.",
        "",
        "continue_work",
        "Continue_Work",
        "functions.continue_work",
        "read_file" + " " * 300,
        "read_file list_files",
    ],
)
def test_name_that_is_not_one_tools_stays_unknown(name: str) -> None:
    assert resolve_tool_name(name) == name


async def test_explained_verdict_reads_a_call_like_a_models(tmp_path: Path) -> None:
    async with start_scripted_service(tmp_path) as (_, client):
        for tool, arguments in (
            ("read_file", {"path": "a.py", "start_line": "1"}),
            ("functions.read_file", {"path": "a.py"}),
        ):
            body = {"agent": "ask", "tool": tool, "arguments": arguments}
            response = await client.http.post("/policy/explain", json=body)
            assert response.json()["decision"] == "allow"


async def test_edit_needs_exact_types(tmp_path: Path) -> None:
    call = respond_tool_call("execute_command", command="make", timeout=60)
    async with start_scripted_service(tmp_path, call) as (_, client):
        session = client.open_session()
        await session.send_text("Build")
        [refused] = await session.decide("edit", modified_arguments={"timeout": "90"})
        assert (refused["metadata"]["code"], "timeout" in refused["error"]) == ("edit_refused", True)
        [edited] = await session.decide("edit", modified_arguments={"timeout": 90})
        assert edited["arguments"] == {"command": "make", "timeout": 90}
