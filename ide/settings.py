"""Read the address and the key of the service from its own settings.

They come from the environment, otherwise from `.env` in the current folder.
"""

import os

from dotenv import dotenv_values

SETTING_PREFIX = "AGENT_RUNTIME__"
WILDCARD_HOSTS = {"0.0.0.0", "::"}  # noqa: S104
"""Addresses that a service listens on, and that no client can connect to everywhere."""


def get_service_url() -> str:
    host = _read_setting("HOST") or "127.0.0.1"
    if host in WILDCARD_HOSTS:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{_read_setting('PORT') or 8001}"


def get_service_key() -> str:
    return _read_setting("INTERNAL_API_KEY")


def _read_setting(name: str) -> str:
    """Return the setting, or "". As for the service, a variable of the environment counts even if it is empty."""
    variable = SETTING_PREFIX + name
    return os.environ[variable] if variable in os.environ else dotenv_values(".env").get(variable) or ""
