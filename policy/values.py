"""The checks of the values of options and operands, by kind."""

import re
from collections.abc import Callable

from policy.languages import awk, formats, jq, regexes, sed
from policy.languages.escapes import has_control_escape
from policy.limits import MAX_SMALL_COUNT, MAX_THREADS
from policy.paths import find_path_error
from policy.patterns import find_pattern_error
from policy.shell import ShellWord


def _is_path(word: ShellWord) -> bool:
    """Return whether the word, and each name that it expands to, is inside the workspace. A dash is the input."""
    if word.text == "-":
        return False
    if word.is_literal:
        return not OUTSIDE_WORKSPACE.search(word.text)
    if word.is_glob:
        return is_safe_glob(word.text) and not find_pattern_error(word.text)
    return not find_path_error(word.text)


OUTSIDE_WORKSPACE = re.compile(
    r"^[/~]|^\\\\|(^|[/\\=])\.\.([/\\]|$)|=[/~]|^[A-Za-z]:|(^|[/\\])\.git([/\\]|$)", re.IGNORECASE
)
"""The parts that no path inside the workspace has, even where no shell expands it."""


def is_safe_glob(glob: str) -> bool:
    """Return whether no match can be taken for an option, for the folder above, or for the repository's data."""
    return not re.match(r"[*?\[]", glob) and not re.search(r"(^|/)\.[^/]*[*?\[]", glob)


def _is_text(word: ShellWord) -> bool:
    return not word.is_glob or not re.match(r"[*?\[-]", word.text)


PS_COLUMNS = frozenset(
    {
        *("%cpu", "%mem", "args", "cmd", "comm", "command", "cputime", "egroup", "etime", "etimes", "euser"),
        *("gid", "group", "lstart", "ni", "nice", "nlwp", "pcpu", "pgid", "pid", "pmem", "ppid", "pri"),
        *("psr", "rgroup", "rss", "rssize", "ruser", "sess", "sid", "stat", "state", "stime", "thcount"),
        *("time", "tname", "tpgid", "tt", "tty", "ucmd", "uid", "user", "vsize", "vsz", "wchan"),
    }
)
"""The columns of ps that show no environment."""
RANGE = re.compile(r"\d{1,6}(?:-\d{0,6})?|-\d{1,6}")
"""A range of fields or bytes. Six digits: some programs allocate memory for the highest number."""


def _make_matcher(pattern: str) -> Callable[[ShellWord], bool]:
    compiled = re.compile(pattern)
    return lambda word: compiled.fullmatch(word.text) is not None


VALUE_CHECKS: dict[str, Callable[[ShellWord], bool]] = {
    "#": _make_matcher(r"[+-]?\d{1,9}[bkKmMG]?"),  # nine digits fit 32 bits
    "CONTEXT": _make_matcher(r"\d{1,6}"),  # lines that a program may keep; some allocate memory for the number
    "HEAD": _make_matcher(r"\+?\d{1,9}[bkKmMG]?|-\d{1,6}"),  # all but the last ones: some allocate memory for them
    ":": lambda word: bool(word.text) and not word.text.startswith("-") and _is_text(word),
    "?": lambda word: True,
    "PATH": _is_path,
    "FILE": lambda word: word.text == "-" or _is_path(word),
    "FOLDER": lambda word: word.text[:1] not in "+-" and not word.is_glob and _is_path(word),
    "OBJECT": lambda word: not word.text.startswith("@") and _is_path(word),
    "DAY": lambda word: "TZ" not in word.text and re.search(r"[A-Za-z@:]|\d-", word.text) is not None,
    "TEXT": lambda word: True,
    "RE": lambda word: not word.text.startswith("-") and regexes.is_bounded_regex(word.text),
    "FINITERE": lambda word: not word.text.startswith("-") and regexes.is_finite_regex(word.text),
    "DELIMITER": lambda word: not word.text.startswith("-") and _is_text(word) and not has_control_escape(word.text),
    "GLOB": lambda word: bool(word.text) and _is_text(word) and regexes.is_bounded_glob(word.text),
    "TRSET": lambda word: "*" not in word.text.partition("[")[2],  # [x*N] repeats a character
    "WIDTH": lambda word: formats.is_width(word.text),
    "TABS": lambda word: formats.is_width_list(word.text),
    "RANGES": lambda word: all(RANGE.fullmatch(part) for part in word.text.split(",")),
    "SMALL": lambda word: word.text.isascii() and word.text.isdigit() and int(word.text[:9]) <= MAX_SMALL_COUNT,
    "THREADS": lambda word: word.text.isascii() and word.text.isdigit() and int(word.text[:9]) <= MAX_THREADS,
    "COLUMNS": lambda word: set(re.split("[,= ]", word.text)) <= PS_COLUMNS | {""},
    "SEQFORMAT": lambda word: formats.is_safe_seq_format(word.text),
    "STATFORMAT": lambda word: formats.is_safe_stat_format(word.text),
    "TIMESTYLE": lambda word: (
        re.fullmatch(r"full-iso|long-iso|iso|locale", word.text) is not None
        or (word.text.startswith("+") and formats.is_safe_date_format(word.text))
    ),
    "NUMBER": _make_matcher(r"\d{1,6}(\.\d{1,6})?"),
    "NAME": _make_matcher(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"),
    "DATE": lambda word: word.text.startswith("+") and formats.is_safe_date_format(word.text),
    "PS": _make_matcher(r"[aAfjlrTuwx]{1,6}"),
    "REV": lambda word: _is_revision(word.text),
    "SED": lambda word: sed.measure_sed(word.text) is not None,
    "AWK": lambda word: awk.measure_awk(word.text, is_literal=word.is_literal) is not None,
    "JQ": lambda word: jq.measure_jq(word.text, is_literal=word.is_literal) is not None,
}
"""The check of each kind of value; `policy.expressions` adds its own."""


def _is_revision(text: str) -> bool:
    """Return whether the text is a commit, a range, a file of a commit, or a path, and stays in the workspace."""
    revision, colon, path = text.partition(":")
    if colon and (not revision or find_path_error(path)):
        return False
    return bool(re.fullmatch(r"[\w@./^~+-]+", revision)) and not find_path_error(
        revision.replace("@", "").replace("^", "") or "x"
    )
