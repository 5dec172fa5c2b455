"""`python -m ide DIR`: talk to the agents about the files of a folder."""

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path

from ide.approval import Approver
from ide.chat import Chat
from ide.client import Client, ServiceError
from ide.input import piped, typed
from ide.repl import Loop, new_session_id, switch
from ide.screen import Screen
from ide.server_process import CannotStart, running
from ide.settings import service_key, service_url
from ide.workspace import Workspace


def _folder(given: str) -> Path:
    return Path(given).expanduser()


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ide",
        description=__doc__,
        epilog="The service's address and key are its own settings, AGENT_RUNTIME__HOST, AGENT_RUNTIME__PORT and "
        "AGENT_RUNTIME__INTERNAL_API_KEY, from the environment or from .env in the current folder.",
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        type=_folder,
        help="the folder the tools work in, and nowhere else",
    )
    parser.add_argument("--session", metavar="ID", help="go on with this session")
    parser.add_argument(
        "--url",
        default=service_url(),
        help="the service (default %(default)s); one is started there if none answers",
    )
    parser.add_argument("--yes", action="store_true", help="approve everything without asking")
    parser.add_argument("--agent", metavar="NAME", help="begin with this agent")
    parser.add_argument("--list", action="store_true", help="list the sessions and exit")
    return parser.parse_args(argv)


async def run(options: argparse.Namespace, screen: Screen) -> bool:
    """Whether the last run ended well."""
    _end_on_signals()
    workspace = Workspace(options.dir)
    key = service_key()
    async with running(options.url, key, screen.notice), Client(options.url, key, notice=screen.notice) as client:
        if options.list:
            screen.sessions(**await client.sessions())
            return True
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        approver = Approver(screen, workspace, typed(ahead=False) if interactive else None, yes=options.yes)
        chat = Chat(client, workspace, screen, approver, options.session or new_session_id())
        await talk(chat, Loop(chat, typed() if interactive else piped(), interactive=interactive), options)
        return not chat.failed


async def talk(chat: Chat, loop: Loop, options: argparse.Namespace) -> None:
    try:
        chat.screen.notice(f"Workspace {chat.workspace.root}, session {chat.session_id}. /help lists the commands.")
        if options.yes:
            chat.screen.say("--yes: every write and every command is approved without asking.", "yellow")
        if options.session:
            await loop.watched(chat.resume(options.session))
        if options.agent:
            await loop.watched(chat.say(switch(options.agent)))
            if chat.failed:
                return
        await loop.run()
    except EOFError:
        pass
    finally:
        chat.screen.notice(f"Session {chat.session_id}; to go on with it: {_again(options, chat.session_id)}")


def _again(options: argparse.Namespace, session_id: str) -> str:
    elsewhere = ["--url", options.url] if options.url != service_url() else []
    args = shlex.join(["--session", session_id, *elsewhere])
    return f'make chat DIR={shlex.quote(str(options.dir))} ARGS="{args}"'


def _end_on_signals() -> None:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def main() -> int:
    options, screen = arguments(), Screen()
    try:
        return 0 if asyncio.run(run(options, screen)) else 1
    except (CannotStart, ServiceError, NotADirectoryError) as error:
        screen.error(str(error))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
