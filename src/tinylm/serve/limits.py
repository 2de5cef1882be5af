"""What a request may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking the server away from the others.

    Attributes:
        body_bytes: of one request.
        held_bytes: of the bodies of all requests together.
        texts: in one request.
        text_characters: of one text. A model reads far less; see `encode_prefixes`.
        batch_texts: computed together.
        waiting_texts: in the queue.
        header_seconds: until the head of a request is there.
        body_seconds: until its body is there.
        answer_seconds: from then until the answer has been sent.
    """

    body_bytes: int = 1 << 20
    held_bytes: int = 1 << 28
    texts: int = 256
    text_characters: int = 20_000
    batch_texts: int = 64
    waiting_texts: int = 4096
    header_seconds: float = 10
    body_seconds: float = 10
    answer_seconds: float = 20
