"""Text to WordPiece ids, as bert-base-uncased does it.

The vocabulary is the tokenizer: two tokenizers with the same list of tokens are the same. The work is
done by HuggingFace `tokenizers`; what this file adds is that very long texts cost no more than their
first tokens, and that a vocabulary can be cut down to the tokens in use.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tinylm.errors import UserError
from tinylm.system.paths import cached, find_local
from tinylm.system.plain_json import read_json
from tinylm.text.prefix import CHARACTERS_PER_TOKEN, MAX_WORD, encode_prefixes, why_no_text
from tinylm.text.store import TokenIds

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
OPTIONS = "tinylm"  # entry of the configuration for options that transformers does not know
HEAD, HEAD_TAIL = LONG_TEXTS = ("head", "head-tail")
CONTINUED = "##"  # in front of a token that is not the beginning of a word
BERT = "bert-base-uncased"
MAX_VOCAB = 1 << 16  # ids are stored as uint16
MIN_TRAINED_VOCAB = 300
MAX_STRIPPED_ALPHABET = 200  # characters of a vocabulary trained without accents; rarer ones become [UNK]
WITHOUT_SPACES = {"THAI", "LAO", "KHMER", "MYANMAR", "HIRAGANA", "KATAKANA"}
LONGEST_PIECE = 8  # characters of a token in these scripts; longer ones hide the words in them
MIN_SCRIPT_SHARE = 0.001  # of the letters; the texts are not written in a script with fewer


class Tokenizer:
    """Lower-casing WordPiece tokenizer over a list of tokens.

    Args:
        vocab: the tokens; a token's id is its position.
        strip_accents: whether to read text as bert-base-uncased does: without accents, vowel signs and
            other marks, and a word with one unknown character is unknown as a whole. Otherwise
            marks stay, only the unknown characters are unknown, emoji stand alone, and sentences in
            scripts without spaces are cut into the pieces that the vocabulary knows.
        long_texts: what is read of a text that is too long: "head", its beginning, or "head-tail", half
            as much of it and as many tokens of its end.

    Attributes:
        vocab, strip_accents, long_texts: as above.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        special_ids: `int64 [5]`, all of these.
    """

    def __init__(self, vocab: Sequence[str], *, strip_accents: bool = True, long_texts: str = HEAD) -> None:
        self.vocab, self.strip_accents, self.long_texts = list(vocab), strip_accents, long_texts
        if long_texts not in LONG_TEXTS:
            raise UserError(f"long_texts is {long_texts!r}; expected {' or '.join(LONG_TEXTS)}.")
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
        pieces = (token.removeprefix(CONTINUED) for token in self.vocab if token not in SPECIAL_TOKENS)
        self._backend = _backend(ids, strip_accents, sorted(set().union(*pieces)))
        self._backend.post_processor = processors.BertProcessing(
            ("[SEP]", self.sep_id), ("[CLS]", self.cls_id)
        )
        self._backend.add_special_tokens(list(SPECIAL_TOKENS))

    def __len__(self) -> int:
        return len(self.vocab)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell one tokenizer from another."""
        content = "\n".join(self.vocab)
        if not self.strip_accents:
            content += "\n\naccents stay"
        if self.long_texts != HEAD:
            content += f"\n\n{self.long_texts}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def letters(self) -> np.ndarray:
        """How many characters each token has that begins with a letter, `int64 [vocab]`; 0 for the others."""
        pieces = [token.removeprefix(CONTINUED) for token in self.vocab]
        lengths = [len(piece) if unicodedata.category(piece[0])[0] in "LM" else 0 for piece in pieces]
        return np.array(lengths, np.int64) * ~np.isin(np.arange(len(self)), self.special_ids)

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
            row = next(i for i, text in enumerate(texts) if why_no_text(text) in ("no text", "not UTF-8"))
            raise UserError(f"Text {row + 1} is {texts[row]!r:.60}; expected a string of Unicode.") from error
        rows = [
            [
                self.cls_id,
                *(part for piece in self._read(text, encoding, room) for part in piece[0]),
                self.sep_id,
            ]
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        return TokenIds.from_lists(rows)

    def _read(self, text: str, encoding: Any, room: int) -> list[tuple[list[int], Any, int]]:
        """What is read of a text: for one or two pieces ids, encoding and the text's first character in it.

        `encoding` is that of a prefix with more than `room` tokens, or of the whole text.
        """
        ids = encoding.ids
        if self.long_texts == HEAD or len(ids) <= room:
            return [(ids[:room], encoding, 0)]
        head = room // 2
        # As with prefixes, enough characters for the tokens and a word that the cut may change.
        begin = max(0, len(text) - CHARACTERS_PER_TOKEN * (room + MAX_WORD))
        (suffix,) = self._backend.encode_batch([text[begin:]], add_special_tokens=False)
        tail = suffix.ids[len(suffix.ids) - min(room - head, len(suffix.ids)) :]
        return [(ids[:head], encoding, 0), (tail, suffix, begin)]

    def spans(self, text: str, max_tokens: int = 128) -> tuple[list[int], list[tuple[int, int]], int]:
        """How `encode` reads one text.

        Returns:
            The ids without [CLS] and [SEP]; where each lies in the text (start, end); and the end of
            what is read, the length of the text where that is all of it.
        """
        room = max_tokens - 2
        (encoding,) = encode_prefixes(self._backend.encode_batch, [text], room)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for piece, origin, begin in (pieces := self._read(text, encoding, room)):
            first = 0 if origin is encoding else len(origin.ids) - len(piece)
            ids += piece
            spans += [(begin + a, begin + b) for a, b in origin.offsets[first : first + len(piece)]]
        reads_the_end = len(encoding) <= room or len(pieces) > 1
        return ids, spans, len(text) if reads_the_end else spans[-1][1]

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
        vocab = [self.vocab[i] for i in ids]
        return Tokenizer(vocab, strip_accents=self.strip_accents, long_texts=self.long_texts)

    def reading(self, long_texts: str) -> Tokenizer:
        """The same tokenizer with another way to read long texts."""
        return Tokenizer(self.vocab, strip_accents=self.strip_accents, long_texts=long_texts)

    def save_vocab(self, folder: Path) -> None:
        """Write only what `load_tokenizer` needs into an existing folder: `vocab.txt`, and options if any."""
        (Path(folder) / VOCAB_FILE).write_bytes(("\n".join(self.vocab) + "\n").encode())
        if self._options():
            _write_json(Path(folder) / CONFIG_FILE, self._options())

    def save_backend(self, folder: Path) -> None:
        """Write only `tokenizer.json`, which the library `tokenizers` reads, into an existing folder."""
        self._backend.save(str(Path(folder) / TOKENIZER_FILE))
        if self._options():
            _write_json(Path(folder) / CONFIG_FILE, self._options())

    def save(self, folder: Path, max_tokens: int) -> None:
        """Write `vocab.txt` and what `transformers.AutoTokenizer` reads, into an existing folder.

        Args:
            folder: where to.
            max_tokens: the longest text of the model beside it. `tokenizer.json` says so to all who use
                it as it is; `transformers` ignores that and cuts where it is called with `truncation=True`.
        """
        folder = Path(folder)
        self.save_vocab(folder)
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.enable_truncation(max_tokens)
        backend.save(str(folder / TOKENIZER_FILE))
        config = {
            # PreTrainedTokenizerFast takes `tokenizer.json` as it is, BertTokenizer makes its own of it.
            "tokenizer_class": "BertTokenizer" if self.strip_accents else "PreTrainedTokenizerFast",
            "do_lower_case": True,
            "model_max_length": max_tokens,
            **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS},
            **self._options(),
        }
        _write_json(folder / CONFIG_FILE, config)

    def _options(self) -> dict[str, Any]:
        """What `load_tokenizer` must know beside the vocabulary; nothing where it is as BERT's."""
        if self.strip_accents and self.long_texts == HEAD:
            return {}
        return {OPTIONS: {"strip_accents": self.strip_accents, "long_texts": self.long_texts}}


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Load a vocabulary by name or from a file.

    Args:
        name: `bert-base-uncased` (from `$TINYLM_DATA`, the cache folder, or downloaded into it from the
            HuggingFace hub), a `vocab.txt`, or a folder that holds one or the `tokenizer.json` of a
            lower-casing BERT.

    Raises:
        UserError: no such file, not UTF-8, an empty line, a vocabulary that `Tokenizer` refuses, or a
            tokenizer that is none of ours and keeps capitals or accents.
    """
    path = _bert_vocab() if name == BERT else Path(name)
    options: dict[str, Any] = {}
    if path.is_dir():
        if not (path / VOCAB_FILE).is_file() and (path / TOKENIZER_FILE).is_file():
            tokenizer = _from_tokenizer_file(path / TOKENIZER_FILE)
            if (path / CONFIG_FILE).is_file():
                tokenizer = tokenizer.reading(_read_options(path / CONFIG_FILE).get("long_texts", HEAD))
            return tokenizer
        if (path / CONFIG_FILE).is_file():
            options = _read_options(path / CONFIG_FILE)
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
        return Tokenizer(vocab, **options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_options(path: Path) -> dict[str, Any]:
    """Arguments of `Tokenizer` out of a `tokenizer_config.json`, ours or that of a BERT."""
    raw = read_json(path)
    if OPTIONS in raw:
        options = raw[OPTIONS]
        if not isinstance(options, dict) or "strip_accents" not in options:
            raise UserError(f"{path} is damaged: '{OPTIONS}' lacks 'strip_accents'.")
        return {
            "strip_accents": bool(options["strip_accents"]),
            "long_texts": options.get("long_texts", HEAD),
        }
    if raw.get("do_lower_case") is False or raw.get("strip_accents") is False:
        raise UserError(f"{path} keeps capitals or accents; expected the tokenizer of an uncased BERT.")
    return {}


def _from_tokenizer_file(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, which is all that newer `transformers` write."""
    raw = read_json(path)
    try:
        kind, normalizer = raw["model"]["type"], raw["normalizer"] or {}
        ours = normalizer == json.loads(_normalizer(strip_accents=False).__getstate__())
        is_bert = (normalizer.get("lowercase"), normalizer.get("strip_accents") is not False) == (True, True)
        if kind != "WordPiece" or not (ours or is_bert):
            raise UserError(
                f"{path} is a {kind} tokenizer; expected WordPiece that lower-cases and strips accents."
            )
        ids: dict[str, int] = raw["model"]["vocab"]
        return Tokenizer(sorted(ids, key=ids.__getitem__), strip_accents=not ours)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); expected the tokenizer of a BERT.") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_vocabulary_size(size: int) -> None:
    """Refuse a number of tokens that `train_tokenizer` cannot give."""
    if not MIN_TRAINED_VOCAB <= size <= MAX_VOCAB:
        raise UserError(f"Vocabulary size is {size:,}; expected {MIN_TRAINED_VOCAB} to {MAX_VOCAB:,}.")


