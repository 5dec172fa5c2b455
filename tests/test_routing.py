"""Who answers a request: by the model's word, or by the words of the request."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from graph.errors import LLMUnavailable
from graph.routing import LONGEST, Choice, by_keywords, classify, load
from prompts import AGENTS, team

TEAM = team(multi_agent=True)

LABELLED = {
    "ask": [
        "Explain how this code works",
        "Inspect the build",
        "read README.md",
        "прочитай README.md",
        "help",
        "привет",
        "explain the architecture of this project",
        "what is a decorator?",
        "How do I create a virtualenv?",
        "как создать виртуальное окружение?",
        "Где определён класс Session?",
        "Which function parses the config?",
        "что делает функция load в prompts/__init__.py?",
        "почему мы используем Redis?",
        "why do we use Redis here?",
        "summarize docs/error_handling.md",
        "explain what the ErrorHandler class does",
        "чем отличается список от кортежа",
        "list files",
        "покажи файлы",
        "search for TODO",
        "найди все использования foo",
        "calculate 2*(3+4)",
        "посчитай 2*(3+4)",
        "Is there a test for the login form?",
        "объясни, зачем нужен этот слой",
        "расскажи про архитектуру проекта",
        "Compare these two implementations",
        "Review my code",
        "Что такое архитектура MVC?",
        "What does this error mean?",
        "как работает обработка ошибок?",
        "Can you tell me what this function returns?",
        "Покажи, где обрабатываются исключения",
    ],
    "debug": [
        "почему падает тест?",
        "why does test_x fail",
        "the tests fail after the last commit",
        "I get a KeyError when I start the server",
        "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'",
        "приложение падает при запуске",
        "сервер не отвечает",
        "кнопка не работает",
        "Найди причину утечки памяти",
        "fix the failing test",
        "исправь ошибку в парсере",
        "find out why the request is slow",
        "What's wrong with my regex?",
        "Check why the build breaks on CI",
        "Сборка перестала работать после обновления",
        "Почему сервер возвращает 500?",
        "after the update everything hangs",
        "разберись, почему зависает импорт",
        "it doesn't work",
        "Debug the login flow",
        "Explain why the import fails",
        "Test test_login падает с ошибкой",
        "Тест упал, посмотри в чем дело",
        "у меня ошибка при импорте",
        "Why is my loop slow?",
        "не могу понять, почему данные не сохраняются",
        "the page shows wrong totals",
    ],
    "coder": [
        "create hello.py that prints hi",
        "run the tests",
        "запусти тесты",
        "can you add a button",
        "fix the typo in README.md",
        "сделай что-нибудь",
        "qwerty",
        "add error handling to parse_config",
        "добавь обработку ошибок в парсер",
        "write a script that explains exceptions",
        "implement the plan from docs/plan.md",
        "refactor the Session class",
        "переименуй функцию foo в bar",
        "напиши тесты для модуля auth",
        "write unit tests for the parser",
        "install requests",
        "please rename a.py to b.py",
        "Можешь добавить кнопку выхода?",
        "нужно удалить старые логи",
        "Add a debug log line to the handler",
        "change the design of the button to blue",
        "создай папку docs",
        "выполни `ls -la`",
        "run `pytest -q`",
        "echo hello",
        "Translate the comments to English",
        "Создай файл error_report.md",
        "Сделай рефакторинг модуля оплаты",
        "build a REST API for todos",
        "обнови README",
        "update the spec file to bump the version",
        "сделай так, чтобы функция возвращала None",
        "Make the inspector panel resizable",
        "write a function to design gradients",
        "исправь опечатку в заголовке",
    ],
    "architect": [
        "design a cache layer",
        "спроектируй слой кэша",
        "as architect, write x.py",
        "plan the migration to Postgres",
        "write a design doc for the cache",
        "составь план миграции на Postgres",
        "напиши спецификацию API",
        "предложи архитектуру для чата",
        "Propose a data model for orders",
        "Which database should we use for events?",
        "какую базу данных лучше выбрать для событий?",
        "Design and implement a rate limiter",
        "нарисуй диаграмму компонентов",
        "I need a technical specification for billing",
        "Продумай структуру микросервисов",
        "Write a plan for splitting the monolith",
        "How should we structure the repo?",
        "как лучше организовать модули проекта?",
        "нужно спроектировать систему уведомлений",
    ],
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(("agent", "text"), [(agent, text) for agent, texts in LABELLED.items() for text in texts])
def test_words_decide(agent: str, text: str) -> None:
    assert by_keywords(text, TEAM).agent == agent


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        ("Inspect the inspector", "ask"),  # no spec
        ("a latest contest", "coder"),  # no test, and the default
        ("предпланово", "coder"),  # no план
        ("unfailing prefixerror", "coder"),  # no fail, no error
    ],
)
def test_parts_of_words_have_no_say(text: str, agent: str) -> None:
    assert by_keywords(text, TEAM).agent == agent


def test_case_and_yo_do_not_matter() -> None:
    assert by_keywords("НАЙДЁМ ОШИБКУ", TEAM) == by_keywords("найдем ошибку", TEAM)


def test_names_of_files_and_code_have_no_say() -> None:
    assert by_keywords("read docs/fix_crash_error.md", TEAM).agent == "ask"
    assert by_keywords("explain `raise BrokenError`", TEAM).agent == "ask"


def test_the_choice_names_the_words_that_decided() -> None:
    choice = by_keywords("Why does test_x fail?", TEAM)
    assert choice == Choice("debug", "high", 'The request says "why does test_x fail", "fail".', "keywords")


def test_a_guess_is_called_one() -> None:
    assert by_keywords("qwerty", TEAM) == Choice(
        "coder", "low", "No word of the request points to an agent.", "keywords"
    )


def test_only_the_team_is_chosen_from() -> None:
    assert by_keywords("why does test_x fail", ["ask", "coder"]).agent == "ask"
    assert by_keywords("qwerty", ["ask", "debug"]).agent == "ask"
    assert by_keywords("design a cache", ["universal"]).agent == "universal"


@pytest.mark.parametrize("text", ["", " ", "?", "\n" * 9_999, "/" * 9_999, "`" * 9_999, "why " * 9_999, "{" * 9_999])
def test_any_text_has_an_answer(text: str) -> None:
    assert by_keywords(text, TEAM).agent in TEAM


class Model(BaseChatModel):
    """Says its lines in order; raises the errors among them."""

    lines: Iterator[str | Exception]
    seen: list[tuple[list[BaseMessage], dict[str, Any]]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.append((messages, kwargs))
        line = next(self.lines)
        if isinstance(line, Exception):
            raise line
        return ChatResult(generations=[ChatGeneration(message=AIMessage(line))])


def model(*lines: str | Exception) -> Model:
    return Model(lines=iter(lines), seen=[])


SAID = json.dumps({"agent": "architect", "confidence": "medium", "reasoning": "Because."})


@pytest.mark.parametrize(
    "answer",
    [
        SAID,
        f"```json\n{SAID}\n```",
        f"```\n{SAID}\n```\n",
        f"I think {{so}}: {SAID} That is it.",
        SAID.replace("architect", " Architect ").replace("medium", "MEDIUM"),
        SAID.replace('"medium"', "0.7"),
    ],
)
async def test_the_model_decides(answer: str) -> None:
    assert await classify(model(answer), "why?", TEAM) == Choice("architect", "medium", "Because.", "llm")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "architect",
        "null",
        "[]",
        "{}",
        '{"agent": "architect"',
        '{"agent": ["architect"]}',
        '{"agent": null, "confidence": "high"}',
        SAID.replace("architect", "painter"),
        SAID.replace("architect", "universal"),
        SAID.replace("architect", "orchestrator"),
        '{"a":' * 9_999,
        LLMUnavailable("It is down."),
    ],
)
async def test_without_a_usable_answer_the_words_decide(answer: str | Exception) -> None:
    text = "why does test_x fail"
    assert await classify(model(answer), text, TEAM) == by_keywords(text, TEAM)


async def test_what_the_model_is_asked() -> None:
    asked = model(SAID)
    await classify(asked, "$agents " + "x" * 9_999, TEAM)
    [(messages, settings)] = asked.seen
    assert settings["temperature"] == 0.3
    assert [m.type for m in messages] == ["system", "human"]
    assert all(f"- {agent.name}: {agent.description}" in messages[0].text for agent in TEAM.values())
    assert messages[1].text == ("$agents " + "x" * 9_999)[:LONGEST]


async def test_a_team_of_one_needs_no_model() -> None:
    assert (await classify(model(), "design a cache", {"universal": AGENTS["universal"]})).agent == "universal"


async def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await classify(model(ZeroDivisionError()), "why?", TEAM)


GOOD = "default: coder\nfillers: [please]\nagents: {coder: {3: [write]}}\n"


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (GOOD.replace("{coder:", "{painter:"), "painter"),
        (GOOD.replace("default: coder", "default: painter"), "painter"),
        (GOOD.replace("[write]", "[]"), "empty list"),
        (GOOD.replace("[write]", "['']"), "empty term"),
        (GOOD.replace("{3: [write]}", "{}"), "empty list"),
        (GOOD.replace("3:", "0:"), "greater than 0"),
        (GOOD + "colour: red\n", "colour"),
        ("[", "flow"),
        ("", "valid"),
    ],
)
def test_bad_data_stops_start_up(tmp_path: Path, bad: str, fault: str) -> None:
    path = tmp_path / "keywords.yaml"
    path.write_text(bad, encoding="utf-8")
    with pytest.raises(ValueError, match=r"keywords\.yaml") as caught:
        load(path)
    assert fault in str(caught.value)
