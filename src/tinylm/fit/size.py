"""The most accurate committee that fits into a given size on disk.

The order in which parts are given up was measured on AG News (1,000 texts per label). 8 bits cost no
accuracy. The second and third encoder together add one percentage point. Halving the vocabulary costs
more the smaller it gets. The TF-IDF member is small and always kept, unless it would be too large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
# Of the TF-IDF member, labels times tokens: with more it would be larger than all encoders, and its
# training would take gigabytes.
MOST_TFIDF_WEIGHTS = 5_000_000


@dataclass(frozen=True)
class StorageForm:
    """The form in which a committee is stored.

    Attributes:
        encoders: members that are encoders.
        vocabulary: tokens at most.
        int8: whether matrices are stored in 8 bits.
        tfidf: whether it has a TF-IDF member too.
    """

    encoders: int
    vocabulary: int
    int8: bool
    tfidf: bool = True

    def with_tfidf_where_possible(self, n_labels: int, n_tokens: int) -> StorageForm:
        """The same without a TF-IDF member where that would be too large."""
        return replace(self, tfidf=self.tfidf and n_labels * n_tokens <= MOST_TFIDF_WEIGHTS)


def storage_forms(encoders: int, vocabulary: int, tfidf: bool = True) -> list[StorageForm]:
    """Forms of a committee, the most accurate first.

    Args:
        encoders: that it would have if size did not matter.
        vocabulary: tokens that it would have then.
        tfidf: whether it has a TF-IDF member too.
    """
    smaller = [
        StorageForm(count, tokens, True, tfidf)
        for tokens, count in FALLBACKS
        if count <= encoders and tokens <= vocabulary and (count, tokens) != (encoders, vocabulary)
    ]
    return [StorageForm(encoders, vocabulary, int8, tfidf) for int8 in (False, True)] + smaller


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
    if form.tfidf:
        total += member + label_names + each * tokens * n_labels + 4 * (2 * tokens + n_labels)
    return total
