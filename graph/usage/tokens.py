"""How long a text is for a model, without its tokenizer."""

BYTES_PER_TOKEN = 3
"""Prose has more; dense data (hex, base64) can have less, and is estimated too low."""


def estimate_text_tokens(text: str) -> int:
    """Estimated, rather too many than too few: English has about four bytes a token, code three, Cyrillic more."""
    return (len(text.encode(errors="replace")) + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN
