"""Each choice of an agent is cached for the same request, and stored for an evaluation of the routing."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from cli.__main__ import main
from graph.errors import LLMUnavailable
from graph.settings import OFFLINE_MODEL
from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import GatewayClient, agent_switch_chunk, settings_for, start_service, text_chunk

CACHE_ENABLED = {"routing_cache_size": 1_000}
CACHE_METADATA = {"confidence": "high", "classification_method": "cache"}


async def explain_routing(client: GatewayClient, request: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.http.post("/route/explain", json={"text": request, **more})).json()
    return answer


async def fetch_cache_stats(client: GatewayClient) -> dict[str, int]:
    found: dict[str, int] = (await explain_routing(client, "x"))["cache"]
    return found


async def test_the_same_request_is_classified_once(tmp_path: Path) -> None:
    llm = make_model(
        say_text("One."), say_text("Two."), say_text("Three."), choices=[choose_agent("ask"), choose_agent("coder")]
    )
    async with start_service(llm, settings_for(tmp_path, **CACHE_ENABLED)) as client:
        assert await client.open_session("s-1").send_text("Write a.py") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("One."),
        ]
        assert await client.open_session("s-2").send_text("  write   A.PY ") == [
            agent_switch_chunk("orchestrator", "ask", **CACHE_METADATA),
            text_chunk("Two."),
        ]
        assert await client.open_session("s-3").send_text("Write b.py") == [
            agent_switch_chunk("orchestrator", "coder"),
            text_chunk("Three."),
        ]
        assert await fetch_cache_stats(client) == {"size": 2, "hits": 1, "misses": 2}
        assert [m["content"] for m in await client.open_session("s-2").fetch_history()] == ["  write   A.PY ", "Two."]


async def test_handoff_to_the_orchestrator_bypasses_the_cache(tmp_path: Path) -> None:
    llm = make_model(
        say_text("One."),
        call_tool("switch_mode", mode="orchestrator"),
        say_text("Two."),
        choices=[choose_agent("ask"), choose_agent("coder")],
    )
    async with start_service(llm, settings_for(tmp_path, **CACHE_ENABLED)) as client:
        await client.open_session("s-1").send_text("Write a.py")
        first, _, second, answer = await client.open_session("s-2").send_text("Write a.py")
        assert (first["metadata"]["to_agent"], first["metadata"]["classification_method"]) == ("ask", "cache")
        assert (second, answer) == (agent_switch_chunk("orchestrator", "coder"), text_chunk("Two."))
        assert (await explain_routing(client, "Write a.py"))["remembered"]["agent"] == "ask"


@pytest.mark.parametrize("off", [{"routing_cache_size": 0}, CACHE_ENABLED | {"routing_cache_seconds": 0}])
async def test_routing_cache_can_be_disabled(tmp_path: Path, off: dict[str, int]) -> None:
    llm = make_model(say_text("One."), say_text("Two."), choices=[choose_agent("ask"), choose_agent("coder")])
    async with start_service(llm, settings_for(tmp_path, **off)) as client:
        for session in ("s-1", "s-2"):
            await client.open_session(session).send_text("Write a.py")
        assert await fetch_cache_stats(client) == {"size": 0, "hits": 0, "misses": 0}


async def test_routing_cache_is_bounded(tmp_path: Path) -> None:
    asked = ["a", "b", "c", "a"]
    llm = make_model(*(say_text("Done.") for _ in asked), choices=[choose_agent("ask") for _ in asked])
    async with start_service(llm, settings_for(tmp_path, routing_cache_size=2)) as client:
        for number, request in enumerate(asked):
            await client.open_session(f"s-{number}").send_text(request)
        assert await fetch_cache_stats(client) == {"size": 2, "hits": 0, "misses": 4}


@pytest.mark.parametrize("useless", [say_text("Perhaps the coder?"), LLMUnavailable("It is down.")])
async def test_keyword_choice_is_not_cached(tmp_path: Path, useless: AIMessageChunk | Exception) -> None:
    llm = make_model(say_text("One."), say_text("Two."), choices=[useless, choose_agent("ask")])
    async with start_service(llm, settings_for(tmp_path, **CACHE_ENABLED)) as client:
        first, _ = await client.open_session("s-1").send_text("Write a.py")
        second, _ = await client.open_session("s-2").send_text("Write a.py")
    told = [(each["metadata"]["to_agent"], each["metadata"]["classification_method"]) for each in (first, second)]
    assert told == [("coder", "keywords"), ("ask", "llm")]


async def test_usage_includes_the_classification(tmp_path: Path) -> None:
    usage = {"input_tokens": 50, "output_tokens": 5, "total_tokens": 55}
    choice = choose_agent("ask").model_copy(update={"usage_metadata": usage})
    async with start_service(make_model(say_text("One."), choices=[choice]), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Hello")
        spent = (await session.get("/sessions/{id}/usage"))["purposes"]["classification"]
    assert (spent["total_tokens"], spent["model_calls"], spent["estimated_calls"]) == (55, 1, 0)


async def test_route_explain_starts_no_run(tmp_path: Path) -> None:
    llm = make_model(say_text("One."), choices=[choose_agent("coder")])
    async with start_service(llm, settings_for(tmp_path, **CACHE_ENABLED)) as client:
        before = await explain_routing(client, "Почему падает тест?")
        await client.open_session().send_text("почему падает  тест?")
        after = await explain_routing(client, "Почему падает тест?")
        listed = (await client.http.get("/sessions")).json()
    assert before == {
        "agent": "debug",
        "confidence": "high",
        "reasoning": 'The request asks why something is wrong ("почему"), names a failure ("падает"), is a question.',
        "method": "keywords",
        "agreed": True,
        "points": {"architect": 1, "ask": 3, "coder": 1, "debug": 16},
        "probabilities": {"architect": 0.0, "ask": 0.013, "coder": 0.0, "debug": 0.986},
        "evidence": [
            {"clue": "asks why something is wrong", "words": "почему", "points": {"debug": 10, "ask": 1}},
            {"clue": "names a failure", "words": "падает", "points": {"debug": 5}},
            {"clue": "names what code is made of", "words": "тест", "points": {"coder": 1}},
            {"clue": "is a question", "words": "", "points": {"ask": 2, "debug": 1, "architect": 1}},
        ],
        "remembered": None,
        "cache": {"size": 0, "hits": 0, "misses": 0},
    }
    choice = {"agent": "coder", "confidence": "high", "reasoning": "It fits.", "method": "cache"}
    assert after == {**before, "remembered": choice, "cache": {"size": 1, "hits": 0, "misses": 1}}
    assert listed["total"] == 1


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "the body is not JSON in UTF-8"),
        (b"[]", 422, "the body is not a JSON object"),
        (b"{}", 422, "text: Field required"),
        (b'{"text": ""}', 422, "text: String should have at least 1 character"),
        (b'{"text": 1}', 422, "text: Input should be a valid string"),
        (b'{"text": "%s"}' % (b"x" * 200_001), 422, "text: Value error, it is longer than 200000 bytes"),
    ],
)
async def test_route_explain_refuses_an_invalid_body(tmp_path: Path, body: bytes, status: int, detail: str) -> None:
    async with start_service(make_model(), settings_for(tmp_path)) as client:
        answer = await client.http.post("/route/explain", content=body, headers={"Content-Type": "application/json"})
        unknown = await client.http.post("/route/explain", json={"text": "x"}, headers={"X-Internal-Auth": "wrong"})
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert unknown.status_code == 401


async def fetch_routings(client: GatewayClient, session_id: str = "s-1") -> list[dict[str, Any]]:
    """Return the routings of an exported session, without their times."""
    rows = (await client.http.get(f"/sessions/{session_id}/export")).json()["routings"]
    return [{name: value for name, value in row.items() if name != "created_at"} for row in rows]


def build_routing_row(request: str, agent: str, expected: str, **more: Any) -> dict[str, Any]:
    row = {"text": request, "agent": agent, "confidence": "high", "method": "llm", "expected": expected}
    return {**row, "override": None, **more}


async def test_each_choice_is_stored_with_the_keyword_choice(database: str) -> None:
    llm = make_model(
        call_tool("switch_mode", mode="orchestrator"),
        say_text("Written."),
        say_text("Found."),
        choices=[choose_agent("ask"), choose_agent("coder"), say_text("?")],
    )
    async with start_service(llm, settings_for(database)) as client:
        await client.open_session().send_text("Write a.py")
        await client.open_session("s-2").send_text("why does it fail? " + "x" * 5_000)
        assert await fetch_routings(client) == [
            build_routing_row("Write a.py", "ask", "coder"),
            build_routing_row("Write a.py", "coder", "coder"),
        ]
        [other] = await fetch_routings(client, "s-2")
        assert (len(other["text"]), other["agent"], other["method"]) == (4_000, "debug", "keywords")


async def test_override_by_the_user_is_stored(database: str) -> None:
    llm = make_model(
        *(say_text("Done.") for _ in range(6)), choices=[choose_agent("ask"), choose_agent("ask"), choose_agent("ask")]
    )
    async with start_service(llm, settings_for(database)) as client:
        changed, agreed, late = (client.open_session(f"s-{number}") for number in (1, 2, 3))
        for each in (changed, agreed, late):
            await each.send_text("Write a.py")
        await changed.switch("coder", content="Write a.py")
        await changed.switch("debug")
        await agreed.switch("ask")
        await late.send_text("Thanks")
        await late.switch("coder")
        found = [(await fetch_routings(client, each.id))[0]["override"] for each in (changed, agreed, late)]
    assert found == ["coder", None, None]


async def test_routings_are_deleted_with_their_session(
    database: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", database)
    llm = make_model(say_text("Done."), say_text("Done."), choices=[choose_agent("ask"), choose_agent("ask")])
    async with start_service(llm, settings_for(database)) as client:
        for session in ("s-1", "s-2"):
            await client.open_session(session).send_text("Write a.py")
        await client.open_session("s-1").switch("coder")
        assert main(["route", "overrides"]) == 0
        assert "Users changed 1 of 2 choices by hand." in capsys.readouterr().out
        await client.http.delete("/sessions/s-1?hard=true")
        assert main(["route", "overrides"]) == 0
        assert "Users changed 0 of 1 choices by hand." in capsys.readouterr().out


def parse_table(out: str, title: str) -> dict[str, dict[str, str]]:
    """Return the table under a title."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    columns = lines[start].removeprefix(title).split()
    rows = [line.split() for line in lines[start + 1 : start + 1 + len(columns)]]
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}


