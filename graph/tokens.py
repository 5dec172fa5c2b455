"""How long a text is for a model, without its tokenizer."""


def tokens(text: str) -> int:
    """Estimated, rather too many than too few: English has about four bytes a token, code three, Cyrillic more."""
    return (len(text.encode(errors="replace")) + 2) // 3
