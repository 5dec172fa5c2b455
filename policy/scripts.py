"""The small part of sed, awk and jq that can neither write, nor run a program, nor read the environment."""

import re

LONGEST = 400
"""Characters of a script that is looked at."""

_REGEX = r"/(?:[^/\\]|\\.)*/I?"
_ADDRESS = rf"(?:\d+(?:~\d+)?|\$|{_REGEX})"
_SUBSTITUTE = "|".join(rf"s\{d}(?:[^\{d}\\]|\\.)*\{d}(?:[^\{d}\\]|\\.)*\{d}[gpIi0-9]*" for d in "/|#,")
_COMMAND = rf"(?:{_ADDRESS}(?:,(?:{_ADDRESS}|\+\d+))?)?\s?!?\s?(?:[pdl=]|[qQ]\d*|{_SUBSTITUTE})"
SED = re.compile(rf"\s?{_COMMAND}(?:\s?;\s?{_COMMAND})*\s?;?")
AMBIGUOUS = re.compile(r"\[[^\]]*[/|#,]")
"""A delimiter in brackets: programs differ about where the expression ends."""


def is_sed(script: str) -> bool:
    return len(script) <= LONGEST and not AMBIGUOUS.search(script) and SED.fullmatch(script) is not None


AWK_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)
    |(?P<regex>/(?:[^/\\\[]|\\.|\[[^\]/]*\])+/)|(?P<mark>&&|\|\||[=!<>]=|[-+*/%]=|\+\+|--|[-+*/%=!<>~,;?:$(){}\[\]]))\s*""",
    re.VERBOSE,
)
AWK_WORDS = re.compile(
    "BEGIN|END|NR|NF|FNR|FS|OFS|FILENAME|print|printf|length|in|next|if|else|exit|substr|index|split|match|sub|gsub"
    "|tolower|toupper|sprintf|int"
)
RESERVED = re.compile(
    "getline|system|close|fflush|while|for|do|function|func|delete|return|nextfile|switch|case|default|break|continue"
    "|include|load"
)
EACH = re.compile(r"for\s*\(\s*[a-z]\w*\s+in\s+[a-z]\w*\s*\)")
"""The one loop that ends."""
AWK_OPERANDS = {"string", "number", "name"}


def is_awk(script: str) -> bool:
    """No output but to standard output, no input but the files, no loop, no call of what is not listed."""
    depth = position = 0
    kind, text = "", ""
    script = EACH.sub("", script)
    while position < len(script):
        token = AWK_TOKEN.match(script, position)
        if token is None or len(script) > LONGEST:
            return False
        if token["mark"] is None and token["regex"] and _is_operand(kind, text):
            token = re.compile(r"\s*(?P<mark>/=?)\s*").match(script, position)
            assert token
        kind, text = token.lastgroup or "", token[token.lastgroup or ""]
        position = token.end()
        if kind == "name" and not AWK_WORDS.fullmatch(text) and not _is_variable(text, script[position : position + 1]):
            return False
        if text == ">" and depth:
            return False
        depth += {"{": 1, "}": -1}.get(text, 0)
        if depth < 0:
            return False
    return bool(script.strip()) and (depth == 0 or ">" not in script)


def _is_operand(kind: str, text: str) -> bool:
    return (kind in AWK_OPERANDS and text not in ("print", "in", "else")) or text in (")", "]", "++", "--")


def _is_variable(name: str, following: str) -> bool:
    return name.islower() and len(name) <= 20 and not RESERVED.fullmatch(name) and following != "("


JQ_CHARACTERS = re.compile(r"""[\w\s.,:;|?<>=!()\[\]{}"'@/*+%\\-]+""")
JQ_DENIED = re.compile(
    r"(?<![.\w\"])(env|import|include|inputs?|input_filename|debug|stderr|halt|halt_error|range|repeat|until|while|recurse"
    r"|def|reduce|foreach|label|limit|getpath|modulemeta|get_search_list|combinations|walk)\b"
)
"""What reads the environment or other files, or need not end. Nothing in jq writes or runs."""


def is_jq(script: str) -> bool:
    known = len(script) <= LONGEST and JQ_CHARACTERS.fullmatch(script) and not JQ_DENIED.search(script)
    return bool(known and script.strip())
