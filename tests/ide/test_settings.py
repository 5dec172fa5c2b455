"""The IDE finds the address and the key of its service."""

from pathlib import Path

import pytest

from ide.__main__ import parse_arguments
from ide.settings import SETTING_PREFIX, get_service_key


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, without any setting; return it."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "INTERNAL_API_KEY"):
        monkeypatch.delenv(SETTING_PREFIX + name, raising=False)
    return tmp_path


def test_default_address_has_no_key() -> None:
    assert (parse_arguments(["."]).url, get_service_key()) == ("http://127.0.0.1:8001", "")


def test_environment_overrides_the_env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("HOST=localhost", "PORT=9001", "INTERNAL_API_KEY='a key'")
    (folder / ".env").write_text("".join(f"{SETTING_PREFIX}{line}\n" for line in lines))
    assert (parse_arguments(["."]).url, get_service_key()) == ("http://localhost:9001", "a key")
    monkeypatch.setenv(f"{SETTING_PREFIX}PORT", "9002")
    monkeypatch.setenv(f"{SETTING_PREFIX}INTERNAL_API_KEY", "")
    assert (parse_arguments(["."]).url, get_service_key()) == ("http://localhost:9002", "")
    assert parse_arguments([".", "--url", "http://there"]).url == "http://there"


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("there", "there")]
)
def test_wildcard_host_becomes_loopback(monkeypatch: pytest.MonkeyPatch, host: str, shown: str) -> None:
    monkeypatch.setenv(f"{SETTING_PREFIX}HOST", host)
    assert parse_arguments(["."]).url == f"http://{shown}:8001"
