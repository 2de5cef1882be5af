"""The most accurate committee that fits into a given size on disk.

The order in which parts are given up was measured on AG News (1,000 texts per label). 8 bits cost no
accuracy. The second and third encoder together add one percentage point. Halving the vocabulary costs
more the smaller it gets. The TF-IDF member takes at most a quarter of the size, with a smaller table if
need be: on AG News, with 16,384 rows it is 0.021 below a model without collisions, with 65,536 rows 0.007,
with 262,144 rows 0.003.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinylm.model.config import ModelConfig
from tinylm.text.tokenizer import Tokenizer

# Vocabularies to fall back to, and how many encoders are kept with each.
FALLBACKS = (
    (30_000, 2),
    (30_000, 1),
    (16_000, 2),
    (16_000, 1),
    (8_000, 1),
    (4_000, 1),
    (2_000, 1),
    (1_000, 1),
)
PER_MEMBER = 4_000  # bytes of configuration beside the weights of a member
SHARED = 30_000  # bytes of card and records
# Rows of the TF-IDF member's table. With more it is hardly more accurate, with fewer it is no use.
MOST_ROWS, LEAST_ROWS = 2**18, 2**12
# Few texts have few n-grams: of 30 texts of 240 characters about 12,000.
ROWS_PER_CHARACTER = 2
MOST_TFIDF_WEIGHTS = 2**24  # rows times labels
TFIDF_SHARE = 0.25  # of the size of the committee


@dataclass(frozen=True)
class StorageForm:
    """The form in which a committee is stored.

    Attributes:
        encoders: members that are encoders.
        vocabulary: tokens at most.
        int8: whether matrices are stored in 8 bits.
        tfidf_rows: of the TF-IDF member's table; 0 for none.
    """

    encoders: int
    vocabulary: int
    int8: bool
    tfidf_rows: int = 0


def tfidf_rows(characters: int, n_labels: int, most_bytes: float | None) -> int:
    """Rows of the TF-IDF member's table, a power of two; 0 if it would be too large.

    Args:
        characters: of all training texts.
        n_labels: labels.
        most_bytes: for the whole committee; None for any size.
    """
    rows = MOST_ROWS
    while rows > LEAST_ROWS and rows >= 2 * ROWS_PER_CHARACTER * characters:
        rows //= 2
    while rows * n_labels > MOST_TFIDF_WEIGHTS or (
        most_bytes is not None and tfidf_bytes(rows, n_labels) > TFIDF_SHARE * most_bytes
    ):
        rows //= 2
    return rows if rows >= LEAST_ROWS else 0


def tfidf_bytes(rows: int, n_labels: int) -> int:
    """Bytes of the TF-IDF member's weights: 8 bits each, a scale and an idf for each row, biases."""
    return rows * (n_labels + 8) + 4 * n_labels


def storage_forms(encoders: int, vocabulary: int, tfidf_rows: int = 0) -> list[StorageForm]:
    """Forms of a committee, the most accurate first.

    Args:
        encoders: that it would have if size did not matter.
        vocabulary: tokens that it would have then.
        tfidf_rows: as of `StorageForm`.
    """
    smaller = [
        StorageForm(count, tokens, True, tfidf_rows)
        for tokens, count in FALLBACKS
        if count <= encoders and tokens <= vocabulary and (count, tokens) != (encoders, vocabulary)
    ]
    return [StorageForm(encoders, vocabulary, int8, tfidf_rows) for int8 in (False, True)] + smaller


def storage_forms_of_one_vocabulary(encoders: int, vocabulary: int, tfidf_rows: int = 0) -> list[StorageForm]:
    """`storage_forms` where the vocabulary is that of a pre-trained model, and cannot be smaller."""
    fewer = [StorageForm(count, vocabulary, True, tfidf_rows) for count in range(encoders, 0, -1)]
    return [StorageForm(encoders, vocabulary, False, tfidf_rows), *fewer]


def size_of(form: StorageForm, tokenizer: Tokenizer, configs: list[ModelConfig], n_labels: int) -> int:
    """Bytes on disk at most of a committee in a form.

    Args:
        form: its `vocabulary` is that of `tokenizer`.
        tokenizer: of all members.
        configs: of the encoders.
        n_labels: labels.
    """
    tokens, each = len(tokenizer), 1 if form.int8 else 4
    words = sum(len(token.encode()) + 1 for token in tokenizer.vocab)
    # vocab.txt; in fp32 also tokenizer.json, which repeats it with numbers and quotation marks.
    member = PER_MEMBER + (words if form.int8 else 2 * words + 20 * tokens)
    label_names = 200 * n_labels
    total = SHARED + 8 * tokens  # how often pre-training saw each token
    for config in configs:
        width = config.width
        matrices = (tokens + config.max_tokens) * width + config.layers * 12 * width**2 + width**2
        rows = tokens + config.max_tokens + config.layers * 9 * width + width + n_labels
        small = config.layers * 13 * width + 5 * width + n_labels
        total += member + label_names + each * (matrices + width * n_labels) + 4 * (small + rows)
    if form.tfidf_rows:
        total += PER_MEMBER + label_names + tfidf_bytes(form.tfidf_rows, n_labels)
    return total
