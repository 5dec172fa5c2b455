"""A second reader of a request's words: where it agrees with the keyword rules, the model need not be asked."""

from pathlib import Path

import pytest

from cli.__main__ import main
from graph.routing.ngrams import MODEL_FILE, load_default_model, load_model
from graph.routing.words import classify_by_keywords, read_words
from prompts import select_team
from tests.graph.test_routing import HELD_OUT_REQUESTS
from tests.support.scripted import choose_agent, make_model, say_text
from tests.support.service import settings_for, start_service

TEAM = select_team(multi_agent=True)
CLEAR_REQUEST, DOUBTFUL_REQUEST = "create hello.py", "Could the cache be better?"
LABELLED = (
    "coder\tcreate a file\ncoder\twrite the parser\ncoder\tadd a button\n"
    "debug\twhy does it crash\ndebug\tthe test fails\ndebug\tit hangs at start\n"
)


def test_both_readers_together_are_better_than_the_rules() -> None:
    """The scores of held-out requests. A change of the words or the weights is judged by these numbers alone."""
    readings = [(each.agent, read_words(each.text, TEAM)) for each in HELD_OUT_REQUESTS]
    agreed = [agent == read.choice.agent for agent, read in readings if read.is_agreed]
    by_rules = sum(classify_by_keywords(each.text, TEAM).agent == each.agent for each in HELD_OUT_REQUESTS)
    by_both = sum(agent == read.choice.agent for agent, read in readings)
    assert by_both >= 0.94 * len(readings), "train the n-grams again: .venv/bin/python -m cli route train"
    assert by_both > by_rules
    assert len(agreed) >= 0.87 * len(readings)
    assert sum(agreed) >= 0.985 * len(agreed)


def test_readers_that_disagree_have_low_confidence() -> None:
    assert read_words(CLEAR_REQUEST, TEAM).is_agreed
    doubtful = read_words(DOUBTFUL_REQUEST, TEAM)
    assert (doubtful.is_agreed, doubtful.choice.confidence) == (False, "low")


def test_readers_never_agree_about_a_team_with_an_unknown_agent() -> None:
    """The n-grams cannot choose an agent that they have not learned, so their consent says nothing."""
    reading = read_words(CLEAR_REQUEST, [*TEAM, "reviewer"])
    assert (reading.is_agreed, reading.choice.agent) == (False, "coder")
    assert read_words(CLEAR_REQUEST, ["reviewer", "poet"]).is_agreed is False


def test_readers_never_agree_about_a_request_without_clues() -> None:
    assert read_words("qwerty", TEAM).is_agreed is False


async def test_clear_request_needs_no_model_call_to_be_routed(tmp_path: Path) -> None:
    llm = make_model(say_text("It is made."), say_text("Yes."), choices=[choose_agent("ask")])
    async with start_service(llm, settings_for(tmp_path, routing_skip_model=True)) as client:
        switched, *_ = await client.open_session().send_text(CLEAR_REQUEST)
        assert len(llm.prompts) == 1
        doubtful, *_ = await client.open_session("s-2").send_text(DOUBTFUL_REQUEST)
    assert len(llm.prompts) == 3
    assert switched["metadata"] == {
        "from_agent": "orchestrator",
        "to_agent": "coder",
        "reason": 'The request wants something made or changed ("create").',
        "confidence": "high",
        "classification_method": "keywords",
    }
    assert (doubtful["metadata"]["to_agent"], doubtful["metadata"]["classification_method"]) == ("ask", "llm")


async def test_request_that_the_user_gives_back_goes_to_the_model(tmp_path: Path) -> None:
    """The words chose this agent, and the user did not want it."""
    llm = make_model(say_text("It is made."), say_text("Once more."), choices=[choose_agent("ask")])
    async with start_service(llm, settings_for(tmp_path, routing_skip_model=True)) as client:
        session = client.open_session()
        await session.send_text(CLEAR_REQUEST)
        _, switched, *_ = await session.switch("orchestrator", content=CLEAR_REQUEST)
    assert (switched["metadata"]["to_agent"], switched["metadata"]["classification_method"]) == ("ask", "llm")


def test_route_train_keeps_weights_that_are_no_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled, held_out, output = tmp_path / "requests.tsv", tmp_path / "held.tsv", tmp_path / "ngrams.json"
    labelled.write_text(LABELLED, encoding="utf-8")
    held_out.write_text("coder\tcreate the button\ndebug\tit crashes\n", encoding="utf-8")
    command = ["route", "train", str(labelled), "--held-out", str(held_out), "--output", str(output)]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        "6 labelled requests, 0 that users changed by hand.",
        "Held-out requests that go to the right agent: 0 before, 2 now, of 2.",
        f"{output} is new.",
    ]
    first = output.read_bytes()
    assert {*load_model(output).weights} == {"coder", "debug"}
    swapped = LABELLED.replace("coder\t", "x\t").replace("debug\t", "coder\t").replace("x\t", "debug\t")
    labelled.write_text(swapped, encoding="utf-8")
    held_out.write_text("coder\tbutton\ndebug\thangs\n", encoding="utf-8")
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Held-out requests that go to the right agent: 2 before, 0 now, of 2.",
        f"{output} stays as it is.",
    ]
    assert output.read_bytes() == first


def test_route_train_refuses_to_judge_by_what_it_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = tmp_path / "requests.tsv"
    labelled.write_text(LABELLED, encoding="utf-8")
    assert main(["route", "train", str(labelled), "--held-out", str(labelled), "--output", str(tmp_path / "n")]) == 2
    assert "has requests to learn from as well, such as 'add a button'" in capsys.readouterr().err
    one_agent = tmp_path / "one.tsv"
    one_agent.write_text("coder\tcreate it\n", encoding="utf-8")
    held_out = tmp_path / "held.tsv"
    held_out.write_text("coder\tadd it\n", encoding="utf-8")
    assert main(["route", "train", str(one_agent), "--held-out", str(held_out), "--output", str(tmp_path / "n")]) == 2
    assert "no labelled requests of two agents" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"scale": 1, "weights": {"coder": "AAAA"}}', '{"scale": 1, "weights": {"coder": 1}}']
)
def test_broken_weights_are_refused_with_their_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ngrams.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"ngrams\.json has no weights of n-grams .* Make it with `route train`"):
        load_model(file)


def test_stored_weights_read_back_as_they_are() -> None:
    assert load_default_model().to_json() == MODEL_FILE.read_text(encoding="utf-8")
