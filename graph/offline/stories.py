"""The stories of the offline model: each generator function handles one kind of request (see `turn`)."""

import json
import re
import shlex
from pathlib import PurePosixPath

from graph.offline.turn import CallFailed, Story, StoryCall, Turn

PREVIEW_LINES = 5
"""Lines of a file that a preview shows. Chosen, not measured: enough to recognise it."""
TAIL_LINES = 10
"""Last lines of a command's output: test runners put the result there. Chosen, not measured."""
MAX_NAME_WORDS = 5
"""Words of a request that make the name of a design file. Chosen, not measured."""


def finish_turn(text: str) -> Story:
    """Complete the turn with this text as its result."""
    yield StoryCall("attempt_completion", {"result": text})
    return text


def preview_file(turn: Turn, path: str) -> Story:
    text = (yield StoryCall("read_file", {"path": path})).text
    lines, words = text.splitlines(), len(text.split())
    first = "\n".join([f"> {line}" for line in lines if line.strip()][:PREVIEW_LINES])
    size = turn.localize(f"{path}: {len(lines)} lines, {words} words.", f"{path}: строк: {len(lines)}, слов: {words}.")
    return f"{size}\n\n{first}".strip()


def list_folder(turn: Turn, path: str | None = None) -> Story:
    text = (yield StoryCall("list_files", {"path": path or "."})).text
    return turn.localize(f"In {path or 'the workspace'}:\n\n{text}", f"В папке {path or 'проекта'}:\n\n{text}")


def describe_project(turn: Turn) -> Story:
    files = (yield StoryCall("list_files", {"path": "."})).text
    readme = re.search(r"\bREADME\.\w+", files, re.IGNORECASE)
    about = (yield from preview_file(turn, readme[0])) if readme else files
    return turn.localize(f"What can be seen from here. {about}", f"Что видно отсюда. {about}")


def search_code(turn: Turn, query: str) -> Story:
    query = query.strip("`'\"«».?! ") or query
    text = (yield StoryCall("search_in_code", {"query": query})).text
    return turn.localize(f"Found for `{query}`:\n\n{text}", f"Найдено по `{query}`:\n\n{text}")


def create_file(turn: Turn, path: str, body: str) -> Story:
    saying = turn.localize(f"I will create {path}.", f"Создам {path}.")
    arguments = {"path": path, "content": draft_content(path, body)} | ({"create_dirs": True} if "/" in path else {})
    path = (yield StoryCall("write_file", arguments, saying)).call.args["path"]
    return (yield from finish_turn(turn.localize(f"Created {path}.", f"Файл {path} создан.")))


def append_to_file(turn: Turn, path: str, body: str) -> Story:
    try:
        before = (yield StoryCall("read_file", {"path": path})).text
    except CallFailed:
        before = ""
    text = f"{before.rstrip()}\n{_strip_quotes(body)}\n".lstrip()
    saying = turn.localize(f"I will add that to {path}.", f"Допишу это в {path}.")
    path = (yield StoryCall("write_file", {"path": path, "content": text}, saying)).call.args["path"]
    return (yield from finish_turn(turn.localize(f"Added to {path}.", f"Дописано в {path}.")))


def create_folder(turn: Turn, path: str) -> Story:
    path = path.rstrip("./") or path
    saying = turn.localize(f"I will create the folder {path}.", f"Создам папку {path}.")
    path = (yield StoryCall("create_directory", {"path": path}, saying)).call.args["path"]
    return (yield from finish_turn(turn.localize(f"Created the folder {path}.", f"Папка {path} создана.")))


def run_command(turn: Turn, tests: str | None, quoted: str | None, bare: str | None) -> Story:
    command = "python -m pytest -q" if tests else (quoted or bare or "").strip()
    result = yield StoryCall(
        "execute_command", {"command": command}, turn.localize(f"I will run `{command}`.", f"Выполню `{command}`.")
    )
    code = re.search(r"exit[ _]?code\W{0,4}(-?\d+)", result.content, re.IGNORECASE)
    exit_code = turn.localize(f", exit code {code[1]}", f", код возврата {code[1]}") if code else ""
    tail = "\n".join(result.text.splitlines()[-TAIL_LINES:])
    return (yield from finish_turn(f"`{result.call.args['command']}`{exit_code}:\n\n{tail}"))


