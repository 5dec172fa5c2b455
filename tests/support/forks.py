"""Processes that start with the modules of the product loaded: a fork takes a tenth of a second, an import three."""

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from signal import Signals

from tests.support.paths import PROJECT_ROOT

FORK_CONTEXT = multiprocessing.get_context("forkserver")
FORK_CONTEXT.set_forkserver_preload(["server", "cli.__main__", "pytest"])


class ForkedProcess:
    """A forked process, with the part of asyncio.subprocess.Process that tests need."""

    def __init__(self, process: ForkServerProcess, stdout: asyncio.StreamReader) -> None:
        self._process = process
        self.stdout: asyncio.StreamReader | None = stdout
        """All that it writes to stdout and stderr."""

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, signal: int) -> None:
        os.kill(self.pid, signal)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.send_signal(Signals.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end of the process; return its exit status."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self.returncode is not None
        return self.returncode


async def fork_process(main: Callable[[], object], environment: dict[str, str]) -> ForkedProcess:
    """Run `main`, a function of a module, in a process with exactly this environment, in the project's folder."""
    reader, writer = FORK_CONTEXT.Pipe(duplex=False)
    process = FORK_CONTEXT.Process(target=_run_in_fork, args=(main, environment, writer), daemon=True)
    await asyncio.to_thread(process.start)  # The first one waits until the server of forks has loaded the modules.
    writer.close()
    output = asyncio.StreamReader()
    pipe = os.fdopen(os.dup(reader.fileno()), "rb", buffering=0)
    reader.close()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), pipe)
    return ForkedProcess(process, output)


def _run_in_fork(main: Callable[[], object], environment: dict[str, str], output: Connection) -> None:
    redirect_output(output.fileno())
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT_ROOT)
    main()


def redirect_output(file: int) -> None:
    """Send stdout and stderr of this process to an open file."""
    for number in (1, 2):
        os.dup2(file, number)
