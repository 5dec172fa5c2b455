"""Match a request of the offline model with an intent, and start its story."""

import re
from collections.abc import Callable
from typing import NamedTuple

from graph.offline import stories
from graph.offline.turn import Story, Turn


class Intent(NamedTuple):
    """A kind of request that the offline model understands."""

    agent: str
    """The agent whose tools are enough for the whole story."""
    pattern: str
    """A pattern for the beginning of the request, after polite words. Its groups are the story's arguments."""
    story: Callable[..., Story]


def start_story(turn: Turn) -> tuple[str, Story]:
    """Return the story of the first intent that matches, with its agent; the default is a question to the user."""
    request = re.sub(POLITE_PREFIX, "", turn.request[:MAX_MATCHED_CHARS].strip(), flags=re.IGNORECASE)
    for agent, pattern, story in INTENTS:
        if match := re.match(pattern, request, re.IGNORECASE | re.DOTALL):
            return agent, story(turn, **match.groupdict())
    return "coder", stories.clarify(turn)


MAX_MATCHED_CHARS = 2_000
"""Characters of a request that are matched. Bounds the time of the patterns; chosen, not measured."""
POLITE_PREFIX = (
    r"^(?:(?:please|can you|could you|would you|i (?:want|need)(?: you)? to|let's|now|then|also|ok|hi|hello"
    r"|пожалуйста|можешь|можете|давай|теперь|затем|нужно|надо|привет|as (?:an? |the )?\w+|как архитектор)\b[\s,:]*)+"
)
PATH_PATTERN = r"[`'\"«]?(?P<path>[\w./-]*\w\.\w+|(?:[\w./-]*/)?(?:Makefile|Dockerfile|LICENSE|README))\b[`'\"»]?"

INTENTS = [
    Intent(
        "coder",
        r"(?:switch to|hand (?:it )?over to|переключись на|передай)\s+(?:the )?(?P<mode>coder|architect|debug|ask)\b",
        stories.switch_agent,
    ),
    Intent(
        "coder",
        r"(?:create|make|созда\w+|сдела\w+)\s+(?:(?:an?|the|new|нов\w+)\s+)*(?:folder|directory|папк\w+|каталог\w*)\s+"
        r"(?:(?:called|named)\s+)?[`'\"«]?(?P<path>[\w./-]+)",
        stories.create_folder,
    ),
    Intent(
        "coder",
        r"(?:create|write|make|add|generate|созда\w+|напиш\w+|сдела\w+|добав\w+)\s+"
        r"(?:(?:an?|the|new|python|shell|file|script|нов\w+|файл\w*|скрипт\w*|called|named)\s+)*"
        + PATH_PATTERN
        + r"(?P<body>.*)",
        stories.create_file,
    ),
    Intent(
        "coder",
        r"(?:write|append|put|add|запиш\w+|допиш\w+|добав\w+|напиш\w+)\s+(?P<body>.+?)\s+(?:in|into|to|в|во)\s+"
        r"(?:(?:the|end of|конец|file|файл\w*)\s+)*" + PATH_PATTERN,
        stories.append_to_file,
    ),
    Intent(
        "debug",
        r"(?=.*\b(?:why|почему|отчего|debug|fix|исправ|почин|отлад|find))"
        r"(?=.*(?:fail|error|crash|broken|n.t work|wrong|slow|\bbug|пада|ошибк|не работа|слома|\bбаг|тормоз))",
        stories.debug_failure,
    ),
    Intent(
        "architect",
        r"(?:(?:write|create|make|напиш\w+|созда\w+)\s+(?:an?\s+|the\s+)?)?"
        r"(?:design|plan|propose|spec\w*|спроектир\w+|продума\w+|предлож\w+|состав\w+ план\w*|план\w*|спецификац\w+)\s+"
        r"(?:(?:an?|the|doc|document|for|and|implement|build|architecture|of|и|реализуй|архитектур\w+)\s+)*(?P<what>.+)",
        stories.write_design,
    ),
    Intent(
        "ask",
        r"(?:calculate|compute|what is|how much is|посчита\w+|вычисл\w+|сколько(?: будет)?)\s+"
        r"(?P<expr>[-\d(][-\d\s.+*/%()]*)[\s=?!.]*$",
        stories.calculate,
    ),
    Intent("coder", r"(?:echo|say|повтори)\s+(?P<text>.+)", stories.echo_text),
    Intent(
        "coder",
        r"(?:run|execute|запусти\w*|выполни\w*|прогони\w*)\s+(?:(?:the|all|все|команд\w+|command)\s+)*"
        r"(?:(?P<tests>(?:unit )?tests?\b|тест\w*)|`(?P<quoted>[^`]+)`|(?P<bare>[!-~]+(?: [!-~]+)*)\s*$)",
        stories.run_command,
    ),
    Intent(
        "ask",
        r"(?:read|show|open|view|summar\w+|explain|describe|what|how|прочита\w+|прочти|покажи|откр\w+|объясни\w*|опиш\w+"
        r"|переска\w+|что|как)\b.*?" + PATH_PATTERN,
        stories.preview_file,
    ),
    Intent(
        "ask",
        r"(?:list|show|what|which|покажи|перечисли|выведи|какие)\b.*?\b(?:files|folders?|directory|файл\w*|папк\w*)"
        r"(?:\s+(?:in|of|в|из)\s+(?!this|the|my|эт|мо)(?:папк\w+\s+)?(?P<path>[\w./-]*\w))?",
        stories.list_folder,
    ),
    Intent(
        "ask",
        r"(?:search|grep|find|look for|where|ищи|найди|поищи|где)\b(?:\s+(?:for|is|are|all|the|usages? of|uses? of|все"
        r"|вхождения|использования|находится|определ\w+))*\s+(?P<query>.+?)"
        r"(?:\s+(?:in (?:the )?(?:code|project|files)|в (?:коде|проекте|файлах)|defined))?[?.!]*$",
        stories.search_code,
    ),
    Intent(
        "ask",
        r"(?:explain|describe|tell|what|how|объясн\w+|опиш\w+|расскаж\w+|что|как)\b.*"
        r"\b(?:code|project|repo\w*|works?|код\w*|проект\w*|работает|устро\w+)",
        stories.describe_project,
    ),
]
