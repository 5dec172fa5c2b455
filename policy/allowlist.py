"""List the programs that are known to only read, and the permitted calls of each.

Add a program with the options that are harmless on GNU, BSD and BusyBox alike, in the notation of `policy.signatures`.
"""

PROGRAM_SIGNATURES: dict[str, str] = {
    "arch": "",
    "awk": "-F:RE AWK FILE+",
    "b2sum": "-btz --binary --text --tag FILE+",
    "base64": "-d -w#WIDTH --decode --wrap=#WIDTH FILE",
    "basename": "-az -s: --multiple --suffix=: PATH+",
    "cal": "-3mjy NUMBER?",
    "cat": "-AbeEnstTuv --number --number-nonblank --show-all --show-ends --show-tabs --show-nonprinting "
    "--squeeze-blank FILE+",
    "cd": "FOLDER",
    "cksum": "FILE+",
    "cmp": "-bls -n# -i# --bytes=# --silent --quiet --verbose --print-bytes PATH PATH",
    "column": "-txneJL -s: -o: -c#WIDTH -N: -R: -H: --table --separator=: --output-separator=: --table-columns=: "
    "--json --fillrows FILE+",
    "comm": "-123iz --check-order --nocheck-order --total --output-delimiter=: PATH PATH",
    "command": "!-vV < NAME+",
    "cut": "-nsz -b:RANGES -c:RANGES -d: -f:RANGES --bytes=:RANGES --characters=:RANGES --delimiter=: "
    "--fields=:RANGES --only-delimited --complement --output-delimiter=: --zero-terminated FILE+",
    "date": "-uR -I? --utc --universal --rfc-email --iso-8601=? --rfc-3339=: --date=:DAY DATE?",
    "df": "-ahHiklmPT --all --human-readable --inodes --local --total --print-type --si --type=: PATH*",
    "diff": "-abBcdEeinNpqrstTuwyZ -C# -U# -I:RE -x:GLOB -W#WIDTH --brief --report-identical-files --unified=? "
    "--context=? --side-by-side --suppress-common-lines --left-column --recursive --new-file --text --minimal "
    "--ignore-case --ignore-all-space --ignore-space-change --ignore-blank-lines --ignore-trailing-space "
    "--ignore-tab-expansion --ignore-matching-lines=:RE --strip-trailing-cr --exclude=:GLOB --width=#WIDTH --label=: "
    "--color=? --normal --no-dereference PATH PATH",
    "dirname": "-z --zero PATH+",
    "du": "-0abchklmPSsx -d# -t: --all --apparent-size --bytes --count-links --summarize --total --human-readable "
    "--inodes --si --max-depth=# --threshold=: --exclude=:GLOB --one-file-system --separate-dirs PATH*",
    "expand": "-i -t:TABS --initial --tabs=:TABS FILE",
    "false": "",
    "fd": "-01aFgHIisup -d# -e: -E:GLOB -t: -S: -c: --hidden --no-ignore --case-sensitive --ignore-case --glob "
    "--regex --fixed-strings --absolute-path --full-path --max-depth=# --min-depth=# --exact-depth=# --extension=: "
    "--exclude=:GLOB --type=: --size=: --max-results=# --color=: --changed-within=: --changed-before=: --print0 "
    "--quiet --strip-cwd-prefix --unrestricted RE? PATH*",
    "file": "-0bEhiIkLnNr -F: --brief --mime --mime-type --mime-encoding --extension --dereference --no-dereference "
    "--keep-going --no-pad --print0 --separator=: PATH+",
    "fmt": "-#cstu -w#WIDTH -g#WIDTH --width=#WIDTH --goal=#WIDTH --split-only --uniform-spacing FILE+",
    "fold": "-bs -w#WIDTH --bytes --spaces --width=#WIDTH FILE+",
    "free": "-bghkmltwv --bytes --kibi --mebi --gibi --human --total --wide --lohi --si",
    "grep": "-#abcEFGHhiILlnoPqrsTUvVwxyzZ -A:CONTEXT -B:CONTEXT -C:CONTEXT -m# -e:RE "
    "--after-context=:CONTEXT --before-context=:CONTEXT --context=:CONTEXT "
    "--max-count=# --regexp=:RE --count --ignore-case --no-ignore-case --invert-match --word-regexp --line-regexp "
    "--line-number --with-filename --no-filename --files-with-matches --files-without-match --only-matching --quiet "
    "--silent --no-messages --recursive --extended-regexp --fixed-strings --basic-regexp --perl-regexp --text "
    "--binary-files=: --include=:GLOB --exclude=:GLOB --exclude-dir=:GLOB --color=? --colour=? --null --initial-tab "
    "--byte-offset --line-buffered --label=: RE FILE+",
    "groups": "NAME*",
    "head": "-#qvz -c:HEAD -n:HEAD --bytes=:HEAD --lines=:HEAD --quiet --silent --verbose FILE+",
    "hexdump": "-bcCdovx -n# -s# --canonical --length=# --skip=# FILE+",
    "hostname": "-sI",
    "id": "-gGnruz --user --group --groups --name --real NAME?",
    "join": "-iz -1# -2# -j# -a# -v# -t: -o: -e: --ignore-case --header --check-order --nocheck-order PATH PATH",
    "jq": "-acCejMnrsS --ascii-output --compact-output --color-output --exit-status --join-output "
    "--monochrome-output --null-input --raw-output --slurp --sort-keys --tab --indent=#WIDTH JQ FILE+",
    "locale": "-a --all-locales",
    "logname": "",
    "ls": "-1@aAbBcCdeFfgGhHikLlmnNoOpPqQrRsStuUvxXZ -I:GLOB -w#WIDTH --all --almost-all --author --classify=? "
    "--color=? --context --dereference --directory --escape --file-type --format=: --full-time "
    "--group-directories-first --hide=:GLOB --human-readable --hyperlink=? --ignore=:GLOB --ignore-backups "
    "--indicator-style=: --inode --kibibytes --literal --no-group --numeric-uid-gid --quote-name --quoting-style=: "
    "--recursive --reverse --si --size --sort=: --block-size=: --time=: --time-style=:TIMESTYLE --width=#WIDTH "
    "--zero PATH*",
    "lscpu": "-aepJ --all --extended --json --parse",
    "md5": "-qr FILE+",
    "md5sum": "-btz --binary --text --tag FILE+",
    "netstat": "!-n -46aeilnprstuW --all --numeric --listening --tcp --udp --programs --route",
    "nl": "-p -b:FINITERE -n: -s: -h:FINITERE -w#WIDTH -v# -i# --body-numbering=:FINITERE --number-format=: "
    "--number-separator=: --number-width=#WIDTH --starting-line-number=# --line-increment=# FILE+",
    "nproc": "--all --ignore=#",
    "od": "-abcdfiloxsv -A: -t: -N# -j# -w#WIDTH --address-radix=: --format=: --read-bytes=# --skip-bytes=# "
    "--output-duplicates FILE+",
    "paste": "-sz -d:DELIMITER --delimiters=:DELIMITER --serial FILE+",
    "ps": "-aAdfFHjlLTwx -p: -C:NAME -o:COLUMNS -u: -U: --forest --headers --no-headers --pid=: --ppid=: --sort=: "
    "--format=:COLUMNS --user=: PS?",
    "pwd": "-LP",
    "readlink": "-efmnqsvz --canonicalize --canonicalize-existing --canonicalize-missing --no-newline --zero PATH+",
    "realpath": "-eLmPqsz --canonicalize-existing --canonicalize-missing --logical --physical --quiet --strip "
    "--no-symlinks --relative-to=PATH --relative-base=PATH --zero PATH+",
    "rev": "FILE+",
    "rg": "-.0bcFHhIilnNopPqsSUuvVwx -A:CONTEXT -B:CONTEXT -C:CONTEXT -m# -M# -d# "
    "-j#THREADS -e:RE -g:GLOB -r: -t: -T: --after-context=:CONTEXT --before-context=:CONTEXT --context=:CONTEXT "
    "--max-count=# --max-depth=# --max-columns=# --regexp=:RE --glob=:GLOB "
    "--iglob=:GLOB --type=: --type-not=: --type-list --replace=: --sort=: --sortr=: --color=: --count "
    "--count-matches --column --files --files-with-matches --files-without-match --fixed-strings --heading "
    "--no-heading --hidden --ignore-case --invert-match --json --line-number --no-line-number --line-regexp "
    "--multiline --multiline-dotall --no-config --no-filename --no-ignore --no-ignore-vcs --no-messages --null "
    "--only-matching --passthru --pcre2 --pretty --quiet --case-sensitive --smart-case --stats --text --trim "
    "--unrestricted --with-filename --word-regexp RE PATH*",
    "sed": "-nErsuz -e:SED --quiet --silent --regexp-extended --expression=SED SED FILE+",
    "seq": "-#w -s:TEXT -f:SEQFORMAT --equal-width --separator=:TEXT NUMBER NUMBER? NUMBER?",
    "shasum": "-bp -a# --algorithm=# FILE+",
    "sort": "-bcCdfghiMmnrRsuVz -k: -t: --check=? --dictionary-order --field-separator=: --general-numeric-sort "
    "--human-numeric-sort --ignore-case --ignore-leading-blanks --ignore-nonprinting --key=: --merge --month-sort "
    "--numeric-sort --random-sort --reverse --stable --unique --version-sort --zero-terminated FILE+",
    "ss": "-046aeHilmnopstuwx --all --extended --info --listening --numeric --processes --summary --tcp --udp",
    "stat": "-Ltx -c:STATFORMAT --format=:STATFORMAT --printf=:STATFORMAT --dereference --terse PATH+",
    "strings": "-af -n#SMALL -t: -e: --all --bytes=#SMALL --radix=: --encoding=: --print-file-name OBJECT+",
    "sum": "-rs FILE+",
    "tac": "-br -s:FINITERE --before --regex --separator=:FINITERE FILE+",
    "tail": "-#qrvz -c# -n# --bytes=# --lines=# --quiet --silent --verbose FILE+",
    "tr": "-cCdst --complement --delete --squeeze-repeats --truncate-set1 TRSET TRSET?",
    "tree": "-aACcDdFfghiJnNpqrsStuvxX -I:GLOB -L# -P:GLOB --charset=: --dirsfirst --du --filelimit=# --filesfirst "
    "--gitignore --ignore-case --matchdirs --noreport --prune --si --sort=: PATH*",
    "true": "",
    "tty": "-s",
    "type": "-afpPt NAME+",
    "uname": "-aimnoprsv --all --machine --nodename --operating-system --processor --kernel-name --kernel-release "
    "--kernel-version",
    "unexpand": "-a -t:TABS --all --first-only --tabs=:TABS FILE",
    "uniq": "< -cdDiuz -f# -s# -w# --count --repeated --unique --ignore-case --skip-fields=# --skip-chars=# "
    "--check-chars=# --zero-terminated FILE",
    "uptime": "-ps --pretty --since",
    "users": "",
    "wc": "-clLmw --bytes --chars --lines --max-line-length --words FILE+",
    "which": "-as --all NAME+",
    "who": "-abdHlmpqrstTu --all --boot --heading --count",
    "whoami": "",
    "xxd": "< -abCeEipu -c#WIDTH -g#WIDTH -l# -s# -o# FILE",
}

PROGRAM_ALIASES = {
    "egrep": "grep",
    "fgrep": "grep",
    "hd": "hexdump",
    "fdfind": "fd",
    "gawk": "awk",
    "mawk": "awk",
    **{f"sha{bits}sum": "md5sum" for bits in (1, 224, 256, 384, 512)},
}
"""Programs with the options of another one, which stands for them in every table."""
PROGRAM_SIGNATURES |= {alias: PROGRAM_SIGNATURES[name] for alias, name in PROGRAM_ALIASES.items()}


def resolve_alias(program: str) -> str:
    """Return the name of a program in the tables."""
    return PROGRAM_ALIASES.get(program, program)


VERSION_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["bash", "cc", "clang", "clang++", "cmake", "curl", "docker", "g++", "gcc", "git"], ("--version",)),
    **dict.fromkeys(["perl", "ruby", "sqlite3", "wget"], ("--version",)),
    **dict.fromkeys(["python", "python3"], ("--version", "-V")),
    **dict.fromkeys(["node", "php"], ("--version", "-v")),
}
"""The options with which a program only prints its version.

Programs that a project can replace are not listed: npm, yarn, go, cargo.
"""
