from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ide.workspace import Workspace
from tests.ide.scripted import Service


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return Workspace(tmp_path / "inside")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service() as running:
        yield running
