"""The keys of the service, and the rules for starting without one."""

from graph.settings import Settings, is_loopback

MIN_KEY_CHARACTERS = 16
"""A random key of this length cannot be guessed: 64 bits even if it is made of hexadecimal digits."""
WELL_KNOWN = {
    "changeme",
    "change-me",
    "password",
    "secret",
    "internal-api-key",
    "internal_api_key",
    "internal-secret-key",
    "secret-internal-key",
    "your-internal-api-key",
    "your_internal_api_key",
    "your-internal-key",
    "your-api-key-here",
    "your-secret-key-here",
    "change-me-internal-key",
    "change-me-in-production",
    "change_me_in_production",
    "change-this-in-production",
    "changemechangeme",
    "my-super-secret-key",
    "my_super_secret_key",
    "super-secret-key",
    "supersecretsecret",
    "supersecretpassword",
    "secretsecretsecret",
    "passwordpassword",
    "password12345678",
    "correcthorsebatterystaple",
    "0123456789abcdef",
    "0123456789abcdef0123456789abcdef",
    "1234567890abcdef",
    "0123456789012345",
    "1234567890123456",
    "12345678901234567890",
    "0000000000000000",
    "1111111111111111",
    "aaaaaaaaaaaaaaaa",
    "xxxxxxxxxxxxxxxx",
    "abcdefghijklmnop",
    "qwertyuiopasdfgh",
}
"""Keys of examples and tutorials, casefolded: an attacker tries these first."""


def load_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the accepted values of `X-Internal-Auth` as bytes; none: every caller is accepted.

    Raises ValueError for a weak key, and for a development service that other machines could reach.
    """
    if settings.dev and not is_loopback(settings.host):
        raise ValueError(
            f"AGENT_RUNTIME__DEV=true is for a loopback HOST and {settings.host} is none: "
            "set AGENT_RUNTIME__DEV=false and a key, or bind to 127.0.0.1."
        )
    current = settings.internal_api_key.get_secret_value()
    previous = settings.internal_api_key_previous.get_secret_value()
    if not settings.dev:
        _require_strong_key("INTERNAL_API_KEY", current)
        _require_strong_key("INTERNAL_API_KEY_PREVIOUS", previous or current)
    return tuple(key.encode() for key in (current, previous) if key)


def _require_strong_key(name: str, key: str) -> None:
    if weakness := _find_weakness(key):
        raise ValueError(
            f"AGENT_RUNTIME__{name} is {weakness}: set {MIN_KEY_CHARACTERS} characters or more that nobody can guess "
            "(openssl rand -hex 32), or on a loopback HOST AGENT_RUNTIME__DEV=true."
        )


def _find_weakness(key: str) -> str | None:
    if not key:
        return "empty"
    if key.casefold() in WELL_KNOWN:
        return "a well-known one"
    return "too short" if len(key) < MIN_KEY_CHARACTERS else None