def debug_failure(turn: Turn) -> Story:
    name = re.search(NAME_PATTERN, turn.request, re.IGNORECASE)
    query = next(filter(None, name.groups())) if name else "def test_"
    place = re.search(r"([\w./-]+\.[A-Za-z]\w{0,4})\b", (yield StoryCall("search_in_code", {"query": query})).text)
    if not place:
        return turn.localize(f"I found no `{query}` in the code.", f"В коде нет `{query}`.")
    finding = _describe_finding(turn, place[1], query, (yield StoryCall("read_file", {"path": place[1]})).text)
    if not re.search(r"\bfix|\brepair|исправ|почин", turn.request, re.IGNORECASE):
        return (yield from finish_turn(finding))
    no_repair = turn.localize(NO_REPAIR, NO_REPAIR_RU)
    was_handed_over = (yield StoryCall("switch_mode", {"mode": "coder", "reason": finding}, finding)).content
    return no_repair if was_handed_over else f"{finding}\n\n{no_repair}"


def _describe_finding(turn: Turn, path: str, query: str, text: str) -> str:
    lines = text.splitlines() or [""]
    start = next((i for i, line in enumerate(lines) if query in line), 0)
    check = next((i for i in range(start, len(lines)) if re.match(r"\s*(assert|raise)\b", lines[i])), start)
    line = lines[check].strip()
    return turn.localize(
        f"`{query}` is at {path}:{start + 1}. The first that can fail there is line {check + 1}: `{line}`.",
        f"`{query}`: {path}:{start + 1}. Первой там может упасть строка {check + 1}: `{line}`.",
    )


def write_design(turn: Turn, what: str) -> Story:
    what = re.split(r"[,.?!\n]| and (?:implement|build|code)| и (?:реализ|напиш|сдела)", what)[0].strip()
    slug = "-".join(re.findall(r"\w+", what.casefold())[:MAX_NAME_WORDS]) or "design"
    text = turn.localize(DESIGN_TEMPLATE, DESIGN_TEMPLATE_RU).format(title=what[:1].upper() + what[1:])
    arguments = {"path": f"docs/{slug}.md", "content": text, "create_dirs": True}
    saying = turn.localize(f"I will write the design to docs/{slug}.md.", f"Запишу проект в docs/{slug}.md.")
    path = (yield StoryCall("write_file", arguments, saying)).call.args["path"]
    ready = turn.localize(f"The design is in {path}.", f"Проект записан в {path}.")
    if not re.search(r"\bimplement|\bbuild it|\bcode it|реализ|напиши код", turn.request, re.IGNORECASE):
        return (yield from finish_turn(ready))
    yield StoryCall("switch_mode", {"mode": "coder", "reason": ready}, ready)
    return (yield from create_file(turn, f"{slug.replace('-', '_')}.py", f': """{what}: {path}"""'))


def calculate(turn: Turn, expr: str) -> Story:
    value = (yield StoryCall("calculator", {"expr": expr.strip()})).text
    return turn.localize(f"{expr.strip()} = {value}", f"Получается {value}.")


def echo_text(turn: Turn, text: str) -> Story:
    return (yield StoryCall("echo", {"text": text.strip()})).text


def switch_agent(turn: Turn, mode: str) -> Story:
    reason = turn.localize("The user asked for it.", "Так попросил пользователь.")
    yield StoryCall("switch_mode", {"mode": mode.lower(), "reason": reason})
    return turn.localize("I am here. What shall I do?", "Я на месте. Что сделать?")


def clarify(turn: Turn) -> Story:
    question = turn.localize("What exactly shall I do?", "Что именно нужно сделать?")
    suggestions = turn.localize(SUGGESTIONS, SUGGESTIONS_RU).split("\n")
    if "ask_followup_question" not in turn.tools:
        return "\n".join([turn.localize(ABILITIES, ABILITIES_RU), *(f"- {each}" for each in suggestions)])
    yield StoryCall("ask_followup_question", {"question": question, "suggestions": suggestions})
    return question


