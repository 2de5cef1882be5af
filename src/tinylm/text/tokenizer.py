"""Text to WordPiece ids, as bert-base-uncased does it.

The vocabulary is the tokenizer: two tokenizers with the same list of tokens are the same. The work is
done by HuggingFace `tokenizers`; what this file adds is that very long texts cost no more than their
first tokens, and that a vocabulary can be cut down to the tokens in use.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tinylm.errors import UserError
from tinylm.system.paths import cached, find_local
from tinylm.text.prefix import MAX_WORD, encode_prefixes
from tinylm.text.store import TokenIds
from tinylm.text.tables import why_unusable

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB_FILE, TOKENIZER_FILE = "vocab.txt", "tokenizer.json"
BERT = "bert-base-uncased"
MAX_VOCAB = 1 << 16  # ids are stored as uint16
MIN_TRAINED_VOCAB = 300
MAX_ALPHABET = 200  # characters of a trained vocabulary; rarer ones become [UNK]


class Tokenizer:
    """Lower-casing WordPiece tokenizer over a list of tokens.

    Attributes:
        vocab: the tokens; a token's id is its position.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        special_ids: `int64 [5]`, all of these.
    """

    def __init__(self, vocab: Sequence[str]) -> None:
        self.vocab = list(vocab)
        ids = {token: i for i, token in enumerate(self.vocab)}
        if len(ids) < len(self.vocab):
            twice = next(token for i, token in enumerate(self.vocab) if ids[token] != i)
            raise UserError(f"The vocabulary has {twice!r} more than once; every token must be there once.")
        if missing := [token for token in SPECIAL_TOKENS if token not in ids]:
            raise UserError(
                f"The vocabulary lacks {', '.join(missing)}; it needs {', '.join(SPECIAL_TOKENS)}."
            )
        if self.vocab[0] != SPECIAL_TOKENS[0]:
            raise UserError(f"The vocabulary begins with {self.vocab[0]!r}; expected {SPECIAL_TOKENS[0]}.")
        if len(self.vocab) > MAX_VOCAB:
            raise UserError(
                f"The vocabulary has {len(self.vocab):,} tokens; at most {MAX_VOCAB:,} are possible."
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[t] for t in SPECIAL_TOKENS)
        self.special_ids = np.array([ids[token] for token in SPECIAL_TOKENS], dtype=np.int64)
        self._backend = _backend(ids)
        self._backend.post_processor = processors.BertProcessing(
            ("[SEP]", self.sep_id), ("[CLS]", self.cls_id)
        )
        self._backend.add_special_tokens(list(SPECIAL_TOKENS))

    def __len__(self) -> int:
        return len(self.vocab)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell one vocabulary from another."""
        return hashlib.sha256("\n".join(self.vocab).encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str], max_tokens: int = 128) -> TokenIds:
        """Token ids of each text, [CLS] in front and [SEP] behind.

        A text of 10 MB costs what a paragraph costs, see `prefix.py`.

        Args:
            texts: any number of texts, of any length.
            max_tokens: longest paragraph, [CLS] and [SEP] included; at least 3. The paper uses 128.

        Returns:
            One paragraph per text, in order; [CLS] [SEP] alone for a text without tokens.

        Raises:
            UserError: something that is no text, or text that UTF-8 cannot hold.
        """
        if max_tokens < 3:
            raise UserError(
                f"max_tokens is {max_tokens}; at least 3 are needed, for [CLS], a token and [SEP]."
            )
        if isinstance(texts, str):
            raise UserError(f"the texts were {texts!r:.60}; expected a list of texts.")
        room = max_tokens - 2
        try:
            encodings = encode_prefixes(self._backend.encode_batch_fast, texts, room)
        except TypeError as error:
            row = next(i for i, text in enumerate(texts) if why_unusable(text) in ("no text", "not UTF-8"))
            raise UserError(f"Text {row + 1} is {texts[row]!r:.60}; expected a string of Unicode.") from error
        rows = [[self.cls_id, *encoding.ids[:room], self.sep_id] for encoding in encodings]
        return TokenIds.from_lists(rows)

    def spans(self, text: str, max_tokens: int = 128) -> tuple[list[int], list[tuple[int, int]], int]:
        """How `encode` reads one text.

        Returns:
            The ids without [CLS] and [SEP]; where each lies in the text (start, end); and the end of
            what is read, the length of the text where that is all of it.
        """
        room = max_tokens - 2
        (encoding,) = encode_prefixes(self._backend.encode_batch, [text], room)
        ids, spans = encoding.ids[:room], encoding.offsets[:room]
        return ids, spans, len(text) if len(encoding) <= room else spans[-1][1]

    def reduced(self, keep: np.ndarray) -> Tokenizer:
        """A tokenizer that knows only the tokens `keep` and the special tokens, in the old order.

        Texts whose tokens are all kept are cut into the same tokens as before: WordPiece takes the
        longest token that fits, again and again. The longest one that fits is kept, and a smaller
        vocabulary has no longer one. The same goes for words that become [UNK] for want of a character,
        as they do in every vocabulary that has all characters of its tokens as tokens of their own.

        Args:
            keep: `int [n]`, ids in this vocabulary, in any order.
        """
        ids = np.union1d(keep, self.special_ids)
        return Tokenizer([self.vocab[i] for i in ids])

    def save_vocab(self, folder: Path) -> None:
        """Write only `vocab.txt`, which `load_tokenizer` reads, into an existing folder."""
        (Path(folder) / VOCAB_FILE).write_bytes(("\n".join(self.vocab) + "\n").encode())

    def save_backend(self, folder: Path) -> None:
        """Write only `tokenizer.json`, which the library `tokenizers` reads, into an existing folder."""
        self._backend.save(str(Path(folder) / TOKENIZER_FILE))

    def save(self, folder: Path, max_tokens: int) -> None:
        """Write `vocab.txt` and what `transformers.AutoTokenizer` reads, into an existing folder.

        Args:
            folder: where to.
            max_tokens: the longest text of the model beside it; `transformers` cuts there.
        """
        folder = Path(folder)
        self.save_vocab(folder)
        self.save_backend(folder)
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": max_tokens,
            **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Load a vocabulary by name or from a file.

    Args:
        name: `bert-base-uncased` (from `$TINYLM_DATA`, the cache folder, or downloaded into it from the
            HuggingFace hub), a `vocab.txt`, or a folder that holds one or the `tokenizer.json` of a
            lower-casing BERT.

    Raises:
        UserError: no such file, not UTF-8, an empty line, or a vocabulary that `Tokenizer` refuses.
    """
    path = _bert_vocab() if name == BERT else Path(name)
    if path.is_dir():
        if not (path / VOCAB_FILE).is_file() and (path / TOKENIZER_FILE).is_file():
            return _from_tokenizer_file(path / TOKENIZER_FILE)
        path = path / VOCAB_FILE
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; expected '{BERT}', a {VOCAB_FILE} or a folder that holds one."
        )
    try:
        # Not splitlines(): some tokens are what Unicode calls line ends.
        vocab = path.read_bytes().decode().replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); expected one token per line.") from error
    if "" in vocab:
        raise UserError(f"{path}, line {vocab.index('') + 1} is empty; expected one token per line.")
    try:
        return Tokenizer(vocab)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _from_tokenizer_file(path: Path) -> Tokenizer:
    """The vocabulary in a `tokenizer.json`, which is all that newer `transformers` write."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        kind, lowercase = raw["model"]["type"], (raw["normalizer"] or {}).get("lowercase")
        if (kind, lowercase) != ("WordPiece", True):
            raise UserError(f"{path} is a {kind} tokenizer; expected WordPiece that lower-cases.")
        ids: dict[str, int] = raw["model"]["vocab"]
        return Tokenizer(sorted(ids, key=ids.__getitem__))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); expected the tokenizer of a BERT.") from error


