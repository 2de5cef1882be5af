"""The tokenizer against HuggingFace's, and its vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast, TokenizersBackend  # type: ignore[attr-defined]

from helpers.languages import LANGUAGES, table
from tinylm.errors import UserError
from tinylm.text.prefix import CHARACTERS_PER_TOKEN, MAX_WORD
from tinylm.text.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    load_tokenizer,
    train_tokenizer,
)

PARTS = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeiou"]
TRICKY = [
    "",
    " \t\n ",
    "Baroque Cabaret, re-enter; (no) 42 isle's",
    "ÄÉÎ e\u0301le\u0301 naïve Straße ΣΑΣ",
    "漢字かな 한국어 العربية",
    "😀 tea 😀😀 👩\u200d👩\u200d👧",
    "the [MASK] sat [SEP] on [cls] it",
    "zero\u200bwidth nul\x00 control\x1cchars\ufffd non\u00a0breaking",
    "a" * 100 + " " + "a" * 101,
]


def made_up_texts(n_texts: int, seed: int = 0) -> list[str]:
    """Texts of words glued from syllables, with many words of equal count."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(PARTS, size=rng.integers(1, 4))) for _ in range(500)]
    return [" ".join(rng.choice(words, size=40)) for _ in range(n_texts)]


@pytest.fixture(scope="module", params=[True, False], ids=["as BERT", "accents stay"])
def small(request: pytest.FixtureRequest) -> Tokenizer:
    texts = [*made_up_texts(300), "0123456789 e\u0301 , . ; ( ) - '"]
    return train_tokenizer(texts, 400, strip_accents=request.param)


