"""Check the commands of git that only read, as far as git itself goes."""

from policy.shell import ShellCommand, Unproven, quote_word
from policy.signatures import check_signature, parse_signature
from policy.values import VALUE_CHECKS

COMMIT_SIGNATURE = (
    "-#pisuzRwb -n# -S: -G: -U# -M? -C? --all --branches --tags --remotes --oneline --graph --stat=? --shortstat "
    "--numstat --name-only --name-status --summary --decorate=? --no-decorate --abbrev-commit --abbrev=? --patch "
    "--no-patch --author=: --committer=: --grep=: --since=: --after=: --until=: --before=: --max-count=# --skip=# "
    "--date=: --format=: --pretty=? --merges --no-merges --first-parent --reverse --follow --full-history --topo-order "
    "--date-order --cherry-pick --left-right --color=? --no-color --word-diff=? --unified=# --ignore-all-space "
    "--ignore-space-change --find-renames=? --diff-filter=: --patch-with-stat --raw --no-ext-diff --no-textconv "
    "--dirstat=? --minimal --histogram --patience --no-renames --no-prefix REV*"
)
GIT_SIGNATURES: dict[str, str] = {
    "status": "-bsuvz --short --branch --porcelain=? --long --show-stash --ignored=? --untracked-files=? "
    "--ahead-behind --no-renames PATH*",
    "log": COMMIT_SIGNATURE,
    "show": COMMIT_SIGNATURE,
    "diff": COMMIT_SIGNATURE.replace("REV*", "--cached --staged --merge-base --check --exit-code --quiet REV*"),
    "whatchanged": COMMIT_SIGNATURE,
    "shortlog": "-censw --summary --numbered --email --all --no-merges --since=: --until=: REV*",
    "blame": "-ceflnpsw -L: -C? -M? --date=: --show-email --porcelain --line-porcelain --root REV+",
    "branch": "-arv --all --remotes --verbose --show-current --list --no-color --color=?",
    "tag": "-ln? --list --no-column",
    "remote": "-v --verbose",
    "stash": "LIST",
    "ls-files": "-cdmosktuvz --cached --deleted --modified --others --stage --exclude-standard --full-name "
    "--error-unmatch PATH*",
    "ls-tree": "-dlrtz --long --name-only --name-status --full-tree REV PATH*",
    "rev-parse": "--short=? --abbrev-ref=? --show-toplevel --show-prefix --is-inside-work-tree --git-dir --verify "
    "--quiet REV*",
    "rev-list": "-n# --all --count --max-count=# --no-merges --merges --since=: --until=: REV*",
    "describe": "--all --tags --long --always --dirty=? --abbrev=# --match=: --exact-match REV*",
    "merge-base": "--all --is-ancestor --fork-point REV+",
    "name-rev": "--name-only --tags REV+",
    "cat-file": "-epst REV",
    "grep": "-cEFGhHiIlLnoPqvw -e: -A# -B# -C# --count --line-number --name-only --files-with-matches --cached "
    "--ignore-case --word-regexp --fixed-strings --extended-regexp --perl-regexp --no-color --untracked TEXT REV*",
    "reflog": "-# -n# --oneline --date=: REV*",
    "check-ignore": "-v --verbose PATH+",
    "count-objects": "-vH --verbose --human-readable",
    "worktree": "LIST",
}
VALUE_CHECKS["LIST"] = lambda word: word.text == "list"


def check_git(command: ShellCommand) -> None:
    """Check the arguments of git. Raises Unproven if the command is not a known read.

    The programs that the repository's own configuration may run are not checked here.
    """
    words = command.words[1:]
    while words and words[0].text in ("--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"):
        words = words[1:]
    name = words[0].text if words else ""
    if name not in GIT_SIGNATURES or words[0].is_glob:
        raise Unproven(f"git {quote_word(name)} is not known to only read")
    check_signature(parse_signature(GIT_SIGNATURES[name]), ShellCommand(words, is_piped=False))
