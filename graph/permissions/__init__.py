"""The permission checks of tool calls."""
