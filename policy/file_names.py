"""Know a file by its name, since the service sees no files."""

import re

FILE_NAME = re.compile(
    r"[^/]*\.(md|txt|rst|py|pyi|rb|rs|go|java|kt|c|h|cc|cpp|hpp|cs|ts|tsx|jsx|mjs|cjs|json|ya?ml|toml|xml|html|css|scss|csv"
    r"|tsv|log|sh|sql|lock|ini|cfg|example)",
    re.IGNORECASE,
)
"""Names of files. No folder is expected to have one; `vendor/three.js` may be a folder."""


def is_file_name(path: str) -> bool:
    """Return whether the last name is that of a file, by its extension."""
    return FILE_NAME.fullmatch(path.rpartition("/")[2]) is not None
