"""Committees against sums by hand, and folders against `transformers.pipeline`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers

from helpers.toys import LABELS, TOKENIZERS, constant_classifier, make_classifier, torch_logits
from tinylm.errors import UserError
from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee, load_committee
from tinylm.model.config import Convolution
from tinylm.model.storage import StoredClassifier
from tinylm.text.corpus import read_vital
from tinylm.text.coverage import token_counts
from tinylm.text.tokenizer import train_tokenizer

TEXTS = ["one two three", "", "four five six seven eight nine ten " * 5, "Two, two!", "eleven 🙂"]
BERT_WITHOUT_SIZES = '{"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}'


@pytest.fixture
def members() -> list[Classifier]:
    """Different depth, width, front end, vocabulary and length."""
    return [
        make_classifier(1),
        make_classifier(2, TOKENIZERS[1], layers=2, heads=2, max_tokens=8),
        make_classifier(3, max_tokens=16, convolution=Convolution(layers=1, channels=2, kernel=(4, 3))),
    ]


def test_logits_are_the_members_sum_and_the_largest_decides(members: list[Classifier]) -> None:
    committee = Committee(members)
    alone = [torch_logits(member, TEXTS) for member in members]
    expected = [[sum(float(x[t, i]) for x in alone) for i in range(3)] for t in range(len(TEXTS))]
    logits = committee.decision_function(TEXTS)
    np.testing.assert_allclose(committee.member_logits(TEXTS), alone, atol=1e-4)
    assert (logits.shape, logits.dtype) == ((len(TEXTS), 3), np.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert committee.predict(TEXTS) == [LABELS[int(np.argmax(row))] for row in expected]

    softmax = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(committee.predict_proba(TEXTS), softmax, atol=1e-5)
    assert len({tuple(row) for row in np.round(logits, 3).tolist()}) > 2  # the texts do differ
    assert committee.decision_function([]).shape == (0, 3)


def test_one_strong_member_overrules_a_majority() -> None:
    members = [
        constant_classifier(*logits) for logits in ((21.0, 0.0, 0.0), (0.0, 10.0, 0.0), (0.0, 10.0, 0.0))
    ]
    votes = [Committee([member]).predict(["one"])[0] for member in members]
    assert votes == ["red", "green", "green"]
    # 21 against 20; a sum of softmax outputs, 1 against 2, would decide as the majority does.
    assert Committee(members).predict(["one"]) == ["red"]


def test_the_order_of_members_does_not_matter(members: list[Classifier]) -> None:
    one, other = Committee(members), Committee(members[::-1])
    np.testing.assert_allclose(one.decision_function(TEXTS), other.decision_function(TEXTS), atol=1e-5)
    assert one.predict(TEXTS) == other.predict(TEXTS)


def test_large_logits_give_finite_probabilities() -> None:
    probabilities = Committee([constant_classifier(3000.0, -3000.0, 2999.0)]).predict_proba(["one"])
    np.testing.assert_allclose(probabilities, [[0.731059, 0, 0.268941]], atol=1e-6)


def test_classifier_and_committee_predict_the_same_after_saving(
    members: list[Classifier], tmp_path: Path
) -> None:
    for number, member in enumerate(members):
        member.save(tmp_path / str(number))
        again = Classifier.load(tmp_path / str(number))
        assert again.label_names == LABELS
        assert again.tokenizer.vocab == member.tokenizer.vocab
        logits = Committee([member]).decision_function(TEXTS)
        assert (Committee([again]).decision_function(TEXTS) == logits).all()
        assert (load_committee(tmp_path / str(number)).decision_function(TEXTS) == logits).all()
    folder = tmp_path / "committee"
    folder.mkdir()
    Committee(members).save(folder)
    committee = load_committee(folder)
    assert len(committee.members) == 3
    assert (committee.decision_function(TEXTS) == Committee(members).decision_function(TEXTS)).all()


def test_a_saved_classifier_predicts_through_transformers(tmp_path: Path) -> None:
    member = make_classifier(4, layers=2, heads=2, max_tokens=64)
    member.save(tmp_path)
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    predictions = pipeline(TEXTS)
    probabilities = Committee([member]).predict_proba(TEXTS)
    assert [prediction["label"] for prediction in predictions] == Committee([member]).predict(TEXTS)
    np.testing.assert_allclose(
        [prediction["score"] for prediction in predictions], probabilities.max(1), atol=1e-4
    )
    assert len({prediction["label"] for prediction in predictions}) > 1


def test_members_must_share_their_labels() -> None:
    with pytest.raises(UserError, match="at least one encoder"):
        Committee([])
    first = make_classifier(1)
    for names in (["red", "green", "grey"], ["green", "red", "blue"]):
        other = Classifier(StoredClassifier(first.config, first.weights, names), first.tokenizer)
        with pytest.raises(UserError, match=f"member 2 .*{', '.join(names)}; the first has red, green, blue"):
            Committee([first, other])


def test_a_classifier_needs_the_vocabulary_of_its_model() -> None:
    first = make_classifier(1)
    with pytest.raises(UserError, match="17 tokens, the tokenizer has 19"):
        Classifier(StoredClassifier(first.config, first.weights, LABELS), TOKENIZERS[1])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Committee([make_classifier(1), make_classifier(2)]).save(tmp_path)
    return tmp_path


def test_a_folder_that_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path / 'none'} is not a folder"):
        load_committee(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / 'empty'} holds no model: config.json is missing"):
        load_committee(tmp_path / "empty")


@pytest.mark.parametrize(
    "text", ["", '{"members": ["member-1", ', "{}", "[]", "3", '{"members": 3}', '{"members": [1]}', "\xff"]
)
def test_a_damaged_list_of_members_is_named(saved: Path, text: str) -> None:
    (saved / "committee.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"committee\.json is (damaged|not valid JSON)"):
        load_committee(saved)


def test_a_member_that_is_gone_is_named(saved: Path) -> None:
    (saved / "member-2").rename(saved / "elsewhere")
    with pytest.raises(UserError, match="member-2 holds no model"):
        load_committee(saved)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_member_cut_short_is_named(saved: Path, share: float) -> None:
    weights = saved / "member-2" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"member-2/model\.safetensors is damaged or cut short"):
        load_committee(saved)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", BERT_WITHOUT_SIZES, '{"tinylm": {"layers": 0}}', '{"tinylm": 3}', "\xff"]
)
def test_a_damaged_configuration_is_named(saved: Path, text: str) -> None:
    (saved / "member-1" / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"member-1/config\.json"):
        load_committee(saved)


def test_a_member_without_its_vocabulary_is_named(saved: Path) -> None:
    for name in ("vocab.txt", "tokenizer.json"):
        (saved / "member-1" / name).unlink()
    with pytest.raises(UserError, match=r"member-1/vocab\.txt does not exist"):
        load_committee(saved)


FOREIGN = [
    "Die Waschmaschine schleudert nicht mehr und macht dabei ein lautes Geräusch.",
    "Gestern haben wir im Garten drei Apfelbäume gepflanzt und mit den Nachbarn gegessen.",
    "Je voudrais annuler ma commande parce que la livraison a déjà été repoussée deux fois.",
    "Il faisait très mauvais temps hier soir.",
    "La lavadora ya no gira y hace un ruido horrible.",
    "Ayer plantamos tres manzanos en el jardín y luego cenamos con los vecinos.",
    "Çamaşır makinesi artık dönmüyor ve korkunç bir ses çıkarıyor.",
    "Siparişimi iptal etmek istiyorum çünkü teslimat iki kez ertelendi.",
    "Wczoraj posadziliśmy w ogrodzie trzy jabłonie, a potem zjedliśmy kolację z sąsiadami.",
    "Pralka już się nie kręci i strasznie hałasuje.",
    "Το πλυντήριο δεν γυρίζει πια και κάνει φοβερό θόρυβο.",
    "เครื่องซักผ้าไม่หมุนและมีเสียงดังมาก",
    "洗衣机不转了,而且声音很大。",
    "\N{SNOWMAN} \N{SNOWMAN}",
    "",
]


def test_texts_in_other_languages_have_low_coverage() -> None:
    """Also where all of their letters are frequent, and so are the pieces that their words are cut into."""
    articles = [article["extract"] for article in read_vital().values()]
    known, new = articles[100:3100], articles[:100]
    tokenizer = train_tokenizer(known, 8000)
    counts = token_counts(tokenizer.encode(known), len(tokenizer))
    committee = Committee([make_classifier(1, tokenizer)], token_counts=counts)
    assert committee.low_coverage(FOREIGN).all()
    assert committee.low_coverage(new).mean() <= 0.01
    assert not committee.low_coverage(["My washing machine does not spin and makes a horrible noise."]).any()
    assert (committee.rare_token_share(FOREIGN[:10]) < 0.3).all()  # which alone would tell nothing
