"""Find the escapes that make a program print a control character: a terminal obeys sequences of them."""

CONTROL_ESCAPES = frozenset("abcCeEfMNoOuUvxX0123456789^")
"""The characters that begin such an escape behind a backslash, in any program. Tabs and line ends are harmless."""


def has_control_escape(text: str) -> bool:
    """Return whether a backslash of the text begins an escape for a control character, or one by number."""
    position = text.find("\\")
    while position >= 0:
        if text[position + 1 : position + 2] in CONTROL_ESCAPES:
            return True
        position = text.find("\\", position + 2)
    return False


def is_printable_set(text: str) -> bool:
    """Return whether the second set of tr has no control character: no such escape, class, or range from one."""
    classes = text.replace("[:lower:]", "").replace("[:upper:]", "")
    return "[:" not in classes and "[=" not in classes and not has_control_escape(text) and not _has_open_range(text)


def _has_open_range(text: str) -> bool:
    return any(f"\\{letter}-" in text for letter in "ntr")