@pytest.fixture(scope="module")
def reference(small: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenizersBackend:
    """The same tokenizer as HuggingFace makes it, of a vocabulary or of a saved folder."""
    if small.strip_accents:
        return BertTokenizerFast(vocab={token: i for i, token in enumerate(small.vocab)})
    return saved_and_loaded(small, tmp_path_factory.mktemp("tokenizer"))


def saved_and_loaded(tokenizer: Tokenizer, folder: Path) -> TokenizersBackend:
    """As a model's folder gives it to `transformers`."""
    tokenizer.save(folder, 128)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return AutoTokenizer.from_pretrained(folder)


def reference_ids(reference: TokenizersBackend, texts: list[str], max_tokens: int) -> list[list[int]]:
    ids: list[list[int]] = reference(texts, truncation=True, max_length=max_tokens)["input_ids"]
    return ids


def ids_of(tokenizer: Tokenizer, texts: list[str], max_tokens: int = 128) -> list[list[int]]:
    encoded = tokenizer.encode(texts, max_tokens)
    return [encoded[row].tolist() for row in range(len(encoded))]


def tokens_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """Without [CLS] and [SEP]."""
    return [tokenizer.vocab[i] for i in ids_of(tokenizer, [text])[0][1:-1]]


def test_ids_equal_huggingface(small: Tokenizer, reference: TokenizersBackend) -> None:
    texts = TRICKY + made_up_texts(50, seed=1)
    for max_tokens in (3, 17, 128):
        assert ids_of(small, texts, max_tokens) == reference_ids(reference, texts, max_tokens)


def test_bert_ids_equal_huggingface(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLM_DATA", str(data_folder))
    bert = load_tokenizer("bert-base-uncased")
    assert len(bert) == 30_522
    assert [bert.pad_id, bert.unk_id, bert.cls_id, bert.sep_id, bert.mask_id] == [0, 100, 101, 102, 103]
    reference = BertTokenizerFast.from_pretrained(data_folder / "bert-base-uncased")
    assert ids_of(bert, TRICKY) == reference_ids(reference, TRICKY, 128)


def test_saved_folder_loads_in_transformers(small: Tokenizer, tmp_path: Path) -> None:
    loaded = saved_and_loaded(small, tmp_path)
    assert loaded.mask_token_id == small.mask_id
    assert loaded.pad_token_id == small.pad_id
    assert loaded.model_max_length == 128
    texts = TRICKY + made_up_texts(20, seed=2)
    assert ids_of(small, texts) == reference_ids(loaded, texts, 128)
    # Other programs take tokenizer.json as it is, and it truncates.
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert ids_of(small, texts) == [plain.encode(text).ids for text in texts]


@pytest.mark.parametrize("left", ["vocab.txt", "tokenizer.json"])
def test_either_file_of_a_folder_is_enough(small: Tokenizer, tmp_path: Path, left: str) -> None:
    small.save(tmp_path, 128)
    for name in {"vocab.txt", "tokenizer.json"} - {left}:
        (tmp_path / name).unlink()
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == small.fingerprint
    assert ids_of(loaded, TRICKY) == ids_of(small, TRICKY)


def test_only_what_is_needed_is_saved_with_a_store(small: Tokenizer, tmp_path: Path) -> None:
    small.save_vocab(tmp_path)
    options = set() if small.strip_accents else {"tokenizer_config.json"}
    assert {file.name for file in tmp_path.iterdir()} == {"vocab.txt"} | options
    assert load_tokenizer(tmp_path).fingerprint == small.fingerprint


def test_tokenizers_as_they_were_keep_their_fingerprints() -> None:
    """Keys of stored results hold them; computed before there was a choice."""
    assert Tokenizer([*SPECIAL_TOKENS, "a", "b"]).fingerprint == "415b7a1f288eeeb2"
    assert train_tokenizer(made_up_texts(100), 600, strip_accents=True).fingerprint == "1e79d9150572bc64"
    assert train_tokenizer(made_up_texts(100), 600).fingerprint not in (
        "415b7a1f288eeeb2",
        "1e79d9150572bc64",
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["ba", "ca ", " ", "\n", "[MASK]", "é", "e\u0301", "😀", "漢", ", ", "z", "\u0301"]
            ),
            st.integers(1, 900),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([3, 8, 128]),
)
def test_long_texts_are_cut_without_a_trace(
    small: Tokenizer, reference: TokenizersBackend, pieces: list[tuple[str, int]], max_tokens: int
) -> None:
    text = "".join(piece * repeats for piece, repeats in pieces)
    assert ids_of(small, [text], max_tokens) == reference_ids(reference, [text], max_tokens)


def test_a_cut_within_a_word_does_not_change_it(small: Tokenizer, reference: TokenizersBackend) -> None:
    first_guess = CHARACTERS_PER_TOKEN * (1 + MAX_WORD)  # characters read for max_tokens = 3
    texts = [" " * (first_guess - within) + "".join(PARTS) for within in range(30)]
    assert ids_of(small, texts, 3) == reference_ids(reference, texts, 3)
    word = small.encode([texts[0]], 3)[0].tolist()
    assert all(row == word for row in ids_of(small, texts, 3))


def test_ten_megabytes_cost_a_prefix(small: Tokenizer) -> None:
    texts = ["ba ca " * 1_700_000, "😀 " * 5_000_000, " " * 500_000 + "ba"]
    first, second, third = ids_of(small, texts)
    assert first == ids_of(small, ["ba ca " * 200])[0]
    assert second == [small.cls_id, *[small.unk_id] * 126, small.sep_id]
    assert third == ids_of(small, ["ba"])[0]


def test_reduced_vocabulary_keeps_the_tokens_of_covered_texts(small: Tokenizer) -> None:
    texts = made_up_texts(60, seed=3) + ["a stray ß", "漢"]
    kept = np.unique(small.encode(texts[:5] + texts[-2:]).ids)
    reduced = small.reduced(kept)
    assert reduced.vocab == [t for i, t in enumerate(small.vocab) if i in kept or i in small.special_ids]
    covered = 0
    for text in texts:
        before = small.encode([text])[0]
        if np.isin(before, kept).all():
            covered += 1
            after = reduced.encode([text])[0]
            assert [reduced.vocab[i] for i in after] == [small.vocab[i] for i in before]
    assert 7 <= covered < len(texts)


def test_training_is_deterministic_and_orders_the_vocabulary() -> None:
    texts = made_up_texts(100)
    first, second = train_tokenizer(texts, 600), train_tokenizer(iter(texts), 600)
    assert first.vocab == second.vocab
    assert tuple(first.vocab[:5]) == SPECIAL_TOKENS
    assert len(first) <= 600
    words = " ".join(texts).split()
    pieces = first.encode(words).lengths - 2
    assert pieces.mean() < 2 < np.mean([len(word) for word in words])  # it learned more than letters
    assert first.unk_id not in first.encode(texts).ids


def test_head_and_tail_of_long_texts(small: Tokenizer, tmp_path: Path) -> None:
    both = small.reading("head-tail")
    words = made_up_texts(60, seed=4)
    for text in (words[0], " ".join(words), "ba ca " + " ".join(words) * 20 + " do"):
        whole = ids_of(small, [text], 1_000_000)[0][1:-1]
        for max_tokens in (3, 17, 128):
            room = max_tokens - 2
            head = room // 2
            cut = whole if len(whole) <= room else whole[:head] + whole[len(whole) - (room - head) :]
            assert ids_of(both, [text], max_tokens) == [[small.cls_id, *cut, small.sep_id]]
            ids, spans, end = both.spans(text, max_tokens)
            assert (ids, len(spans), end) == (cut, len(cut), len(text))
            assert spans == sorted(spans) and spans[-1][1] == len(text)
    assert both.fingerprint != small.fingerprint
    for left in ("vocab.txt", "tokenizer.json"):
        folder = tmp_path / left
        folder.mkdir()
        both.save(folder, 17)
        for name in {"vocab.txt", "tokenizer.json"} - {left}:
            (folder / name).unlink()
        assert load_tokenizer(folder).fingerprint == both.fingerprint
    with pytest.raises(UserError, match="long_texts is 'tail'; expected head or head-tail"):
        small.reading("tail")


# Other languages


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_read_without_unknown_tokens(language: str, tmp_path: Path) -> None:
    texts = table(language, 60, seed=0)[0]
    tokenizer = train_tokenizer(texts, 1000)
    assert tokenizer.unk_id not in tokenizer.encode(texts).ids
    assert tokenizer.encode(texts).lengths.min() > 4  # no text is one token
    assert ids_of(tokenizer, texts) == reference_ids(saved_and_loaded(tokenizer, tmp_path), texts, 128)


@pytest.mark.parametrize(
    ("one", "other"),
    [("schon", "schön"), ("เสือ", "เสื้อ"), ("मेल", "मैल"), ("все", "всё"), ("pêche", "péché"), ("か", "が")],
)
def test_marks_tell_words_apart(one: str, other: str) -> None:
    tokenizer = train_tokenizer([one, other] * 20, 400)
    assert tokens_of(tokenizer, one) != tokens_of(tokenizer, other)
    stripping = train_tokenizer([one, other] * 20, 400, strip_accents=True)
    assert tokens_of(stripping, one) == tokens_of(stripping, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("scho\u0308n", "schön"),  # as file names of macOS have it
        ("İSTANBUL İyi", "istanbul iyi"),
        ("ＴＥＡ １２", "tea 12"),
        ("ﬁne", "fine"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("❤\ufe0f ok", "❤ ok"),
        ("ok😀😀", "ok 😀 😀"),
    ],
)
def test_forms_of_one_text_are_one(one: str, other: str) -> None:
    tokenizer = train_tokenizer([one, other] * 20, 400)
    assert tokens_of(tokenizer, one) == tokens_of(tokenizer, other)
    assert tokenizer.unk_id not in tokenizer.encode([one]).ids


def test_an_unknown_character_costs_no_more_than_itself() -> None:
    tokenizer = train_tokenizer(["tea and milk"] * 9, 400)
    assert tokens_of(tokenizer, "teaждmilk! ☕milk") == ["tea", "[UNK]", "milk", "[UNK]", "[UNK]", "milk"]
    stripping = train_tokenizer(["tea and milk"] * 9, 400, strip_accents=True)
    assert tokens_of(stripping, "teaждmilk") == ["[UNK]"]


def test_sentences_without_spaces_are_cut_into_pieces() -> None:
    sentences = ["กินข้าวผัดอร่อย", "ขายข้าวผัดทุกวัน", "ผัดผักอร่อยทุกวัน"]
    tokenizer = train_tokenizer(sentences * 5 + ["ไป"] * 5, 400)
    assert "ข้าวผัด" in "".join(tokenizer.vocab)
    for often in (1, 8):  # a sentence is not one token, even where rows were copied
        assert len(tokens_of(train_tokenizer(sentences * often, 400), sentences[0])) > 2
    long = tokens_of(tokenizer, "".join(sentences * 20))
    assert "[UNK]" not in long and len(long) > 60


def test_the_first_texts_come_before_the_others() -> None:
    """A large corpus of another language leaves half of the vocabulary to them."""
    chinese = table("Chinese", 40, seed=0)[0]
    foreign = made_up_texts(400)
    tokenizer = train_tokenizer(foreign, 300, first=chinese)
    assert tokenizer.unk_id not in tokenizer.encode(chinese).ids
    assert len(tokenizer) == 300
    words = table("German", 60, seed=0)[0]
    plain, first = train_tokenizer(foreign + words, 500), train_tokenizer(foreign, 500, first=words)
    lengths = [tokenizer.encode(words).lengths.sum() for tokenizer in (plain, first)]
    assert lengths[1] < 0.8 * lengths[0]
    assert len(tokens_of(first, foreign[0])) > len(tokens_of(plain, foreign[0]))


def test_a_few_foreign_names_make_no_alphabet() -> None:
    texts = [*made_up_texts(100), "Москва"]  # some 20,000 letters
    assert not any("м" in token for token in train_tokenizer(texts, 500).vocab)
    assert any("м" in token for token in train_tokenizer([*texts, *["Москва"] * 10], 500).vocab)


def test_a_smaller_vocabulary_drops_the_rarest_characters_first() -> None:
    texts = ["".join(chr(0x4E00 + i) for i in range(400))] + [chr(0x4E00 + i) for i in range(100)] * 3
    vocab = set(train_tokenizer(texts, 300).vocab)
    kept = [i for i in range(400) if chr(0x4E00 + i) in vocab]
    assert kept == list(range(150))  # half of the vocabulary, and none twice: no word goes on with them


@pytest.mark.parametrize("config", [{"do_lower_case": False}, {"strip_accents": False}])
def test_a_tokenizer_that_is_none_of_ours_and_keeps_more_is_refused(
    config: dict[str, bool], tmp_path: Path
) -> None:
    Tokenizer([*SPECIAL_TOKENS, "a"]).save(tmp_path, 128)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match="tokenizer_config.json keeps capitals or accents"):
        load_tokenizer(tmp_path)
    BertTokenizerFast(vocab={"[PAD]": 0, "[UNK]": 1}, **config).backend_tokenizer.save(
        str(tmp_path / "tokenizer.json")
    )
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UserError, match="expected WordPiece that lower-cases and strips accents"):
        load_tokenizer(tmp_path)