def train_tokenizer(
    texts: Iterable[str], size: int, *, first: Sequence[str] = (), strip_accents: bool = False
) -> Tokenizer:
    """Learn a WordPiece vocabulary from texts; the same texts give the same vocabulary.

    Args:
        texts: held in memory while training.
        size: wanted number of tokens, special ones included, 300 to 65,536. Fewer come out where the
            texts have no more to offer.
        first: more texts, which matter most: up to half of the tokens are theirs before `texts` and
            these together give the others.
        strip_accents: see `Tokenizer`.

    Raises:
        UserError: a size out of range, or texts without a single character.
    """
    check_vocabulary_size(size)
    texts = list(texts)
    counts = [_character_counts(group, strip_accents) for group in (first, texts)]
    if not any(counts):
        raise UserError("No text to learn a vocabulary from.")
    if strip_accents:
        alphabet = sorted(_by_count(counts[0] + counts[1])[: min(MAX_STRIPPED_ALPHABET, size // 4)])
        return Tokenizer(_learn([*texts, *first], size, alphabet, strip_accents))
    alphabet = _alphabet(counts, size // 2)
    tokens = _learn(first, size // 2, alphabet, strip_accents) if first else []
    tokens += _learn([*texts, *first], size, alphabet, strip_accents)
    return Tokenizer(list(dict.fromkeys(tokens))[:size], strip_accents=False)


def _character_counts(texts: Iterable[str], strip_accents: bool) -> Counter[str]:
    """How often each character is left after normalisation, white space apart."""
    normalizer = _normalizer(strip_accents)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    del counts[" "]
    return counts


def _by_count(counts: Counter[str]) -> list[str]:
    """Characters, the most frequent first."""
    return sorted(counts, key=lambda character: (-counts[character], character))


def _alphabet(groups: Sequence[Counter[str]], most_tokens: int) -> list[str]:
    """Characters for at most `most_tokens` tokens; those of the first group come before those of the second.

    Letters of a script to which less than one letter in a thousand belongs are left out: a model
    learns no language from a few foreign names, and should not claim to.
    """
    chosen: dict[str, None] = {}
    for counts in groups:
        scripts: Counter[str] = Counter()
        for character, count in counts.items():
            scripts[_script(character)] += count
        fewest = MIN_SCRIPT_SHARE * (scripts.total() - scripts[""])
        used = (c for c in _by_count(counts) if not _script(c) or scripts[_script(c)] >= fewest)
        chosen |= dict.fromkeys(used)
    tokens = np.cumsum([2 if _continues(character) else 1 for character in chosen])
    return sorted(list(chosen)[: np.searchsorted(tokens, most_tokens, "right")])


def _script(character: str) -> str:
    """What the Unicode name of a letter or mark begins with, such as LATIN, CJK or THAI; else nothing."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    return unicodedata.name(character, "").partition(" ")[0]


def _continues(character: str) -> bool:
    """Whether a character can stand inside a word: punctuation, emoji and Chinese characters cannot."""
    text = _normalizer(strip_accents=False).normalize_str(f"a{character}")
    return len(_pre_tokenizer(False, f"a{character}").pre_tokenize_str(text)) == 1


def _learn(texts: Sequence[str], size: int, alphabet: Sequence[str], strip_accents: bool) -> list[str]:
    """Special tokens, the alphabet and the pieces that a trainer finds, the most frequent first."""
    backend = _backend({}, strip_accents, alphabet)
    if not strip_accents:
        continued = [character for character in alphabet if _continues(character)]
    else:
        continued = list(alphabet)
    # The trainer numbers characters as it meets words in a hash map, whose order changes from run to
    # run, and breaks ties by number. Naming them as special tokens fixes the numbers and so the result.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # Where there are no spaces, a sentence that occurs once would become a token as a whole.
        min_frequency=0 if strip_accents else 2,
        show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(CONTINUED + character for character in continued)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    backend.train_from_iterator(texts, trainer)
    ids = backend.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    return tokens if strip_accents else [token for token in tokens if not _is_phrase(token)]


def _is_phrase(token: str) -> bool:
    """Whether a token is so long that it must be several words of a script without spaces."""
    piece = token.removeprefix(CONTINUED)
    return len(piece) > LONGEST_PIECE and _script(piece[-1]) in WITHOUT_SPACES


def _normalizer(strip_accents: bool) -> normalizers.Normalizer:
    if strip_accents:
        return normalizers.BertNormalizer(lowercase=True)
    return normalizers.Sequence(
        [
            normalizers.NFKC(),  # one form for a letter with its marks, full-width letters, ligatures
            normalizers.Replace("\u0130", "i"),  # the Turkish I with a dot, lower-cased to two characters
            normalizers.Replace(tokenizers.Regex("[\ufe00-\ufe0f]"), ""),  # variants of emoji
            normalizers.BertNormalizer(strip_accents=False, lowercase=True),
        ]
    )


def _pre_tokenizer(strip_accents: bool, alphabet: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    """Cuts at white space and punctuation, and around every Chinese character."""
    bert = pre_tokenizers.BertPreTokenizer()
    if strip_accents:
        return bert
    # Emoji and other symbols stand alone. So do unknown characters, with which WordPiece would give up
    # the whole word, and what is longer than it takes: a sentence in a script without spaces.
    known = "".join(re.escape(character) for character in alphabet)
    parts = tokenizers.Regex(rf"\p{{So}}|[{known}&&\P{{So}}]{{1,{MAX_WORD}}}")
    return pre_tokenizers.Sequence([bert, pre_tokenizers.Split(parts, "isolated")])


def _backend(ids: dict[str, int], strip_accents: bool, alphabet: Sequence[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordPiece(
            ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD, continuing_subword_prefix=CONTINUED
        )
    )
    backend.normalizer = _normalizer(strip_accents)
    backend.pre_tokenizer = _pre_tokenizer(strip_accents, alphabet)
    backend.decoder = tokenizers.decoders.WordPiece(prefix=CONTINUED)
    return backend


def _bert_vocab() -> Path:
    """Path of bert-base-uncased's vocabulary, downloaded if necessary."""
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
