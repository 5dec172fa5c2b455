"""The version of the service. pyproject.toml is the only place with the number."""

import tomllib
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "agent-runtime"
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def read_version() -> str:
    """Return the version of the installed package; without one, that of the pyproject.toml beside `server.py`."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version: str = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["version"]
        return version


VERSION = read_version()
