"""Where the service is and what its key is: its own settings, from the environment, else from `.env` in this folder."""

import os

from dotenv import dotenv_values

SETTING_PREFIX = "AGENT_RUNTIME__"
WILDCARD_HOSTS = {"0.0.0.0", "::"}  # noqa: S104


def get_service_url() -> str:
    host = _read_setting("HOST") or "127.0.0.1"
    if host in WILDCARD_HOSTS:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{_read_setting('PORT') or 8001}"


def get_service_key() -> str:
    return _read_setting("INTERNAL_API_KEY")


def _read_setting(name: str) -> str:
    """What is set in the environment counts, even if it is empty; the service reads it the same way."""
    variable = SETTING_PREFIX + name
    return os.environ[variable] if variable in os.environ else dotenv_values(".env").get(variable) or ""
