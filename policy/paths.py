"""Prove that a path is inside the workspace, on any client system. The check is lexical: the IDE resolves links."""

import re
import unicodedata

from textsafety import HIDDEN_CATEGORIES

WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
LOOKALIKES = set("∕⁄⧸╱⟋／＼⧵⧹∖╲⟍﹨．․﹒‥…：﹕︓꞉∶")
"""Characters that look like a slash, a backslash, a dot or a colon. Some systems turn them into one."""
MAX_PATH_BYTES = 4096
"""Bytes of a path: Linux opens no longer one (PATH_MAX)."""
MAX_NAME_BYTES = 255
"""Bytes of a name in it: the usual file systems have no longer one (NAME_MAX)."""

SCRIPT_JOINERS = re.compile(r"(?<=[^\x00-\u02ff\u2000-\u20ff])[\u200c\u200d](?=[^\x00-\u02ff\u2000-\u20ff])")
"""The joiners that some scripts and emoji need. Between other characters they are invisible and do nothing."""


def find_path_error(path: object) -> str | None:
    """Return why the path is refused, as the end of a sentence. None: it names something inside the workspace."""
    if not isinstance(path, str) or not path.strip():
        return "it is empty"
    if len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        return "it is too long"
    if any(unicodedata.category(char) in HIDDEN_CATEGORIES for char in SCRIPT_JOINERS.sub("", path)):
        return "it holds control or invisible characters"
    if error := next((why for pattern, why in PATH_ERRORS if pattern.search(path)), None):
        return error
    if LOOKALIKES & set(path):
        return "it holds a look-alike of a separator or a dot"
    return next((error for part in path.split("/") if (error := _find_name_error(part))), None)


PATH_ERRORS = (
    (re.compile(r"^/"), "it is absolute; use one relative to the workspace"),
    (re.compile(r"\\"), "it holds a backslash; separate folders by /"),
    (re.compile(r":"), "it holds a colon, which names a drive or a stream on some systems"),
    (re.compile(r"^[~～]"), "it begins with ~, which names a home folder"),
    (re.compile(r"[$`]|%[0-9A-Za-z_()]+%"), "it holds a variable"),
    (re.compile(r"%[0-9A-Fa-f]{2}"), "it holds a percent-escape"),
    (re.compile(r"[*?\[\]<>|\"{}]"), "it holds a wildcard or a character that no portable name has"),
)
"""Patterns of a whole path, and the reason that each gives. The first match decides."""


def _find_name_error(part: str) -> str | None:
    if part in ("", "."):
        return None
    if part == "..":
        return "'..' could leave the workspace"
    if part != part.strip() or part.endswith("."):
        return "a name in it begins or ends with a space, or ends with a dot"
    if len(part.encode()) > MAX_NAME_BYTES:
        return "a name in it is too long"
    if WINDOWS_RESERVED.match(part):
        return "it holds a name that Windows reserves"
    if re.fullmatch(r"\.git|git~\d+", unicodedata.normalize("NFKC", part).casefold()):
        return "the repository's own data is not to be touched"
    return None
