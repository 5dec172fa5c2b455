"""Ports for servers that a test starts later."""

import socket
from contextlib import suppress
from random import SystemRandom

PORTS = range(20_000, 32_000)
"""Ports below the range from which Linux serves whoever asks for any port (32768 and up)."""


def find_free_port() -> int:
    """Return a port that nobody listens on. Raises OSError if none of 100 random ones is free.

    The system never hands such a port to another test, so it is still free when it is used.
    """
    for port in SystemRandom().sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")
