"""What is kept of each choice of an agent: for the next who asks the same, and for whoever judges the routing."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from cli.__main__ import main
from graph.errors import LLMUnavailable
from graph.settings import OFFLINE_MODEL
from tests.scripted import calls, chooses, model, says
from tests.service import Client, service, settings_for, switched, text

pytestmark = pytest.mark.anyio
REMEMBERS = {"routing_cache_size": 1_000}
CACHED = {"confidence": "high", "classification_method": "cache"}


async def explained(client: Client, request: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.http.post("/route/explain", json={"text": request, **more})).json()
    return answer


async def counted(client: Client) -> dict[str, int]:
    found: dict[str, int] = (await explained(client, "x"))["cache"]
    return found


async def test_the_same_request_is_classified_once(tmp_path: Path) -> None:
    llm = model(says("One."), says("Two."), says("Three."), choices=[chooses("ask"), chooses("coder")])
    async with service(llm, settings_for(tmp_path, **REMEMBERS)) as client:
        assert await client.session("s-1").user("Write a.py") == [switched("orchestrator", "ask"), text("One.")]
        assert await client.session("s-2").user("  write   A.PY ") == [
            switched("orchestrator", "ask", **CACHED),
            text("Two."),
        ]
        assert await client.session("s-3").user("Write b.py") == [switched("orchestrator", "coder"), text("Three.")]
        assert await counted(client) == {"size": 2, "hits": 1, "misses": 2}
        assert [m["content"] for m in await client.session("s-2").history()] == ["  write   A.PY ", "Two."]


async def test_what_an_agent_hands_back_is_classified_anew(tmp_path: Path) -> None:
    llm = model(
        says("One."),
        calls("switch_mode", mode="orchestrator"),
        says("Two."),
        choices=[chooses("ask"), chooses("coder")],
    )
    async with service(llm, settings_for(tmp_path, **REMEMBERS)) as client:
        await client.session("s-1").user("Write a.py")
        first, _, second, answer = await client.session("s-2").user("Write a.py")
        assert (first["metadata"]["to_agent"], first["metadata"]["classification_method"]) == ("ask", "cache")
        assert (second, answer) == (switched("orchestrator", "coder"), text("Two."))
        assert (await explained(client, "Write a.py"))["remembered"]["agent"] == "ask"


@pytest.mark.parametrize("off", [{"routing_cache_size": 0}, REMEMBERS | {"routing_cache_seconds": 0}])
async def test_a_cache_can_be_off(tmp_path: Path, off: dict[str, int]) -> None:
    llm = model(says("One."), says("Two."), choices=[chooses("ask"), chooses("coder")])
    async with service(llm, settings_for(tmp_path, **off)) as client:
        for session in ("s-1", "s-2"):
            await client.session(session).user("Write a.py")
        assert await counted(client) == {"size": 0, "hits": 0, "misses": 0}


async def test_a_cache_is_bounded(tmp_path: Path) -> None:
    asked = ["a", "b", "c", "a"]
    llm = model(*(says("Done.") for _ in asked), choices=[chooses("ask") for _ in asked])
    async with service(llm, settings_for(tmp_path, routing_cache_size=2)) as client:
        for number, request in enumerate(asked):
            await client.session(f"s-{number}").user(request)
        assert await counted(client) == {"size": 2, "hits": 0, "misses": 4}


@pytest.mark.parametrize("useless", [says("Perhaps the coder?"), LLMUnavailable("It is down.")])
async def test_what_the_words_say_is_not_remembered(tmp_path: Path, useless: AIMessageChunk | Exception) -> None:
    llm = model(says("One."), says("Two."), choices=[useless, chooses("ask")])
    async with service(llm, settings_for(tmp_path, **REMEMBERS)) as client:
        first, _ = await client.session("s-1").user("Write a.py")
        second, _ = await client.session("s-2").user("Write a.py")
    told = [(each["metadata"]["to_agent"], each["metadata"]["classification_method"]) for each in (first, second)]
    assert told == [("coder", "keywords"), ("ask", "llm")]


async def test_a_choice_is_paid_for(tmp_path: Path) -> None:
    usage = {"input_tokens": 50, "output_tokens": 5, "total_tokens": 55}
    choice = chooses("ask").model_copy(update={"usage_metadata": usage})
    async with service(model(says("One."), choices=[choice]), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Hello")
        spent = (await session.get("/sessions/{id}/usage"))["purposes"]["classification"]
    assert (spent["total_tokens"], spent["model_calls"], spent["estimated_calls"]) == (55, 1, 0)


async def test_routing_is_explained_and_nothing_is_run(tmp_path: Path) -> None:
    llm = model(says("One."), choices=[chooses("coder")])
    async with service(llm, settings_for(tmp_path, **REMEMBERS)) as client:
        before = await explained(client, "Почему падает тест?")
        await client.session().user("почему падает  тест?")
        after = await explained(client, "Почему падает тест?")
        listed = (await client.http.get("/sessions")).json()
    assert before == {
        "agent": "debug",
        "confidence": "high",
        "reasoning": 'The request asks why something is wrong ("почему"), names a failure ("падает"), is a question.',
        "method": "keywords",
        "points": {"architect": 1, "ask": 3, "coder": 1, "debug": 16},
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
async def test_what_is_no_request_is_not_explained(tmp_path: Path, body: bytes, status: int, detail: str) -> None:
    async with service(model(), settings_for(tmp_path)) as client:
        answer = await client.http.post("/route/explain", content=body, headers={"Content-Type": "application/json"})
        unknown = await client.http.post("/route/explain", json={"text": "x"}, headers={"X-Internal-Auth": "wrong"})
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert unknown.status_code == 401


async def routings_of(client: Client, session_id: str = "s-1") -> list[dict[str, Any]]:
    """As exported, without their times."""
    rows = (await client.http.get(f"/sessions/{session_id}/export")).json()["routings"]
    return [{name: value for name, value in row.items() if name != "created_at"} for row in rows]


def stored(request: str, agent: str, expected: str, **more: Any) -> dict[str, Any]:
    row = {"text": request, "agent": agent, "confidence": "high", "method": "llm", "expected": expected}
    return {**row, "override": None, **more}


async def test_each_choice_is_stored_with_what_the_words_say(database: str) -> None:
    llm = model(
        calls("switch_mode", mode="orchestrator"),
        says("Written."),
        says("Found."),
        choices=[chooses("ask"), chooses("coder"), says("?")],
    )
    async with service(llm, settings_for(database)) as client:
        await client.session().user("Write a.py")
        await client.session("s-2").user("why does it fail? " + "x" * 5_000)
        assert await routings_of(client) == [
            stored("Write a.py", "ask", "coder"),
            stored("Write a.py", "coder", "coder"),
        ]
        [other] = await routings_of(client, "s-2")
        assert (len(other["text"]), other["agent"], other["method"]) == (4_000, "debug", "keywords")


async def test_what_the_user_chooses_instead_is_stored(database: str) -> None:
    llm = model(*(says("Done.") for _ in range(6)), choices=[chooses("ask"), chooses("ask"), chooses("ask")])
    async with service(llm, settings_for(database)) as client:
        changed, agreed, late = (client.session(f"s-{number}") for number in (1, 2, 3))
        for each in (changed, agreed, late):
            await each.user("Write a.py")
        await changed.switch("coder", content="Write a.py")
        await changed.switch("debug")
        await agreed.switch("ask")
        await late.user("Thanks")
        await late.switch("coder")
        found = [(await routings_of(client, each.id))[0]["override"] for each in (changed, agreed, late)]
    assert found == ["coder", None, None]


async def test_routings_go_with_their_session(database: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", database)
    llm = model(says("Done."), says("Done."), choices=[chooses("ask"), chooses("ask")])
    async with service(llm, settings_for(database)) as client:
        for session in ("s-1", "s-2"):
            await client.session(session).user("Write a.py")
        await client.session("s-1").switch("coder")
        assert main(["route", "overrides"]) == 0
        assert "Users changed 1 of 2 choices by hand." in capsys.readouterr().out
        await client.http.delete("/sessions/s-1?hard=true")
        assert main(["route", "overrides"]) == 0
        assert "Users changed 0 of 1 choices by hand." in capsys.readouterr().out


def table(out: str, title: str) -> dict[str, dict[str, str]]:
    """The matrix under a title."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    columns = lines[start].removeprefix(title).split()
    rows = [line.split() for line in lines[start + 1 : start + 1 + len(columns)]]
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}


