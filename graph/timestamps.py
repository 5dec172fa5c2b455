"""Timestamps as ISO 8601 text in UTC."""

from datetime import UTC, datetime, timedelta


def utc_timestamp() -> str:
    """ISO 8601 in UTC, always of the same length."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def timestamp_ago(seconds: float) -> str:
    """The moment `seconds` before now, in the form of `now`."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")
