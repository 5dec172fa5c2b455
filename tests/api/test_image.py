"""The container image: it has every file that the service needs, and knows its version."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import PROJECT_ROOT

COPIED = [
    source
    for line in re.findall(r"^COPY (?!--from)(.+)$", (PROJECT_ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for source in line.split()[:-1]
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Create a folder with the files that the Dockerfile copies, and no others."""
    for source in COPIED:
        path = PROJECT_ROOT / source
        if path.is_dir():
            shutil.copytree(path, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tmp_path)
    return tmp_path


def run_in(folder: Path, code: str) -> str:
    """Run the code in the folder, which is the only one it imports the project from; return its output."""
    return subprocess.check_output([sys.executable, "-c", code], cwd=folder, text=True, stderr=subprocess.STDOUT)


def test_copied_files_are_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text("utf-8").split() if line.startswith("!")}
    assert sent == set(COPIED)


def test_image_imports_the_service_and_its_commands(image: Path) -> None:
    assert run_in(image, "import server, cli.__main__; print(server.create_app.__name__)") == "create_app\n"


def test_version_is_the_one_of_pyproject(image: Path) -> None:
    version = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    code = "from api.version import VERSION; print(VERSION)"
    assert run_in(PROJECT_ROOT, code) == run_in(image, code) == f"{version}\n"


def test_version_of_an_installed_package_is_that_of_its_metadata(image: Path) -> None:
    (image / "pyproject.toml").unlink()
    (image / "agent_runtime-7.8.9.dist-info").mkdir()
    (image / "agent_runtime-7.8.9.dist-info" / "METADATA").write_text("Name: agent-runtime\nVersion: 7.8.9\n")
    assert run_in(image, "from api.version import VERSION; print(VERSION)") == "7.8.9\n"
