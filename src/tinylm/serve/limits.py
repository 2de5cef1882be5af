"""What a request may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking the server away from the others.

    Attributes:
        body_bytes: in the body of one request.
        held_bytes: in the bodies of all requests together.
        texts: in one request.
        text_characters: in one text. A model reads far less; see `encode_prefixes`.
        batch_texts: that are computed together.
        waiting_texts: in the queue.
        waiting_seconds: until the texts of a request are computed, and for which requests that are computed
            together may take. A long queue takes up bursts; where more is sent than can be computed,
            every response takes as long as the queue is.
        header_seconds: from connecting until the head of a request has arrived.
        body_seconds: from then until its body has arrived.
        response_seconds: from then until the client has taken the response.
        idle_seconds: for which a connection stays open between two requests. Proxies keep theirs
            for 60 seconds. If the server closed first, it could do so just as the proxy sends a
            request, whose sender then sees "502 Bad Gateway".
    """

    body_bytes: int = 1 << 20
    held_bytes: int = 1 << 28
    texts: int = 256
    text_characters: int = 20_000
    batch_texts: int = 64
    waiting_texts: int = 4096
    waiting_seconds: float = 10
    header_seconds: float = 10
    body_seconds: float = 10
    response_seconds: float = 20
    idle_seconds: int = 75
