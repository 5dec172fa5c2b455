"""Recognize the scripts of sed, awk and jq that cannot write, run a program or read the environment."""

import re

MAX_SCRIPT_LENGTH = 400
"""Characters of a script. Scripts that people write in a command are shorter; chosen, not measured."""
MAX_VARIABLE_LENGTH = 20
"""Characters of a variable of awk. Names in short scripts are shorter; chosen, not measured."""

_REGEX = r"/(?:[^/\\]|\\.)*+/I?+"
_ADDRESS = rf"(?:\d++(?:~\d++)?+|\$|{_REGEX})"
_SUBSTITUTE = "|".join(rf"s\{d}(?:[^\{d}\\]|\\.)*+\{d}(?:[^\{d}\\]|\\.)*+\{d}[gpIi0-9]*+" for d in "/|#,")
_COMMAND = rf"(?:{_ADDRESS}(?:,(?:{_ADDRESS}|\+\d++))?+\s*+)?+(?:!\s*+)?+(?:[pdl=]|[qQ]\d*+|{_SUBSTITUTE})"
SED_SCRIPT = re.compile(rf"\s*+{_COMMAND}(?:\s*+;\s*+{_COMMAND})*+\s*+;?+\s*+")
PLAIN_BRACKETS = re.compile(r"\\.|\[\^?[^\\\[\]/|#,]+\]")
"""The bracket expressions with one reading. Others can hide a delimiter: programs differ about their end."""


def is_safe_sed(script: str) -> bool:
    """Return whether the script only prints, deletes, substitutes and quits."""
    ambiguous = re.search(r"[\[\]]", PLAIN_BRACKETS.sub("", script))
    return len(script) <= MAX_SCRIPT_LENGTH and not ambiguous and SED_SCRIPT.fullmatch(script) is not None


AWK_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*+")|(?P<number>\d++(?:\.\d++)?+)|(?P<name>[A-Za-z_]\w*+)
    |(?P<mark>&&|\|\||!~|[=!<>]=|[-+*%]=|\+\+|--|[-+*%=!<>~,;?:$(){}\[\]]))\s*""",
    re.VERBOSE,
)
AWK_REGEX = re.compile(r"""\s*/(?:[^/\\\[\]"\s]|\\[^/"\s]|[ ])+/\s*""")
BEFORE_REGEX = {"~", "!~", "!", ",", "&&", "||", "("}
"""The tokens, beside the beginning, after which a slash starts an expression and cannot divide.

After other tokens programs differ.
"""
AWK_WORDS = re.compile(
    "BEGIN|END|NR|NF|FNR|FS|OFS|FILENAME|print|printf|length|in|next|if|else|exit|substr|index|split|match|sub|gsub"
    "|tolower|toupper|sprintf|int"
)
AWK_RESERVED = re.compile(
    "getline|system|close|fflush|while|for|do|function|func|delete|return|nextfile|switch|case|default|break|continue"
    "|include|load"
)
FOR_IN_LOOP = re.compile(r"for\s*\(\s*[a-z]\w*\s+in\s+[a-z]\w*\s*\)")
"""The only loop that is sure to end."""


def is_safe_awk(script: str) -> bool:
    """Return whether the script is proven harmless.

    It writes to standard output only and reads its files only. It has no endless loop, and calls listed functions only.
    """
    script = FOR_IN_LOOP.sub(" ", script)
    depth, position, last = 0, 0, "~"  # at the beginning, as after ~, a slash starts an expression
    while position < len(script):
        regex = AWK_REGEX.match(script, position) if last in BEFORE_REGEX else None
        token = regex or AWK_TOKEN.match(script, position)
        if token is None or len(script) > MAX_SCRIPT_LENGTH:
            return False
        name, last = token.groupdict().get("name"), token[0].strip()
        position = token.end()
        if name and not AWK_WORDS.fullmatch(name) and not _is_variable(name, script[position : position + 1]):
            return False
        depth += {"{": 1, "}": -1}.get(last, 0)
        if depth < 0 or (last.startswith(">") and depth):
            return False
    return bool(script.strip()) and (depth == 0 or ">" not in script)


def _is_variable(name: str, following: str) -> bool:
    return name.islower() and len(name) <= MAX_VARIABLE_LENGTH and not AWK_RESERVED.fullmatch(name) and following != "("


JQ_CHARACTERS = re.compile(r"""[\w\s.,:;|?<>=!()\[\]{}"'@/*+%\\-]+""")
JQ_DENIED = re.compile(
    r"(?<![.\w\"])(env|import|include|inputs?|input_filename|debug|stderr|halt|halt_error|range|repeat|until|while|recurse"
    r"|def|reduce|foreach|label|limit|getpath|modulemeta|get_search_list|combinations|walk)\b"
)
"""The words of jq that read the environment or other files, or that need not end. No word of jq writes or runs."""


def is_safe_jq(script: str) -> bool:
    """Return whether the script only reads its files and ends."""
    is_plain = len(script) <= MAX_SCRIPT_LENGTH and JQ_CHARACTERS.fullmatch(script) and not JQ_DENIED.search(script)
    return bool(is_plain and script.strip())
