"""The version of the service, read from the installed package or from pyproject.toml."""

VERSION = "0.1.0"
