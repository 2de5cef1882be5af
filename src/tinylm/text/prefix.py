"""The first tokens of texts of any length, at the price of a paragraph.

Here and not in `tokenizer.py` because predicting without PyTorch needs it too: this file
imports nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_WORD = 100  # characters; WordPiece turns longer words into one [UNK]
CHARACTERS_PER_TOKEN = 8  # a first guess that suits most languages
MAX_CHARACTERS = 1_000_000


def why_no_text(text: object) -> str | None:
    """Why something is not a text to compute with, in words to count by; None if it is one."""
    if not isinstance(text, str):
        return "no text"
    if not text or text.isspace():
        return "empty text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None


def encode_prefixes(encode_batch: Callable[..., Any], texts: Sequence[str], tokens: int) -> list[Any]:
    """Encodings that hold the first `tokens` tokens of each text, or more, without special tokens.

    Only as much of a text is read as its first tokens need, so a text of 10 MB costs what a
    paragraph costs. This changes no token: cutting a text can only change the last word before
    the cut, and a word has at most 100 tokens. So a prefix with 100 tokens to spare is enough, and
    one without (white space, endless words) is tried again with eight times the characters, up to
    a million: what stands behind a million characters without a full paragraph is not read.

    Args:
        encode_batch: that of HuggingFace `tokenizers`, or the fast one.
        texts: any number of texts, of any length.
        tokens: how many are wanted.

    Raises:
        TypeError: something that is no text, or text that UTF-8 cannot hold.
    """
    encodings: list[Any] = [None] * len(texts)
    waiting = list(range(len(texts)))
    characters = CHARACTERS_PER_TOKEN * (tokens + MAX_WORD)
    while waiting:
        prefixes = [texts[i][:characters] for i in waiting]
        too_short = []
        for i, encoding in zip(waiting, encode_batch(prefixes, add_special_tokens=False), strict=True):
            encodings[i] = encoding
            if characters < min(len(texts[i]), MAX_CHARACTERS) and len(encoding) < tokens + MAX_WORD:
                too_short.append(i)
        waiting = too_short
        characters = min(8 * characters, MAX_CHARACTERS)
    return encodings
