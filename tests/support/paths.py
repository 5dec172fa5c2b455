"""Folders of the project that tests read."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).parents[2]
CORPUS = PROJECT_ROOT / "tests" / "corpus"