def check_vocabulary_size(size: int) -> None:
    """Refuse a number of tokens that `train_tokenizer` cannot give."""
    if not MIN_TRAINED_VOCAB <= size <= MAX_VOCAB:
        raise UserError(f"Vocabulary size is {size:,}; expected {MIN_TRAINED_VOCAB} to {MAX_VOCAB:,}.")


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a WordPiece vocabulary from texts; the same texts give the same vocabulary.

    Args:
        texts: held in memory while training.
        size: wanted number of tokens, special ones included, 300 to 65,536. Fewer come out where the
            texts have no more to offer.

    Raises:
        UserError: a size out of range, or texts without a single character.
    """
    check_vocabulary_size(size)
    backend = _backend({})
    texts = list(texts)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(backend.normalizer.normalize_str(text))
    del counts[" "]
    if not counts:
        raise UserError("No text to learn a vocabulary from.")
    by_count = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted(by_count[: min(MAX_ALPHABET, size // 4)])
    # The trainer numbers characters as it meets words in a hash map, whose order changes from run to
    # run, and breaks ties by number. Naming them as special tokens fixes the numbers and so the result.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    backend.train_from_iterator(texts, trainer)
    ids = backend.get_vocab()
    return Tokenizer(sorted(ids, key=ids.__getitem__))


def _backend(ids: dict[str, int]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordPiece(
            ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD, continuing_subword_prefix="##"
        )
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece(prefix="##")
    return backend


def _bert_vocab() -> Path:
    """Path of bert-base-uncased's vocabulary, downloaded if need be."""
    name = f"{BERT}/{VOCAB_FILE}"
    if found := find_local(name):
        return found
    # Imported late: it is slow to import and only needed once.
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"google-bert/{BERT}", VOCAB_FILE, local_dir=cached(BERT)))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise UserError(
            f"The vocabulary of {BERT} could not be downloaded; "
            f"put its {VOCAB_FILE} at {cached(name)}, or into TINYLM_DATA as {name}."
        ) from error
