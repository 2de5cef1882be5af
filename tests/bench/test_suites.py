"""The benchmarks: their arithmetic, their ratios and their plumbing, but never a time."""

from __future__ import annotations

import importlib.metadata
import json
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
import typer.main
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import command
from helpers.command import done, record_of, refused, tinylm
from helpers.fitting import labelled
from tinylm import TinyTextClassifier
from tinylm.bench import ablation, accuracy, corpus, inference, int8, scale, select, suites, tfidf, training
from tinylm.bench.measure import Machine, Measured, alternate, summarise, table, write_json
from tinylm.bench.reference import (
    IGNORED,
    ReferenceProcess,
    ReferenceRun,
    bert_config,
    finetuning_reference,
    pad,
    pretraining_reference,
    with_front_end,
)
from tinylm.bench.suites import SUITES, run_suite
from tinylm.cli import app
from tinylm.errors import UserError
from tinylm.model import flops
from tinylm.model.config import Convolution, ModelConfig
from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.model.heads import MaskedLanguageModel, SequenceClassifier
from tinylm.model.huggingface import to_huggingface
from tinylm.ops.packed import make_batch
from tinylm.text.store import TokenIds, open_store
from tinylm.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from tinylm.train.finetune import EncodedTask, finetuning_run
from tinylm.train.pretrain import pretraining_run
from tinylm.train.recipes import RECIPES

TOKENIZER = Tokenizer([*SPECIAL_TOKENS, *(f"word{i}" for i in range(75))])
TINY = ModelConfig(vocab_size=80, layers=2, heads=1, max_tokens=16)
FRONT = Convolution(layers=1, channels=2)
STORED = sorted((Path(__file__).parents[2] / "results" / "bench").glob("*.json"))
MACHINE = Machine("a processor", threads=1, bf16=2e9, fp32=1e9)


@pytest.fixture
def paragraphs() -> TokenIds:
    rng = np.random.default_rng(0)
    return TokenIds.from_lists(rng.integers(5, 80, n) for n in rng.integers(3, 17, 40))


@pytest.fixture
def task(paragraphs) -> EncodedTask:
    labels = np.arange(len(paragraphs)) % training.N_LABELS
    return EncodedTask(paragraphs, labels, paragraphs, labels, training.N_LABELS)


def test_arithmetic_by_hand():
    config = ModelConfig(vocab_size=100, layers=2, heads=1, max_tokens=128)
    lengths, hidden = np.array([10, 4]), np.array([2, 1])
    first_block = 24 * 4096 * 14 + 4 * 64 * (100 + 16)
    last_block = 4 * 4096 * 14 + 20 * 4096 * 3 + 4 * 64 * (10 * 2 + 4 * 1)
    head = (2 * 4096 + 2 * 64 * 100) * 3
    assert flops.masked_language_model(config, lengths, hidden) == first_block + last_block + head
    at_cls = 24 * 4096 * 2 + 4 * 64 * 14 + (2 * 4096 + 2 * 64 * 7) * 2
    assert flops.sequence_classifier(config, lengths, 7) == first_block + at_cls
    two_heads = ModelConfig(vocab_size=100, layers=1, heads=2)
    at_cls = 24 * 128**2 + 4 * 2 * 128 * 10 + 2 * 128**2 + 2 * 128 * 7
    assert flops.sequence_classifier(two_heads, np.array([10]), 7) == at_cls


def test_arithmetic_of_a_block_is_what_pytorch_counts():
    """At full reads the last block is a whole block: the products that PyTorch counts."""

    config = TINY.model_copy(update={"convolution": FRONT})
    batch, _ = make_batch(TokenIds.from_lists([range(5, 21), range(5, 21)]), range(2), 16)
    # The fused attention of the CPU is not counted, its parts are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        MaskedLanguageModel(config).eval()(batch, torch.arange(32))
    full = np.array([16, 16])
    assert flops.masked_language_model(config, full, full) == counter.get_total_flops()


@pytest.mark.parametrize("pooling", ["mean", "attended"])
def test_arithmetic_of_a_classifier_that_reads_the_mean_is_what_pytorch_counts(pooling):
    config = TINY.model_copy(update={"pooling": pooling})
    batch, _ = make_batch(TokenIds.from_lists([range(5, 21), range(5, 21)]), range(2), 16)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        SequenceClassifier(config, 3).eval()(batch)
    assert flops.sequence_classifier(config, np.array([16, 16]), 3) == counter.get_total_flops()


