"""Settings by their present and by their former names."""

import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cli.__main__ import main
from graph.setting_aliases import FORMER_NAMES
from graph.settings import Settings

VALUES: dict[str, Any] = {
    "max_turn_model_calls": 7,
    "max_turn_tool_calls": 8,
    "max_turn_tokens": 9,
    "max_turn_cost": Decimal("1.5"),
    "max_session_tokens": 10,
    "max_session_cost": Decimal("2.5"),
    "multitask_strategy": "reject",
    "max_queued_messages": 3,
    "queue_timeout_seconds": 4.5,
}
PRICES = '{"*": {"prompt": 1, "completion": 1}}'


@pytest.fixture(autouse=True)
def prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__PRICES", PRICES)


def make_settings(**values: Any) -> Settings:
    """Build settings from the environment, from `_env_file` and from the other values."""
    return Settings(**{"_env_file": None, **values})


def names_of_faults(error: ValidationError) -> list[tuple[int | str, ...]]:
    return [fault["loc"] for fault in error.errors()]


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_former_name_is_accepted(former: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = FORMER_NAMES[former]
    file = tmp_path / ".env"
    file.write_text(f"AGENT_RUNTIME__{former.upper()}={VALUES[name]}\n")
    from_file = make_settings(_env_file=file)
    from_keyword = make_settings(**{former: VALUES[name]})
    monkeypatch.setenv(f"AGENT_RUNTIME__{former.upper()}", str(VALUES[name]))
    from_environment = make_settings()
    assert Settings.model_fields[name].default != VALUES[name]
    for settings in (from_file, from_keyword, from_environment):
        assert getattr(settings, name) == VALUES[name]


def test_every_former_name_stands_for_a_setting() -> None:
    assert set(FORMER_NAMES.values()) == VALUES.keys() <= Settings.model_fields.keys()
    assert not FORMER_NAMES.keys() & Settings.model_fields.keys()


def test_present_name_wins_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / ".env"
    file.write_text("AGENT_RUNTIME__MAX_TURN_TOKENS=1\nAGENT_RUNTIME__TURN_TOKENS=2\n")
    assert make_settings(_env_file=file).max_turn_tokens == 1
    assert make_settings(turn_tokens=2, max_turn_tokens=1).max_turn_tokens == 1
    monkeypatch.setenv("AGENT_RUNTIME__TURN_TOKENS", "2")
    monkeypatch.setenv("AGENT_RUNTIME__MAX_TURN_TOKENS", "1")
    assert make_settings().max_turn_tokens == 1
    warning = (
        "agent_runtime.settings",
        logging.WARNING,
        "AGENT_RUNTIME__TURN_TOKENS is ignored, because AGENT_RUNTIME__MAX_TURN_TOKENS is set too.",
    )
    assert caplog.record_tuples == [warning] * 3


def test_environment_goes_before_the_file_by_a_former_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("AGENT_RUNTIME__SESSION_QUEUE=1\n")
    monkeypatch.setenv("AGENT_RUNTIME__SESSION_QUEUE", "2")
    assert make_settings(_env_file=file).max_queued_messages == 2
    assert make_settings(_env_file=file, session_queue=3).max_queued_messages == 3


def test_former_name_alone_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert make_settings(turn_tokens=2).max_turn_tokens == 2
    assert caplog.record_tuples == []


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_fault_names_the_variable_that_was_written(former: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = FORMER_NAMES[former]
    for written in (former, name):
        with pytest.raises(ValidationError) as by_keyword:
            make_settings(**{written: "-wrong-"})
        monkeypatch.setenv(f"AGENT_RUNTIME__{written.upper()}", "-wrong-")
        with pytest.raises(ValidationError) as by_environment:
            make_settings()
        monkeypatch.delenv(f"AGENT_RUNTIME__{written.upper()}")
        for error in (by_keyword.value, by_environment.value):
            assert names_of_faults(error) == [(written,)]
            assert "-wrong-" not in str(error)


def test_faults_of_several_settings_keep_their_sentences() -> None:
    with pytest.raises(ValidationError) as error:
        make_settings(turn_tokens=-1, max_session_tokens=-1, port="x", db_url="mysql://x")
    faults = {".".join(map(str, fault["loc"])): fault["msg"] for fault in error.value.errors()}
    assert faults == {
        "turn_tokens": "Input should be greater than or equal to 0",
        "max_session_tokens": "Input should be greater than or equal to 0",
        "port": "Input should be a valid integer, unable to parse string as an integer",
        "db_url": "Value error, it must begin with sqlite:/// or postgresql://",
    }


@pytest.mark.parametrize("written", ["turn_money", "max_turn_cost", "session_money", "max_session_cost"])
def test_limit_of_money_needs_prices(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_RUNTIME__PRICES")
    with pytest.raises(ValidationError, match="needs AGENT_RUNTIME__PRICES") as error:
        make_settings(**{written: 1})
    assert names_of_faults(error.value) == [(written,)]


def test_command_line_names_the_variable_that_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__TURN_TOKENS", "many")
    assert main(["matrix"]) == 2
    assert capsys.readouterr().err.startswith("AGENT_RUNTIME__TURN_TOKENS: Input should be a valid integer")