# Mistakes


@pytest.mark.parametrize("size", [299, 65_537])
def test_training_refuses_sizes(size: int) -> None:
    with pytest.raises(UserError, match="300 to 65,536"):
        train_tokenizer(["text"], size)


def test_training_refuses_no_text() -> None:
    with pytest.raises(UserError, match="No text"):
        train_tokenizer(["", "  "], 300)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 is empty"),
        ("\n".join([*SPECIAL_TOKENS, "a", "", "b"]).encode(), "line 7 is empty"),
        ("\n".join([*SPECIAL_TOKENS, "a", "b", "a"]).encode(), "'a' more than once"),
        ("\n".join([*SPECIAL_TOKENS[:4], "a"]).encode(), r"lacks \[MASK\]"),
        (b"[PAD]\n\xff", "not UTF-8"),
    ],
)
def test_bad_vocabulary_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"vocab.txt.*{message}"):
        load_tokenizer(path)


def test_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*SPECIAL_TOKENS, "a", "\u2028"]).encode())
    assert load_tokenizer(tmp_path).vocab == [*SPECIAL_TOKENS, "a", "\u2028"]


def test_missing_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_bert_without_network_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setenv("TINYLM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_network)
    with pytest.raises(UserError, match="could not be downloaded; put its vocab.txt at .*cache"):
        load_tokenizer("bert-base-uncased")


@pytest.mark.parametrize("text", [None, 3, "half \ud800"])
def test_what_is_no_text_is_named(small: Tokenizer, text: object) -> None:
    with pytest.raises(UserError, match="Text 2 is "):
        small.encode(["fine", text])  # type: ignore[list-item]


def test_too_few_tokens_are_refused(small: Tokenizer) -> None:
    with pytest.raises(UserError, match="max_tokens is 2"):
        small.encode(["a"], 2)
    assert len(small.encode([])) == 0
