"""Prove that a path is inside the workspace, on any client system. The check is lexical: the IDE resolves links."""

import re
import unicodedata

from policy.glob_readings import expand_braces, may_be_forbidden
from policy.globs import fold_name
from textsafety import HIDDEN_CATEGORIES

WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
COLONS = "：﹕︓꞉∶"
LOOKALIKES = set("∕⁄⧸╱⟋／＼⧵⧹∖╲⟍﹨．․﹒‥")
"""Characters that look like a slash, a backslash or a dot. Some systems turn them into one."""
MORE_LOOKALIKES = LOOKALIKES | {*COLONS, "…"}
"""Those of a colon or of several dots as well, which do no harm in most names."""
MAX_PATH_BYTES = 4096
"""Bytes of a path: Linux opens no longer one (PATH_MAX)."""
MAX_NAMES = 256
"""Names of a path. A comparison with a glob takes time for each; chosen, not measured."""
MAX_NAME_BYTES = 255
"""Bytes of a name in it: the usual file systems have no longer one (NAME_MAX)."""

SCRIPT_JOINERS = re.compile(r"(?<=[^\x00-\u02ff\u2000-\u20ff])[\u200c\u200d](?=[^\x00-\u02ff\u2000-\u20ff])")
"""The joiners that some scripts and emoji need. Between other characters they are invisible and do nothing."""


def find_path_error(path: object) -> str | None:
    """Return why the path is refused, as the end of a sentence. None: it names something inside the workspace.

    The path may be a word of a command, so it holds nothing that a program or a shell expands.
    """
    if error := _find_text_error(path):
        return error
    text = str(path)
    if error := next((why for pattern, why in (*PATH_ERRORS, *WORD_ERRORS) if pattern.search(text)), None):
        return error
    if MORE_LOOKALIKES & set(text):
        return "it holds a look-alike of a separator or a dot"
    return next((error for part in text.split("/") if (error := _find_name_error(part))), None)


def find_argument_error(path: object) -> str | None:
    """Return why the path of a tool is refused, as `find_path_error` does.

    No tool expands its path. So brackets, braces and `$name` pass, as in `[slug]` and `$id.tsx`, unless a client that
    expands them is led out, or into the repository's data.
    """
    if error := _find_text_error(path):
        return error
    text = str(path)
    if error := next((why for pattern, why in (*PATH_ERRORS, *ARGUMENT_ERRORS) if pattern.search(text)), None):
        return error
    if LOOKALIKES & set(text):
        return "it holds a look-alike of a separator or a dot"
    alternatives = expand_braces(text)
    if alternatives is None:
        return "its braces are not closed, or have too many alternatives"
    parts = {part for each in (text, *alternatives) for part in each.split("/")}
    if any("[" in part and may_be_forbidden(part) for part in parts):
        return "its brackets could be read as a name that is refused"
    return next((error for part in sorted(parts) if (error := _find_name_error(part))), None)


def _find_text_error(path: object) -> str | None:
    if not isinstance(path, str) or not path.strip():
        return "it is empty"
    if len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES or path.count("/") >= MAX_NAMES:
        return "it is too long"
    if any(unicodedata.category(char) in HIDDEN_CATEGORIES for char in SCRIPT_JOINERS.sub("", path)):
        return "it holds control or invisible characters"
    return None


PATH_ERRORS = (
    (re.compile(r"^/"), "it is absolute; use one relative to the workspace"),
    (re.compile(r"\\"), "it holds a backslash; separate folders by /"),
    (re.compile(r":"), "it holds a colon, which names a drive or a stream on some systems"),
    (re.compile(r"^[~～]"), "it begins with ~, which names a home folder"),
    (re.compile(r"`|%[0-9A-Za-z_()]+%"), "it holds a variable"),
    (re.compile(r"[*?<>|\"]"), "it holds a wildcard or a character that no portable name has"),
)
"""Patterns of a whole path, and the reason that each gives. The first match decides."""
WORD_ERRORS = (
    (re.compile(r"\$"), "it holds a variable"),
    (re.compile(r"%[0-9A-Fa-f]{2}"), "it holds a percent-escape"),
    (re.compile(r"[\[\]{}]"), "it holds a wildcard or a character that no portable name has"),
)
"""Further patterns, of a word of a command."""
WINDOWS_VARIABLES = (
    "home|pwd|env|temp|tmp|profile|pshome|psscriptroot|userprofile|homepath|homedrive|appdata|localappdata|programdata"
    "|programfiles|public|systemdrive|systemroot|windir|allusersprofile|onedrive"
)
ARGUMENT_ERRORS = (
    (re.compile(rf"\$(?![a-z./]|$)|\$\{{|\$({WINDOWS_VARIABLES})(?![a-zA-Z0-9_])"), "it holds a variable"),
    (re.compile(r"%(?!25(?![0-9A-Fa-f]{2}))[0-9A-Fa-f]{2}"), "it holds a percent-escape"),
    (re.compile(rf"^[A-Za-z][{COLONS}]"), "it holds a look-alike of a colon, which names a drive"),
)
"""Further patterns, of the path of a tool. Variables of the environment have capitals, but for those of Windows."""


def _find_name_error(part: str) -> str | None:
    if part in ("", "."):
        return None
    if part == "..":
        return "'..' could leave the workspace"
    if part != part.strip() or part.endswith(".") or not fold_name(part).strip(". "):
        return "a name in it begins or ends with a space, or ends with a dot"
    if len(part.encode()) > MAX_NAME_BYTES:
        return "a name in it is too long"
    if WINDOWS_RESERVED.match(part):
        return "it holds a name that Windows reserves"
    if REPOSITORY_DATA.fullmatch(fold_name(part)):
        return "the repository's own data is not to be touched"
    return None


REPOSITORY_DATA = re.compile(r"(\.git|git~\d+|gi[0-9a-f]{4}~\d+)([:∶꞉].*)?", re.DOTALL)
"""The folder `.git`, and its short names on Windows, with or without a stream."""
