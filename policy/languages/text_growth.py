"""Bound how much longer substitutions make a line."""


class TextGrowth:
    """The length of a line after substitutions, for each byte that it had: copies multiply, literal texts add."""

    def __init__(self) -> None:
        self._factor = 1
        self._constant = 0

    @property
    def total(self) -> int:
        return self._factor + self._constant

    def substitute(self, regex: str, copies: int, literals: int, *, everywhere: bool) -> None:
        """Count a substitution that writes the match, or a part of it, `copies` times, and `literals` characters."""
        shortest = _shortest_match(regex)
        if everywhere:
            added = -(-literals // max(1, shortest)) + (1 if literals and not shortest else 0)
            factor = max(1, copies + added)
            self._factor *= factor
            self._constant *= factor
        else:
            self._factor *= max(1, copies)
            self._constant = self._constant * max(1, copies) + max(0, literals - shortest)


def _shortest_match(regex: str) -> int:
    """Return a lower bound of the characters that the expression matches: 1 for a set or a dot alone, 0 if unknown."""
    if any(character in regex for character in "*?{|\\^$(+"):
        return 0
    return 1 if "[" in regex else len(regex)
