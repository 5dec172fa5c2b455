"""How long a text is for a model, without its tokenizer."""

BYTES_A_TOKEN = 3
"""Prose has more; dense data (hex, base64) can have less, and is estimated too low."""


def tokens(text: str) -> int:
    """Estimated, rather too many than too few: English has about four bytes a token, code three, Cyrillic more."""
    return (len(text.encode(errors="replace")) + BYTES_A_TOKEN - 1) // BYTES_A_TOKEN
