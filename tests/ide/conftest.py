"""Fixtures of the IDE's tests: a workspace and a scripted service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ide.workspace import Workspace
from tests.support.scripted_service import ScriptedService


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return Workspace(tmp_path / "inside")


@pytest.fixture
async def service() -> AsyncIterator[ScriptedService]:
    async with ScriptedService() as running:
        yield running
