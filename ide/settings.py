"""Where the service is and what its key is: its own settings, from the environment, else from `.env` in this folder."""

import os

from dotenv import dotenv_values

PREFIX = "AGENT_RUNTIME__"
EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104


def service_url() -> str:
    host = _setting("HOST") or "127.0.0.1"
    if host in EVERY_ADDRESS:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{_setting('PORT') or 8001}"


def service_key() -> str:
    return _setting("INTERNAL_API_KEY")


def _setting(name: str) -> str:
    """What is set in the environment counts, even if it is empty; the service reads it the same way."""
    variable = PREFIX + name
    return os.environ[variable] if variable in os.environ else dotenv_values(".env").get(variable) or ""
