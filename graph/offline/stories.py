"""What the offline model does: each function is the course of one kind of request (see `turn`)."""

import json
import re
import shlex
from pathlib import PurePosixPath

from graph.offline.turn import Call, Failed, Story, Turn


def completed(text: str) -> Story:
    yield Call("attempt_completion", {"result": text})
    return text


def read(turn: Turn, path: str) -> Story:
    text = (yield Call("read_file", {"path": path})).text
    lines, words = text.splitlines(), len(text.split())
    first = "\n".join([f"> {line}" for line in lines if line.strip()][:5])
    counted = turn.say(f"{path}: {len(lines)} lines, {words} words.", f"{path}: строк: {len(lines)}, слов: {words}.")
    return f"{counted}\n\n{first}".strip()


def listing(turn: Turn, path: str | None = None) -> Story:
    text = (yield Call("list_files", {"path": path or "."})).text
    return turn.say(f"In {path or 'the workspace'}:\n\n{text}", f"В папке {path or 'проекта'}:\n\n{text}")


def overview(turn: Turn) -> Story:
    listed = (yield Call("list_files", {"path": "."})).text
    readme = re.search(r"\bREADME\.\w+", listed, re.IGNORECASE)
    about = (yield from read(turn, readme[0])) if readme else listed
    return turn.say(f"What can be seen from here. {about}", f"Что видно отсюда. {about}")


def search(turn: Turn, query: str) -> Story:
    query = query.strip("`'\"«».?! ") or query
    text = (yield Call("search_in_code", {"query": query})).text
    return turn.say(f"Found for `{query}`:\n\n{text}", f"Найдено по `{query}`:\n\n{text}")


def write(turn: Turn, path: str, body: str) -> Story:
    saying = turn.say(f"I will create {path}.", f"Создам {path}.")
    arguments = {"path": path, "content": content(path, body)} | ({"create_dirs": True} if "/" in path else {})
    path = (yield Call("write_file", arguments, saying)).call.args["path"]
    return (yield from completed(turn.say(f"Created {path}.", f"Файл {path} создан.")))


def append(turn: Turn, path: str, body: str) -> Story:
    try:
        before = (yield Call("read_file", {"path": path})).text
    except Failed:
        before = ""
    text = f"{before.rstrip()}\n{_unquoted(body)}\n".lstrip()
    saying = turn.say(f"I will add that to {path}.", f"Допишу это в {path}.")
    path = (yield Call("write_file", {"path": path, "content": text}, saying)).call.args["path"]
    return (yield from completed(turn.say(f"Added to {path}.", f"Дописано в {path}.")))


def folder(turn: Turn, path: str) -> Story:
    path = path.rstrip("./") or path
    saying = turn.say(f"I will create the folder {path}.", f"Создам папку {path}.")
    path = (yield Call("create_directory", {"path": path}, saying)).call.args["path"]
    return (yield from completed(turn.say(f"Created the folder {path}.", f"Папка {path} создана.")))


def run(turn: Turn, tests: str | None, quoted: str | None, bare: str | None) -> Story:
    command = "python -m pytest -q" if tests else (quoted or bare or "").strip()
    done = yield Call(
        "execute_command", {"command": command}, turn.say(f"I will run `{command}`.", f"Выполню `{command}`.")
    )
    code = re.search(r"exit[ _]?code\W{0,4}(-?\d+)", done.said, re.IGNORECASE)
    ended = turn.say(f", exit code {code[1]}", f", код возврата {code[1]}") if code else ""
    tail = "\n".join(done.text.splitlines()[-10:])
    return (yield from completed(f"`{done.call.args['command']}`{ended}:\n\n{tail}"))


def debug(turn: Turn) -> Story:
    named = re.search(NAME, turn.request, re.IGNORECASE)
    query = next(filter(None, named.groups())) if named else "def test_"
    place = re.search(r"([\w./-]+\.[A-Za-z]\w{0,4})\b", (yield Call("search_in_code", {"query": query})).text)
    if not place:
        return turn.say(f"I found no `{query}` in the code.", f"В коде нет `{query}`.")
    finding = _finding(turn, place[1], query, (yield Call("read_file", {"path": place[1]})).text)
    if not re.search(r"\bfix|\brepair|исправ|почин", turn.request, re.IGNORECASE):
        return (yield from completed(finding))
    told = (yield Call("switch_mode", {"mode": "coder", "reason": finding}, finding)).said
    return turn.say(NO_REPAIR, NO_REPAIR_RU) if told else f"{finding}\n\n{turn.say(NO_REPAIR, NO_REPAIR_RU)}"


