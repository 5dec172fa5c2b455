"""Talk to the agents about the files of a folder: `python -m ide DIR`."""

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path

from ide.approval import Approver
from ide.chat import Chat
from ide.client import ServiceClient, ServiceError
from ide.input import create_pipe_reader, create_terminal_reader
from ide.repl import Repl, build_switch_message, create_session_id
from ide.sandbox import find_sandbox
from ide.screen import Screen
from ide.server_process import CannotStart, ensure_service
from ide.settings import get_service_key, get_service_url
from ide.workspace import COMMAND_MEMORY, Workspace


def _parse_folder(path: str) -> Path:
    return Path(path).expanduser()


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ide",
        description=__doc__,
        epilog="The service's address and key are its own settings, AGENT_RUNTIME__HOST, AGENT_RUNTIME__PORT and "
        "AGENT_RUNTIME__INTERNAL_API_KEY, from the environment or from .env in the current folder.",
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        type=_parse_folder,
        help="the folder the tools work in, and nowhere else",
    )
    parser.add_argument("--session", metavar="ID", help="continue this session")
    parser.add_argument(
        "--url",
        default=get_service_url(),
        help="the address of the service (default %(default)s); if no service answers there, one is started",
    )
    parser.add_argument("--yes", action="store_true", help="approve everything without asking")
    parser.add_argument("--agent", metavar="NAME", help="start with this agent")
    parser.add_argument(
        "--memory",
        metavar="MB",
        type=int,
        default=COMMAND_MEMORY // 1_000_000,
        help="memory of each process of an approved command (default %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="list the sessions and exit")
    return parser.parse_args(argv)


async def start_ide(options: argparse.Namespace, screen: Screen) -> bool:
    """Talk to the service until the input ends, and return whether the last run succeeded.

    Raises CannotStart, ServiceError or NotADirectoryError.
    """
    _cancel_on_signals()
    workspace = Workspace(options.dir, options.memory * 1_000_000)
    key = get_service_key()
    async with (
        ensure_service(options.url, key, screen.print_notice),
        ServiceClient(options.url, key, notice=screen.print_notice) as client,
    ):
        if options.list:
            screen.print_sessions(**await client.list_sessions())
            return True
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        approver = Approver(
            screen, workspace, create_terminal_reader(allow_typeahead=False) if interactive else None, yes=options.yes
        )
        chat = Chat(client, workspace, screen, approver, options.session or create_session_id())
        await start_conversation(
            chat,
            Repl(chat, create_terminal_reader() if interactive else create_pipe_reader(), interactive=interactive),
            options,
        )
        return not chat.has_failed


async def start_conversation(chat: Chat, loop: Repl, options: argparse.Namespace) -> None:
    """Resume the session and switch the agent as the options say, then process the lines of the user."""
    try:
        chat.screen.print_notice(
            f"Workspace {chat.workspace.root}, session {chat.session_id}. /help lists the commands."
        )
        chat.screen.print_notice((await asyncio.to_thread(find_sandbox)).describe())
        if options.yes:
            chat.screen.print_text("--yes: every write and every command is approved without asking.", "yellow")
        if options.session:
            await loop.await_interruptibly(chat.resume_session(options.session))
        if options.agent:
            await loop.await_interruptibly(chat.send_message(build_switch_message(options.agent)))
            if chat.has_failed:
                return
        await loop.process_lines()
    except EOFError:
        pass
    finally:
        chat.screen.print_notice(
            f"Session {chat.session_id}. To continue it: {_format_resume_command(options, chat.session_id)}"
        )


def _format_resume_command(options: argparse.Namespace, session_id: str) -> str:
    url = ["--url", options.url] if options.url != get_service_url() else []
    args = shlex.join(["--session", session_id, *url])
    return f'make chat DIR={shlex.quote(str(options.dir))} ARGS="{args}"'


def _cancel_on_signals() -> None:
    """Let SIGTERM and SIGHUP cancel this task, so that a service started by the IDE is stopped."""
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def main() -> int:
    """Return the exit code: 0 if the last run succeeded, 130 after a signal, otherwise 1."""
    options, screen = parse_arguments(), Screen()
    try:
        return 0 if asyncio.run(start_ide(options, screen)) else 1
    except (CannotStart, ServiceError, NotADirectoryError) as error:
        screen.print_error(str(error))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