async def test_route_overrides_prints_choices_and_overrides(
    database: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", database)
    llm = make_model(
        say_text("One."), say_text("Two."), say_text("Three."), choices=[choose_agent("ask"), say_text("?")]
    )
    async with start_service(llm, settings_for(database, **CACHE_ENABLED)) as client:
        for session, request in (("s-1", "Write a.py"), ("s-2", "Write b.py"), ("s-3", "write a.PY")):
            await client.open_session(session).send_text(request)
        await client.open_session("s-1").switch("coder")
        await client.open_session("s-2").switch("debug")
    assert main(["route", "overrides"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:4] == [
        "Users changed 2 of 3 choices by hand.",
        "  cache, confidence high: 0 of 1",
        "  keywords, confidence high: 1 of 1",
        "  llm, confidence high: 1 of 1",
    ]
    changed = parse_table(out, "was given to, changed to")
    assert (changed["ask"]["coder"], changed["coder"]["debug"], changed["ask"]["debug"]) == ("1", "1", "-")
    assert "The words alone agree with the model in 0.0 % of 2." in out
    assert parse_table(out, "by the words, by the model")["coder"] == {
        "architect": "-",
        "ask": "2",
        "coder": "-",
        "debug": "-",
    }


LABELLED_LINES = (
    "coder\ten\teasy\tWrite\u2028a.py\n"
    "debug\tru\thard\tпочему падает тест?\n\n"
    '{"agent": "ask", "text": "Write\\nb.py", "language": "en", "number": 1}\n'
)


def test_route_eval_scores_labelled_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("AGENT_RUNTIME__LLM_MODEL", OFFLINE_MODEL)
    file = tmp_path / "requests.tsv"
    file.write_text(LABELLED_LINES, encoding="utf-8-sig")
    assert main(["route", "eval", str(file), "--model"]) == 0
    words, by_model = capsys.readouterr().out.split(f"By {OFFLINE_MODEL}")
    assert words.splitlines()[:6] == [
        "By the words alone: 66.7 % of 3",
        "  easy: 100.0 % of 1",
        "  en: 50.0 % of 2",
        "  en easy: 100.0 % of 1",
        "  hard: 100.0 % of 1",
        "  ru: 100.0 % of 1",
    ]
    assert parse_table(words, "should go to, goes to")["ask"] == {
        "architect": "-",
        "ask": "-",
        "coder": "1",
        "debug": "-",
    }
    assert by_model.startswith(": 66.7 % of 3\n")
    assert "0 of 3 got no usable answer of it." in by_model
    assert by_model.endswith("There is no database to say what users changed by hand.\n")


@pytest.mark.parametrize("line", ["coder", "coder\t", "\tWrite", "{", '{"text": "x"}', "poet\tWrite a poem", "[1]"])
def test_route_eval_names_an_invalid_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    file = tmp_path / "requests.tsv"
    file.write_text(f"coder\tWrite a.py\n{line}\n", encoding="utf-8")
    assert main(["route", "eval", str(file)]) == 2
    assert "requests.tsv:2: " in capsys.readouterr().err


def test_route_explain_prints_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "explain", "почему падает тест?"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("agent:      debug\nconfidence: high\n")
    points, probabilities = out.splitlines()[-2:]
    assert points.split() == ["points", "1", "3", "1", "16"]
    assert probabilities.split() == ["probability", "by", "n-grams", "0.0", "0.013", "0.0", "0.986"]
