"""Fixtures of the IDE's tests: a workspace, a scripted service, and the sandboxes that this system has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ide.landlock import find_abi
from ide.sandbox import Sandbox, SandboxKind, works_with_bwrap
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


@pytest.fixture(params=[SandboxKind.LANDLOCK, SandboxKind.BWRAP])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each sandbox that this system has; a test is skipped for one that is missing."""
    abi = find_abi()
    if request.param is SandboxKind.LANDLOCK and not abi:
        pytest.skip("This kernel has no Landlock.")
    if request.param is SandboxKind.BWRAP and not works_with_bwrap():
        pytest.skip("bwrap is not installed, or it may not create namespaces here.")
    return Sandbox(request.param, abi)