async def test_choices_and_what_became_of_them_are_one_table(
    database: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", database)
    llm = model(says("One."), says("Two."), says("Three."), choices=[chooses("ask"), says("?")])
    async with service(llm, settings_for(database, **REMEMBERS)) as client:
        for session, request in (("s-1", "Write a.py"), ("s-2", "Write b.py"), ("s-3", "write a.PY")):
            await client.session(session).user(request)
        await client.session("s-1").switch("coder")
        await client.session("s-2").switch("debug")
    assert main(["route", "overrides"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:4] == [
        "Users changed 2 of 3 choices by hand.",
        "  cache, confidence high: 0 of 1",
        "  keywords, confidence high: 1 of 1",
        "  llm, confidence high: 1 of 1",
    ]
    changed = table(out, "was given to, changed to")
    assert (changed["ask"]["coder"], changed["coder"]["debug"], changed["ask"]["debug"]) == ("1", "1", "-")
    assert "The words alone agree with the model in 0.0 % of 2." in out
    assert table(out, "by the words, by the model")["coder"] == {
        "architect": "-",
        "ask": "2",
        "coder": "-",
        "debug": "-",
    }


LINES = (
    "coder\ten\teasy\tWrite\u2028a.py\n"
    "debug\tru\thard\tпочему падает тест?\n\n"
    '{"agent": "ask", "text": "Write\\nb.py", "language": "en", "number": 1}\n'
)


def test_labelled_requests_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("AGENT_RUNTIME__LLM_MODEL", OFFLINE_MODEL)
    file = tmp_path / "requests.tsv"
    file.write_text(LINES, encoding="utf-8-sig")
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
    assert table(words, "should go to, goes to")["ask"] == {
        "architect": "-",
        "ask": "-",
        "coder": "1",
        "debug": "-",
    }
    assert by_model.startswith(": 66.7 % of 3\n")
    assert "0 of 3 got no usable answer of it." in by_model
    assert by_model.endswith("There is no database to say what users changed by hand.\n")


@pytest.mark.parametrize("line", ["coder", "coder\t", "\tWrite", "{", '{"text": "x"}', "poet\tWrite a poem", "[1]"])
def test_what_is_no_labelled_request_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    file = tmp_path / "requests.tsv"
    file.write_text(f"coder\tWrite a.py\n{line}\n", encoding="utf-8")
    assert main(["route", "eval", str(file)]) == 2
    assert "requests.tsv:2: " in capsys.readouterr().err


def test_a_choice_is_explained_at_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "explain", "почему падает тест?"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("agent:      debug\nconfidence: high\n")
    assert out.splitlines()[-1].split() == ["points", "1", "3", "1", "16"]
