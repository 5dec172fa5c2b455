"""The workspace reads and writes nothing outside its root, and damages no file."""

import os
import stat
from pathlib import Path

import pytest

from ide.workspace import ToolError, Workspace


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", "link", "folder/secret.txt"])
@pytest.mark.parametrize("use", [Workspace.read_bytes, lambda w, p: w.write_bytes(p, b"x", create_dirs=True)])
def test_nothing_outside_the_workspace_is_read_or_written(workspace: Workspace, path: str, use: object) -> None:
    (workspace.root / "link").symlink_to("../secret.txt")
    (workspace.root / "folder").symlink_to("..")
    with pytest.raises(ToolError, match="leads out of the workspace"):
        use(workspace, path)  # type: ignore[operator]
    assert (workspace.root.parent / "secret.txt").read_text() == "secret"


def test_a_folder_swapped_for_a_link_after_the_check_is_not_followed(workspace: Workspace) -> None:
    (workspace.root / "folder").mkdir()
    names = workspace.locate("folder")
    (workspace.root / "folder").rmdir()
    (workspace.root / "folder").symlink_to("..")
    with pytest.raises(NotADirectoryError), workspace.open_folder(names):
        pass


def test_a_link_within_the_workspace_is_followed(workspace: Workspace) -> None:
    (workspace.root / "real.txt").write_text("here")
    (workspace.root / "link.txt").symlink_to("real.txt")
    workspace.write_bytes("link.txt", b"there")
    assert (workspace.root / "link.txt").is_symlink()
    assert workspace.read_bytes("real.txt") == b"there"


def test_a_write_keeps_the_mode_and_leaves_nothing_beside_the_file(workspace: Workspace) -> None:
    script = workspace.root / "run.sh"
    script.write_text("old")
    script.chmod(0o750)
    assert workspace.write_bytes("run.sh", b"new", backup=True) is False
    assert (script.read_text(), stat.S_IMODE(script.stat().st_mode)) == ("new", 0o750)
    assert {p.name: p.read_text() for p in workspace.root.iterdir()} == {"run.sh": "new", "run.sh.bak": "old"}


def test_a_failed_write_leaves_the_old_file_alone(workspace: Workspace) -> None:
    (workspace.root / "a.txt").write_text("old")
    (workspace.root / "a.txt.bak").mkdir()
    with pytest.raises(IsADirectoryError):
        workspace.write_bytes("a.txt", b"new", backup=True)
    assert sorted(os.listdir(workspace.root)) == ["a.txt", "a.txt.bak"]
    assert (workspace.root / "a.txt").read_text() == "old"


def test_a_pipe_is_refused_and_does_not_block(workspace: Workspace) -> None:
    os.mkfifo(workspace.root / "pipe")
    with pytest.raises(ToolError, match="not a regular file"):
        workspace.read_bytes("pipe")


def test_the_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Workspace(tmp_path / "nowhere")