def test_arithmetic_of_a_front_end_by_hand():
    def image(kernel: tuple[int, int]) -> float:
        config = TINY.model_copy(update={"convolution": Convolution(layers=2, channels=3, kernel=kernel)})
        plain = flops.sequence_classifier(TINY, np.array([5]), 2)
        return flops.sequence_classifier(config, np.array([5]), 2) - plain

    # Five tokens, and the two rows behind them that reach them.
    assert image((3, 3)) == 2 * 64 * 7 * (9 * 3 + 9 * 3 * 3 + 3)


@pytest.mark.parametrize("kernel", [(3, 3), (16, 3)])
@pytest.mark.parametrize("longest", [5, 20, 100])
def test_arithmetic_of_a_front_end_that_predicts_is_what_pytorch_counts(kernel, longest):
    front = Convolution(layers=3, channels=4, kernel=kernel)
    config = ModelConfig(vocab_size=50, heads=1, max_tokens=60, convolution=front)
    longest = min(longest, config.max_tokens)
    front_end = ConvolutionalFrontEnd(front).eval()
    image = torch.randn(1, config.image_height(longest), config.width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        front_end(image, longest)
    assert flops.front_end(config, longest) == counter.get_total_flops()


def test_ratio_is_the_median_of_the_ratios_of_each_round():
    # The machine becomes ten times slower in the second round, for all of them.
    durations = iter([1, 4, 2, 10, 50, 20, 1, 6, 3])
    now = 0.0

    def clock() -> float:
        return now

    def work() -> None:
        nonlocal now
        now += next(durations)

    seconds = alternate([work] * 3, 3, clock)
    assert seconds.tolist() == [[1, 4, 2], [10, 50, 20], [1, 6, 3]]
    rates = summarise("x", 100 / seconds, "tokens/s", 200.0, "other", {})
    assert (rates.ours, rates.reference, rates.ratio, rates.spread) == (
        100,
        pytest.approx(100 / 6),
        5,
        (4, 6),
    )
    assert (rates.other.ratio, rates.other.spread) == (2, (2, 3))
    assert summarise("x", 100 / seconds[:, :2], "tokens/s", 200.0, None, {}) == replace(rates, other=None)
    times = summarise("x", seconds, "ms", 0.5, "other", {})
    assert (times.ours, times.reference, times.ratio, times.spread) == (1, 6, 5, (4, 6))


def test_json_is_a_record_of_the_promised_form(tmp_path):
    result = summarise("case", np.array([[2.0, 10.0, 4.0]]), "ms", 1.0, "BERT-6", {"texts": "some"})
    write_json(tmp_path / "out.json", MACHINE, [result], {"suite": "infer-cpu"})
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["kind"], record["settings"]) == ("bench", {"suite": "infer-cpu"})
    assert record["versions"]["tinylm"] == importlib.metadata.version("tinylm")
    machine = {"processor": "a processor", "threads": 1, "gflops_bf16": 2.0, "gflops_fp32": 1.0}
    assert machine.items() <= record["machine"].items()
    (written,) = record["results"]
    expected = {"name": "case", "ours": 2, "reference": 10, "ratio": 5, "unit": "ms", "limit": 1}
    assert expected.items() <= written.items()
    assert written["other"] == {"name": "BERT-6", "value": 4, "ratio": 2, "spread": [2, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert table([result]).row_count == 1


def test_a_failed_write_leaves_the_earlier_results(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError("disk full")

    path = tmp_path / "out.json"
    path.write_text("earlier")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, MACHINE, [summarise("case", np.ones((1, 3)), "ms", 1.0, "other", {})], {})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.json", "earlier")]


def seen_by_ours(model, run) -> list[tuple]:
    """Texts of the batches of ours in the next epoch: tokens, and which of them carry the loss."""
    seen = []

    def note(module, inputs) -> None:
        batch, *positions = inputs
        hidden = (
            set(positions[0].tolist()) if positions else set()
        )  # of masked language modelling, with its targets
        texts = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        seen.extend(
            (tuple(batch.ids[a : a + n].tolist()), tuple(i in hidden for i in range(a, a + n)))
            for a, n in texts
        )

    with model.register_forward_pre_hook(note):
        for _ in range(run.steps_per_epoch):
            run.step()
    return seen


def seen_by_reference(reference, epoch: int) -> list[tuple]:
    seen = []
    for step in range(epoch * reference.steps_per_epoch, (epoch + 1) * reference.steps_per_epoch):
        inputs = reference.inputs(step)
        labels = inputs["labels"]
        if labels.ndim == 1:
            labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, (ids, mask) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"], strict=True)):
            real = mask.bool()
            assert not ids[~real].any() and (labels[row][~real] == IGNORED).all()
            seen.append((tuple(ids[real].tolist()), tuple((labels[row][real] != IGNORED).tolist())))
    return seen


def test_both_sides_learn_from_the_same_tokens(paragraphs, task):
    recipe = RECIPES["paper"]
    model, run = pretraining_run(paragraphs, TOKENIZER, TINY, recipe, seed=3)
    reference = pretraining_reference(paragraphs, TOKENIZER, TINY, recipe, seed=3)
    classifier, finetuning = finetuning_run(task, TOKENIZER, TINY, recipe, seed=3)
    finetuned = finetuning_reference(task, TINY, recipe, seed=3)
    for epoch in range(2):
        assert seen_by_ours(model, run) == seen_by_reference(reference, epoch)
        assert seen_by_ours(classifier, finetuning) == seen_by_reference(finetuned, epoch)
    # Each text keeps its label.
    label_of = {tuple(task.train[i].tolist()): i % training.N_LABELS for i in range(len(task.train))}
    inputs = finetuned.inputs(0)
    texts = (
        ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    )
    assert inputs["labels"].tolist() == [label_of[tuple(text.tolist())] for text in texts]


def seeded_reference(paragraphs: TokenIds) -> ReferenceRun:
    torch.manual_seed(0)
    return pretraining_reference(paragraphs, TOKENIZER, TINY, RECIPES["fast"], seed=0)  # without dropout


def test_a_reference_in_another_process_takes_the_same_steps(paragraphs):
    here = seeded_reference(paragraphs)
    there = ReferenceProcess(partial(seeded_reference, paragraphs))
    for name, tensor in here.inputs(1).items():
        assert torch.equal(there.inputs(1)[name], tensor)
    losses = [(run.step(0), run.step(1, autocast=True)) for run in (here, there)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    there.close()


@pytest.mark.parametrize(("front", "bf16"), [(None, True), (FRONT, True), (None, False)])
def test_training_case_end_to_end(paragraphs, front, bf16, monkeypatch):
    monkeypatch.setattr(training, "supports_bf16", lambda: bf16)
    recipe, config = RECIPES["paper"], TINY.model_copy(update={"convolution": front})
    _, run = pretraining_run(paragraphs, TOKENIZER, config, recipe, seed=0)
    reference = pretraining_reference(paragraphs, TOKENIZER, config, recipe, seed=0)
    front_end = {id(p) for name, p in reference.model.named_parameters() if "front_end" in name}
    result = training.compare("tiny", config, run, reference, 2, MACHINE, {})
    assert run.state.step == 3 * 2  # a warm-up and two rounds of two batches
    trained = {id(p) for p in reference.optimizer.state}
    assert bool(front_end) == bool(front) and front_end <= trained
    assert result.unit == "tokens/s"
    assert result.details["tokens_per_text"] == pytest.approx(paragraphs.lengths.mean(), abs=0.05)
    assert min(result.reference, result.limit) > 0
    if bf16:
        assert result.other.value > 0
    else:  # autocast would take hours there
        assert result.other is None
    assert table([result]).row_count == 1


def test_on_a_gpu_autocast_is_the_reference(paragraphs, monkeypatch):
    monkeypatch.setitem(training.WARM_UP, "cuda", 2)
    _, run = pretraining_run(paragraphs, TOKENIZER, TINY, RECIPES["paper"], seed=0)
    reference = pretraining_reference(paragraphs, TOKENIZER, TINY, RECIPES["paper"], seed=0)
    modes = []
    step = reference.step

    def noted(number: int, *, autocast: bool = False) -> float:
        modes.append(autocast)
        return step(number, autocast=autocast)

    monkeypatch.setattr(reference, "step", noted)
    result = training.compare("mlm-tiny", TINY, run, reference, 1, MACHINE, {}, torch.device("cuda"))
    assert modes == [True, False] + [True] * 2 + [False] * 2  # a warm-up, then two batches of each
    assert result.other.name == "reference in fp32"
    assert result.details["utilisation"] == pytest.approx(result.ours / result.limit, abs=1e-3)
    seconds = 90_000 * 50 * paragraphs.lengths.mean() / result.ours
    assert result.details["minutes for W_S = 90,000 x 50 epochs"] == pytest.approx(seconds / 60, rel=0.01)


def test_front_end_of_the_reference_computes_what_ours_does(paragraphs):

    config = TINY.model_copy(update={"convolution": FRONT, "init_std": 0.2})
    ours = MaskedLanguageModel(config).eval()
    reference = with_front_end(transformers.BertForMaskedLM(bert_config(config)), FRONT).eval()

    def of_reference(name: str) -> str:
        """There, every third stage is a GELU."""
        place = re.fullmatch(r"bert\.convolution\.stages\.(\d+)\.(\w+)", name)
        if place is None:
            return name
        number = int(place[1])
        return f"bert.embeddings.front_end.{number + number // 2}.{place[2]}"

    weights = {of_reference(name): tensor for name, tensor in to_huggingface(ours.state_dict()).items()}
    assert not reference.load_state_dict(weights, strict=False).unexpected_keys
    batch, _ = make_batch(paragraphs, range(6), config.max_tokens)
    inputs = pad(batch, config.max_tokens)
    with torch.no_grad():
        theirs = reference(**inputs).logits[inputs["attention_mask"].bool()]
        torch.testing.assert_close(ours(batch, torch.arange(len(batch.ids))), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "throughput-tiny"])
def test_inference_case_end_to_end(monkeypatch, name):
    monkeypatch.setattr(inference, "ModelConfig", lambda vocab_size: TINY)  # the deep rival
    shallow = TINY.model_copy(update={"layers": 1})
    texts = ["word1 word2 word3", "word4", "word5 word6"]
    ours = inference.new_committee(TOKENIZER, [shallow] * 2, int8=True).predict
    result = inference.compare(name, TOKENIZER, [shallow] * 2, ours, texts, 2, MACHINE, {})
    throughput = name.startswith("throughput")
    assert result.unit == ("texts/s" if throughput else "ms")
    assert result.details["layer_count"] == {"longest member": 5, "all members": 10, "BERT-6": 9}
    assert throughput or all(value > 0 for value in result.details["p95"].values())
    assert min(result.ours, result.reference, result.other.value, result.limit) > 0


@pytest.mark.parametrize("name", ["engines-64", "throughput-engines-64"])
def test_engines_side_by_side(name):
    members = [TINY.model_copy(update={"layers": 1})] * 2
    texts = ["word1 word2 word3", "word4", "word5 word6"]
    result = inference.compare_engines(name, TOKENIZER, members, texts, 2, MACHINE, {})
    assert result.unit == ("texts/s" if name.startswith("throughput") else "ms")
    assert min(result.ours, result.reference, result.other.value, result.limit) > 0


def test_reference_classifier_cuts_texts_into_our_tokens():
    reference = inference.ReferenceClassifier(TOKENIZER, TINY, 3)
    texts = ["word1 word2", "strange word74 " * 20]
    inputs = reference.tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    assert inputs == [row.tolist() for row in map(TOKENIZER.encode(texts, 16).__getitem__, range(2))]
    assert len(reference.predict(texts)) == 2


def test_names_of_the_suites_are_those_of_the_documentation():
    assert list(SUITES["train-cpu"].cases) == [
        "mlm-bert6",
        "mlm-bert1",
        "mlm-bert1-conv",
        "finetune-bert6-fewrel",
        "finetune-bert1-fewrel",
        "mlm-small",
    ]
    counts = [ModelConfig(**shape).layer_count for shape in inference.TABLE_8]
    assert counts == [7, 7, 5, 7, 8]


def test_bad_names_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(UserError, match="'tpu' is unknown; there are: train-cpu, infer-cpu, train-gpu, abl"):
        run_suite("tpu", 1)
    for name in ("train-cpu", "cpu"):  # as it was called earlier
        with pytest.raises(UserError, match="no case 'mlm-bert9'; there are: mlm-bert6, mlm-bert1, "):
            run_suite(name, 1, ["mlm-bert1", "mlm-bert9"])
    assert "tpu" in refused(tinylm("bench --suite tpu --json", tmp_path / "x.json"))
    assert "folder" in refused(tinylm("bench --suite train-cpu --json", tmp_path / "absent" / "x.json"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train-gpu", "gpu"])
def test_gpu_suite_without_a_gpu_says_so(tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a CUDA GPU" in done(f"bench --suite {name} --json {tmp_path / 'gpu.json'}").out
    assert not list(tmp_path.iterdir())


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tinylm.cli.common.find_spec", lambda name: None)
    assert "tinylm[dev]" in refused(tinylm("bench --suite train-cpu --json", tmp_path / "x.json"))


def test_command_with_settings_prints_and_writes_all_results(tmp_path, monkeypatch):
    """One case may give several results; the record that they lie in gives the same run again."""

    def measure(name: str, rounds: int, machine: Machine) -> list[Measured]:
        values = np.full((rounds, 2), [4.0, 2.0])
        return [summarise(f"{name} {i}", values, "rows/s", None, None, {"part": i}) for i in range(2)]

    monkeypatch.setattr(suites, "measure_machine", lambda device: MACHINE)
    monkeypatch.setitem(SUITES, "select", suites.Suite(["one", "two"], measure))
    (tmp_path / "s.yaml").write_text(f"suite: select\nrounds: 2\njson_file: {tmp_path / 'out.json'}\n")
    out = done(f"bench --settings {tmp_path / 's.yaml'} --only two").out
    assert out.count("two 0") == out.count("two 1") == 2 and "one" not in out  # in the table and below it
    record = json.loads((tmp_path / "out.json").read_text())
    written = record["results"]
    assert [result["name"] for result in written] == ["two 0", "two 1"]
    assert [result["details"]["part"] for result in written] == [0, 1]
    assert all(result["ratio"] == 2 for result in written)
    again = tmp_path / "again.json"
    done("bench --settings", tmp_path / "out.json", "--json", again)
    repeated = json.loads(again.read_text())
    assert repeated["results"] == written
    assert repeated["settings"] == record["settings"] | {"json_file": str(again)}


def test_stored_records_have_settings_of_the_command():
    """So that `--settings` gives the same run again."""
    known = {parameter.name for parameter in typer.main.get_command(app).commands["bench"].params}
    for path in STORED:
        record = json.loads(path.read_text())
        if isinstance(record, dict):  # and not results alone
            assert record["settings"].keys() <= known and record["settings"]["suite"] in SUITES


# --- a smoke test of each suite: tiny sizes, no times ---


def two_sided(result: Measured) -> bool:
    """Whether both sides worked, and their ratio belongs to them."""
    speeds = result.ours, result.reference
    fast = speeds[1] / speeds[0] if result.unit in ("ms", "s") else speeds[0] / speeds[1]
    return min(speeds) > 0 and result.spread[0] <= result.ratio <= result.spread[1] and fast > 0


@pytest.mark.parametrize("name", ["mlm-bert1", "finetune-bert1-fewrel"])
def test_ablation(paragraphs, task, monkeypatch, name):
    def prepare(case: str) -> training.PreparedCase:
        recipe = RECIPES["paper"]
        if training.CASES[case].finetune:
            _, run = finetuning_run(task, TOKENIZER, TINY, recipe, seed=0)
        else:
            _, run = pretraining_run(paragraphs, TOKENIZER, TINY, recipe, seed=0)
        return training.PreparedCase(TINY, run, lambda: None, "made-up texts")

    monkeypatch.setattr(training, "prepare_case", prepare)
    monkeypatch.setattr(ablation, "LONG_ENOUGH", 1e-9)  # one step
    results = ablation.measure_case(name, 1, MACHINE)
    tricks = {*ablation.DURING_STEPS, *(ablation.FINETUNING if "fewrel" in name else ablation.PRETRAINING)}
    assert {f"{name} without {trick}" for trick in tricks} < {result.name for result in results}
    assert all(map(two_sided, results))


def test_a_patched_step_learns_the_same(paragraphs):
    """Without a trick, the loss of a step is what it is with it."""
    recipe = RECIPES["paper"].model_copy(
        update={"pretrain": RECIPES["paper"].pretrain.model_copy(update={"dropout": 0.0})}
    )
    losses = {}
    for trick, without in {"": nullcontext, **ablation.PRETRAINING}.items():
        _, run = pretraining_run(paragraphs, TOKENIZER, TINY, recipe, seed=0)
        with without():
            losses[trick] = [run.step() for _ in range(3)]
    whole = losses.pop("")
    assert len(losses) == 2
    for found in losses.values():
        assert found == pytest.approx(whole, rel=2e-2)  # in bf16


def test_corpus(monkeypatch):
    articles = {str(i): {"title": f"title {i}", "extract": f"word{i} word{i + 1}"} for i in range(20)}
    monkeypatch.setattr(corpus, "read_vital", lambda: articles)
    monkeypatch.setattr(corpus, "openings", lambda: (SimpleNamespace(tokenizer=TOKENIZER), ""))
    monkeypatch.setitem(corpus.CASES, "corpus-vital", 2)
    result = corpus.measure_case("corpus-vital", 1, MACHINE)
    assert two_sided(result) and result.details["texts"].startswith("40 ")


def test_tfidf(monkeypatch):
    """Both sides learn the same margins; without FewRel, its cases are left out."""
    texts = [f"word{i % 7} word{i % 5} word{i % 3}" for i in range(60)]
    made_up = SimpleNamespace(train_texts=texts, train_labels=np.arange(60) % 3, label_names=list("abc"))
    monkeypatch.setattr(tfidf, "load_task", lambda name, labels=None: made_up)
    monkeypatch.setattr(tfidf, "find_local", lambda name: None)
    monkeypatch.setattr(tfidf, "TOLERANCE", 0.05)
    (result,) = tfidf.measure_case("vital-topics", 1, MACHINE)
    assert two_sided(result) and result.details["largest difference"] < 0.05
    assert tfidf.measure_case("fewrel-10", 1, MACHINE) == []


@pytest.mark.parametrize("name", scale.CASES)
def test_scale(monkeypatch, name):
    articles = {str(i): {"extract": f"word{i} word{i + 1}. Word3 word{i % 7}."} for i in range(20)}
    monkeypatch.setattr(scale, "read_vital", lambda: articles)
    monkeypatch.setattr(scale, "openings", lambda: (SimpleNamespace(tokenizer=TOKENIZER), ""))
    small = {"PARAGRAPHS": 200, "T_C": 40, "STEPS": 2, "WARM_UP": 1, "SHAPE": {"layers": 1, "heads": 1}}
    for constant, value in small.items():
        monkeypatch.setattr(scale, constant, value)
    scale.corpus_of.cache_clear()
    result = scale.measure_case(name, 1, MACHINE)
    assert result.ours > 0 and result.unit == "s" and result.details["paragraphs"] == 200
    assert len(open_store(scale.corpus_of(20).store)[0]) == 20


def test_memory_taken_is_what_a_block_held_at_most():
    with scale.memory_taken() as taken:
        held = np.ones(25_000_000)
        time.sleep(0.1)
        del held
    assert taken() >= 200_000_000
    with scale.memory_taken() as taken:
        time.sleep(0.05)
    assert taken() < 50_000_000


@pytest.mark.parametrize("name", select.CASES)
def test_select(monkeypatch, name):
    monkeypatch.setattr(select, "PARAGRAPHS", 400)
    monkeypatch.setattr(select, "W_S", 1_600_000)  # of 6.4 million: a quarter
    # So that among few paragraphs some have the task's tokens alone, and others miss a few of them.
    monkeypatch.setattr(select, "T_C", 30_000 if name == "custom-made" else 500)
    result = select.measure_case(name, 1, MACHINE)
    assert two_sided(result) and result.details["W_S"] == 100


def test_select_and_its_reference_choose_the_same_rows(tmp_path):
    select.write_corpus(tmp_path / "corpus", 300)
    paragraphs, _ = open_store(tmp_path / "corpus")
    in_task = np.arange(select.VOCAB) < 30_000
    fast = np.sort(select.custom_made_rows(paragraphs, in_task)).tolist()
    assert 0 < len(fast) < 300
    assert fast == select.custom_made_reference(paragraphs, in_task)


@pytest.fixture
def small_data(paragraphs, task, monkeypatch):
    """The corpus and task of the suite `int8`, in this process."""
    source = SimpleNamespace(paragraphs=paragraphs, tokenizer=TOKENIZER)
    monkeypatch.setattr(int8, "data", lambda vocabulary: (source, task))
    monkeypatch.setattr(int8, "run_side_by_side", lambda work, jobs: [work(*job) for job in jobs])
    short = int8.RECIPE.with_epochs(pretrain=1, finetune=1)
    monkeypatch.setattr(int8, "RECIPE", short.model_copy(update={"max_tokens": 16}))
    monkeypatch.setattr(int8, "HEADS", 1)


def test_int8(small_data):
    result = int8.measure_case("int8-products", 2, MACHINE)
    assert two_sided(result)
    for figure in ("loss", "accuracy"):
        counts = {form: len(values) for form, values in result.details[figure].items()}
        assert counts == {"int8": 2, "bf16": 2}


@pytest.fixture
def toy_fits(monkeypatch, tmp_path) -> None:
    """Fits of two seconds, with and without a student; a tenth of the test rows are labelled wrongly."""
    texts, labels = labelled(40)
    test_texts, test_labels = labelled(20, seed=1)
    numbers = [["farm", "sea"].index(label) for label in labels + test_labels]
    numbers[-2:] = [1 - number for number in numbers[-2:]]
    toy = SimpleNamespace(
        train_texts=texts,
        train_labels=np.array(numbers[:40]),
        test_texts=test_texts,
        test_labels=np.array(numbers[40:]),
    )
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(texts))
    cases = {"toy": accuracy.Case("toy", 0.03), "toy-student": accuracy.Case("toy", 0.03, kind="student")}
    cases["toy-unlabelled"] = accuracy.Case("toy", 0.03, kind="unlabelled")
    cases["toy-compared"] = accuracy.Case("toy", 0.05, kind="compared")
    cases["toy-pretrained"] = accuracy.Case("toy", 0.03, kind="pretrained")
    monkeypatch.setattr(accuracy, "CASES", cases)
    for kind, parameters in accuracy.PARAMETERS.items():  # processes of their own would take seconds
        monkeypatch.setitem(accuracy.PARAMETERS, kind, parameters | {"n_jobs": 1})
    more = SimpleNamespace(train_texts=[*texts[:10], *(f"{text} here" for text in labelled(60, seed=2)[0])])
    monkeypatch.setattr(accuracy, "split", lambda task, rows, seed: more if rows else toy)
    monkeypatch.setattr(accuracy, "find_local", lambda name: corpus)
    monkeypatch.setattr(accuracy, "fasttext_accuracy", lambda task: 0.5)
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    yield
    accuracy.rivals.cache_clear()


def test_accuracy_within_a_time(toy_fits, tmp_path):
    splits = [accuracy.measure_split("toy", number, MACHINE) for number in range(2)]
    assert [one["seed"] for one in splits] == [42, 43]
    assert all(len(one["members"]) == 3 and "teacher" not in one for one in splits)
    assert min(splits[0][name] for name in ("seconds", "linear_svm_seconds", "fasttext_seconds")) > 0
    result = accuracy.summary("toy", splits)
    assert result.ours == pytest.approx(10)  # percent: two of twenty
    assert result.ratio == pytest.approx(result.reference / result.ours)
    assert result.other.value == pytest.approx(50)
    # Nothing for the next fit to begin with.
    assert not list((tmp_path / "cache").glob("pretrained/*"))


def test_accuracy_of_a_student_and_its_teacher(toy_fits, monkeypatch):
    fitted = []

    class Kept(TinyTextClassifier):
        def fit_for_report(self, *arguments, **options):
            fitted.append(self)
            return super().fit_for_report(*arguments, **options)

    monkeypatch.setattr(accuracy, "TinyTextClassifier", Kept)
    found = accuracy.measure_split("toy-student", 0, MACHINE)
    assert found["teacher"] == pytest.approx(0.9) and len(found["members"]) == 3
    # How good a student becomes in two seconds depends on the machine; whose accuracy it is does not.
    toy = accuracy.split("toy", None, 42)
    assert found["accuracy"] == np.mean(fitted[0].predict(toy.test_texts) == toy.test_labels)
    assert min(found["milliseconds"], found["teacher_milliseconds"]) > 0


def test_accuracy_with_texts_without_labels(toy_fits):
    found = accuracy.measure_split("toy-unlabelled", 0, MACHINE)
    assert found["unlabelled"] == 60  # not those that the split has drawn
    assert found["self_trained_svm"] == pytest.approx(0.9)
    assert 0 <= found["self_taught"] <= 60 and len(found["members"]) == 3


def test_accuracy_beside_a_committee_without_pretraining(toy_fits):
    found = accuracy.measure_split("toy-compared", 0, MACHINE)
    assert len(found["without_members"]) == len(found["members"]) == 3
    # The TF-IDF member is the same in both committees, the encoders are not.
    assert found["without_members"][-1] == found["members"][-1]
    assert 0 <= found["without"] <= 0.95


def test_accuracy_from_a_pretrained_model(toy_fits, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "PRETRAINING", f"{command.TINY} --size 30")
    found = [accuracy.measure_split("toy-pretrained", 0, MACHINE) for _ in range(2)]
    assert [one["paragraphs"] for one in found] == [30, 30] and len(found[0]["members"]) == 3
    (folder,) = (tmp_path / "cache" / "bench").glob("*/")  # it is pre-trained once
    assert record_of(folder)["corpus"]["w_s"] == 30


@pytest.mark.parametrize("kind", accuracy.PARAMETERS)
def test_what_is_fitted_has_parameters_of_the_classifier(kind):
    TinyTextClassifier(**accuracy.PARAMETERS[kind]).check_parameters()


def test_the_stored_splits_are_those_of_the_cases():
    for file in (path for path in STORED if path.stem.startswith("accuracy-")):
        for case, splits in accuracy.read_splits(file).items():
            assert case in accuracy.CASES
            for number, one in splits.items():
                assert one["seed"] == 42 + number and one["processor"] and one["corpus"]


def test_a_long_suite_measures_what_is_missing(tmp_path, monkeypatch):
    """It is interrupted in the middle of a round, and another call with more cases and rounds resumes."""
    measured, interrupted = [], [("b", 1)]

    def measure(case: str, number: int, machine: Machine) -> dict[str, object]:
        if (case, number) in interrupted:
            raise KeyboardInterrupt
        measured.append((case, number))
        split = {"seed": 42 + number, "accuracy": 0.9, "linear_svm": 0.8, "fasttext": 0.7}
        return split | {"processor": machine.processor, "cores": 2, "corpus": case}

    suite = suites.LongSuite("abc", measure, accuracy.summary, accuracy.read_splits)
    monkeypatch.setitem(SUITES, "accuracy", suite)
    machines = iter([MACHINE, replace(MACHINE, processor="another"), MACHINE])
    monkeypatch.setattr(suites, "measure_machine", lambda: next(machines))
    file = tmp_path / "out.json"

    def processors() -> dict[str, list[str]]:
        found = accuracy.read_splits(file)
        return {case: [one["processor"] for one in splits.values()] for case, splits in found.items()}

    done("bench --suite accuracy --only b,a --rounds 1 --json", file)
    assert measured == [("a", 0), ("b", 0)]
    first = json.loads(file.read_text())["results"]
    assert tinylm("bench --suite accuracy --rounds 2 --json", file).code != 0
    assert measured[2:] == [("c", 0), ("a", 1)]
    assert processors() == {"a": ["a processor", "another"], "b": ["a processor"], "c": ["another"]}
    interrupted.clear()
    out = done("bench --suite accuracy --only b,c --rounds 2 --json", file).out
    assert measured[4:] == [("b", 1), ("c", 1)] and "a: ratio" not in out
    assert "b: ratio 2.00 to 2.00, splits 2\n" in out
    record = json.loads(file.read_text())
    assert [result["name"] for result in record["results"]] == ["a", "b", "c"]
    assert all(len(result["details"]["splits"]) == 2 for result in record["results"])
    assert record["results"][0]["details"]["splits"][0] == first[0]["details"]["splits"][0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    other = tmp_path / "other.json"
    other.write_text('{"settings": {"suite": "select"}}')
    assert "suite accuracy" in refused(tinylm("bench --suite accuracy --json", other))
