"""Compare the variables, options, aliases and traps of a shell before and after a line."""

import re
from collections.abc import Iterator

from tests.gate.clients import BUILTINS, read_chain
from tests.gate.implementations import Shell
from tests.gate.sandbox import Execution, Outcome, Sandbox
from tests.gate.verdicts import Violation

BEFORE, BETWEEN = "=== before the line", "=== after the line"
STATE = "set; set -o; alias; trap; umask; export"
PROBE = "{state}\necho; echo '{before}'\n{{\n{line}\n}} >/dev/null 2>&1 </dev/null\necho; echo '{between}'\n{state}\n"
VOLATILE = re.compile(
    r"(export |typeset -x |declare -x )?('?(_|\?|!|\$|0|status|pipestatus|PIPESTATUS|RANDOM|SRANDOM|SECONDS|LINENO"
    r"|BASH_\w+|_AST_FEATURES|EPOCH\w+|KSH_VERSION|PPID|TTYIDLE|HISTCMD|FUNCNAME|MATCH|MBEGIN|MEND|mat\w*|\.sh\.\w+|\.sh|sh)\b)"
)
"""Lines of variables that a shell sets by itself."""
FOLDER_VARIABLE = re.compile(r"(export |typeset -x |declare -x )?(PWD|OLDPWD|dirstack|DIRSTACK)=?")
"""Lines of variables that `cd` may change."""


def has_builtin(line: str) -> bool:
    """Return whether a command of the line may be a part of the shell itself."""
    return any(command.words[0].text in BUILTINS for command in read_chain(line))


def find_changed_variables(line: str, shell: Shell, sandbox: Sandbox) -> list[Violation]:
    """Run the line in the shell between two prints of its state; return what has changed."""
    script = PROBE.format(state=STATE, before=BEFORE, between=BETWEEN, line=line)
    programs = sandbox.installation.sets[0]
    outcome = sandbox.run(Execution((*shell.argv, script), programs, shell.name, is_traced=False))
    changes = list(_iterate_changes(line, outcome))
    way = f"{shell.name}, {programs.name}"
    return [Violation("variable", line, way, change) for change in changes]


def _iterate_changes(line: str, outcome: Outcome) -> Iterator[str]:
    text = outcome.output.decode("utf-8", "replace")
    first, _, rest = text.partition(f"\n{BEFORE}\n")
    _, is_complete, second = rest.partition(f"\n{BETWEEN}\n")
    if not is_complete:
        yield f"the shell did not reach the end of the line (exit {outcome.status}, {outcome.ending})"
        return
    may_move = any(command.words[0].text == "cd" for command in read_chain(line))
    before, after = _select_lines(first, may_move), _select_lines(second, may_move)
    for changed in sorted(before ^ after)[:3]:
        yield changed[:200]


def _select_lines(text: str, may_move: bool) -> set[str]:
    lines = {line for line in text.splitlines() if line and not VOLATILE.match(line)}
    return {line for line in lines if not (may_move and FOLDER_VARIABLE.match(line))}