def _finding(turn: Turn, path: str, query: str, text: str) -> str:
    lines = text.splitlines() or [""]
    start = next((i for i, line in enumerate(lines) if query in line), 0)
    check = next((i for i in range(start, len(lines)) if re.match(r"\s*(assert|raise)\b", lines[i])), start)
    line = lines[check].strip()
    return turn.say(
        f"`{query}` is at {path}:{start + 1}. The first that can fail there is line {check + 1}: `{line}`.",
        f"`{query}`: {path}:{start + 1}. Первой там может упасть строка {check + 1}: `{line}`.",
    )


def design(turn: Turn, what: str) -> Story:
    what = re.split(r"[,.?!\n]| and (?:implement|build|code)| и (?:реализ|напиш|сдела)", what)[0].strip()
    slug = "-".join(re.findall(r"\w+", what.casefold())[:5]) or "design"
    text = turn.say(DESIGN, DESIGN_RU).format(title=what[:1].upper() + what[1:])
    arguments = {"path": f"docs/{slug}.md", "content": text, "create_dirs": True}
    saying = turn.say(f"I will write the design to docs/{slug}.md.", f"Запишу проект в docs/{slug}.md.")
    path = (yield Call("write_file", arguments, saying)).call.args["path"]
    ready = turn.say(f"The design is in {path}.", f"Проект записан в {path}.")
    if not re.search(r"\bimplement|\bbuild it|\bcode it|реализ|напиши код", turn.request, re.IGNORECASE):
        return (yield from completed(ready))
    yield Call("switch_mode", {"mode": "coder", "reason": ready}, ready)
    return (yield from write(turn, f"{slug.replace('-', '_')}.py", f': """{what}: {path}"""'))


def calculate(turn: Turn, expr: str) -> Story:
    value = (yield Call("calculator", {"expr": expr.strip()})).text
    return turn.say(f"{expr.strip()} = {value}", f"Получается {value}.")


def echo(turn: Turn, text: str) -> Story:
    return (yield Call("echo", {"text": text.strip()})).text


def switch(turn: Turn, mode: str) -> Story:
    reason = turn.say("The user asked for it.", "Так попросил пользователь.")
    yield Call("switch_mode", {"mode": mode.lower(), "reason": reason})
    return turn.say("I am here. What shall I do?", "Я на месте. Что сделать?")


def clarify(turn: Turn) -> Story:
    question = turn.say("What exactly shall I do?", "Что именно нужно сделать?")
    suggestions = turn.say(SUGGESTIONS, SUGGESTIONS_RU).split("\n")
    if "ask_followup_question" not in turn.tools:
        return "\n".join([turn.say(ABILITIES, ABILITIES_RU), *(f"- {each}" for each in suggestions)])
    yield Call("ask_followup_question", {"question": question, "suggestions": suggestions})
    return question


def content(path: str, body: str) -> str:
    """Of a new file: what it is to print, in its language; what follows `with` or a colon, as it is; or a heading."""
    name = PurePosixPath(path)
    printed, given = re.search(PRINTS, body, FLAGS), re.match(GIVEN, body, FLAGS)
    text = _unquoted((printed or given or [body, body])[1])
    form = (PRINTED if printed else GIVEN_AS if given else STARTED).get(name.suffix, "{text}\n" if text else "")
    quoted, shell = json.dumps(text, ensure_ascii=False), shlex.quote(text)
    title = name.stem.replace("_", " ").replace("-", " ").capitalize()
    about = f": {text}" if text else ""
    return form.format(text=text, quoted=quoted, shell=shell, title=title, about=about).rstrip("\n") + (
        "\n" if form else ""
    )


def _unquoted(text: str) -> str:
    text = text.strip()
    return (
        text[1:-1] if len(text) > 1 and text[0] + text[-1] in ('""', "''", "``", "«»") and '"""' not in text else text
    )


FLAGS = re.IGNORECASE | re.DOTALL
PRINTS = r".*?\b(?:prints?|printing|says?|печата\w+|вывод\w+|говорит)\s+(.+?)[.!]?\s*$"
GIVEN = r"\W*?(?::|\b(?:with|containing|с|со)\s+(?:(?:the )?(?:text|content\w*|текстом|содержимым|кодом)\b:?)?)\s*(.+)"
PRINTED = {
    ".py": "print({quoted})",
    ".js": "console.log({quoted});",
    ".sh": "#!/bin/sh\necho {shell}",
    ".md": "# {title}\n\n{text}",
}
GIVEN_AS = {".md": "# {title}\n\n{text}"}
STARTED = {".py": '"""{title}{about}."""', ".sh": "#!/bin/sh", ".md": "# {title}\n\n{text}"}

NAME = (
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
DESIGN = """# {title}

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
DESIGN_RU = """# {title}

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