def draft_content(path: str, body: str) -> str:
    """Return the content of a new file.

    It is a program that prints the text of a request to print, the text after `with` or a colon, or a heading.
    """
    name = PurePosixPath(path)
    to_print, content = re.search(PRINT_REQUEST, body, REGEX_FLAGS), re.match(CONTENT_REQUEST, body, REGEX_FLAGS)
    text = _strip_quotes((to_print or content or [body, body])[1])
    form = (PRINT_TEMPLATES if to_print else CONTENT_TEMPLATES if content else DEFAULT_TEMPLATES).get(
        name.suffix, "{text}\n" if text else ""
    )
    quoted, shell = json.dumps(text, ensure_ascii=False), shlex.quote(text)
    title = name.stem.replace("_", " ").replace("-", " ").capitalize()
    about = f": {text}" if text else ""
    return form.format(text=text, quoted=quoted, shell=shell, title=title, about=about).rstrip("\n") + (
        "\n" if form else ""
    )


def _strip_quotes(text: str) -> str:
    text = text.strip()
    return (
        text[1:-1] if len(text) > 1 and text[0] + text[-1] in ('""', "''", "``", "«»") and '"""' not in text else text
    )


REGEX_FLAGS = re.IGNORECASE | re.DOTALL
PRINT_REQUEST = r".*?\b(?:prints?|printing|says?|печата\w+|вывод\w+|говорит)\s+(.+?)[.!]?\s*$"
CONTENT_REQUEST = (
    r"\W*?(?::|\b(?:with|containing|с|со)\s+(?:(?:the )?(?:text|content\w*|текстом|содержимым|кодом)\b:?)?)\s*(.+)"
)
PRINT_TEMPLATES = {
    ".py": "print({quoted})",
    ".js": "console.log({quoted});",
    ".sh": "#!/bin/sh\necho {shell}",
    ".md": "# {title}\n\n{text}",
}
CONTENT_TEMPLATES = {".md": "# {title}\n\n{text}"}
DEFAULT_TEMPLATES = {".py": '"""{title}{about}."""', ".sh": "#!/bin/sh", ".md": "# {title}\n\n{text}"}

NAME_PATTERN = (
    r"`([^`]+)`|\b(\w*_\w+|\w+\.\w+)\b"
    r"|(?:why (?:does|do|is|are)|почему (?:\w*пада\w+|не работа\w+|лома\w+))\s+(?:the )?(?!tests?\b|тест)(\w+)"
)

SUGGESTIONS = (
    "read README.md\ncreate hello.py that prints hi\nrun the tests\nwhy does test_x fail\ndesign a cache layer"
)
SUGGESTIONS_RU = (
    "прочитай README.md\nсоздай hello.py, который печатает привет\nзапусти тесты\nпочему падает test_x\nспроектируй кэш"
)
ABILITIES = "I am the offline model and understand plain requests, such as:"
ABILITIES_RU = "Я офлайн-модель и понимаю простые просьбы, например:"
NO_REPAIR = "The offline model cannot invent a repair: say what to write, or set a real model."
NO_REPAIR_RU = "Офлайн-модель не придумает исправление: скажите, что написать, или подключите настоящую модель."
DESIGN_TEMPLATE = """# {title}

## Goal
What {title} must do, for whom, and what is out of scope.

## What exists
The modules it touches and the contracts it must keep.

## Decision
One component behind one interface; the plainest way that satisfies the goal. Other ways, and why not.

## Failure
What callers see when it is slow, full or down.

## Steps
1. The interface and its test.
2. The implementation behind it.
3. The first caller moved over.

## Open questions
- Which load must it bear?
"""
DESIGN_TEMPLATE_RU = """# {title}

## Цель
Что должно делать решение, для кого, и что в него не входит.

## Что уже есть
Модули, которых оно касается, и договоренности, которые нельзя нарушить.

## Решение
Один компонент за одним интерфейсом, самый простой способ достичь цели. Другие способы и почему не они.

## Отказы
Что увидят вызывающие, если компонент медленный, переполнен или недоступен.

## Шаги
1. Интерфейс и тест к нему.
2. Реализация за интерфейсом.
3. Перевод первого вызывающего.

## Открытые вопросы
- Какую нагрузку нужно выдержать?
"""
