"""Timestamps as ISO 8601 text in UTC."""

from datetime import UTC, datetime, timedelta


def utc_timestamp() -> str:
    """Return the present time. All timestamps have the same length, so that their texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def timestamp_ago(seconds: float) -> str:
    """Return the time `seconds` before now."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")
