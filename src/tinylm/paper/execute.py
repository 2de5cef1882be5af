"""The work of one cell, done in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
import traceback
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinylm.errors import UserError
from tinylm.fit.early_stopping import finetune_until_best
from tinylm.infer.baselines import fasttext_accuracy, linear_svm_on, tfidf_accuracy
from tinylm.model.config import ModelConfig
from tinylm.model.heads import MaskedLanguageModel
from tinylm.model.huggingface import load_masked_language_model, save_model
from tinylm.model.logits import logits_of
from tinylm.ops.device import CPU, processor_of
from tinylm.paper.cells import BaselineCell, FinetuningCell, Pretraining
from tinylm.paper.data import Materials, materials
from tinylm.paper.heads import single_heads
from tinylm.paper.public import Public
from tinylm.paper.results import PRETRAINING, Folder, Results, open_results, weights_folder
from tinylm.system.files import LIBRARIES, locked, new_folder
from tinylm.system.paths import cache_folder
from tinylm.text.tasks import Task
from tinylm.train.checkpoint import Checkpoint
from tinylm.train.finetune import accuracy_of, finetune
from tinylm.train.pretrain import pretrain


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        figures: for the line that reports it.
        error: why it failed.
        busy: another runner is at it.
    """

    figures: str = ""
    error: str = ""
    busy: bool = False


def run_cell(
    cell: Pretraining | FinetuningCell | BaselineCell, preset: str, folder: Folder, device: torch.device = CPU
) -> Outcome:
    """Compute a cell and store its result, unless that is done or being done.

    Args:
        cell: what to compute.
        preset: as JSON.
        folder: of the results.
        device: where models are trained.

    Raises:
        torch.AcceleratorError: a kernel failed on the GPU, which ends the use of it by this process.
    """
    results = open_results(folder)
    # Weights are shared by all results folders, so a pre-training is locked where they lie.
    lock = results.lock(cell.key)
    if isinstance(cell, Pretraining):
        lock = cache_folder() / "locks" / cell.key
    try:
        with locked(lock, wait=False) as held:
            if not held:
                return Outcome(busy=True)
            source = materials(preset)
            if isinstance(cell, Pretraining):
                return _pretrain(cell, source, results, device)
            if results.has(cell.key):
                return Outcome("done by another runner")
            if isinstance(cell, FinetuningCell):
                return _finetune(cell, source, results, device)
            return _baseline(cell, source, results)
    except UserError as error:
        return Outcome(error=str(error))
    except torch.AcceleratorError:
        raise  # this process can use its GPU no more: every further cell would fail in it
    except Exception as error:  # one failing cell must not take the others with it
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {error}")


def _pretrain(cell: Pretraining, source: Materials, results: Results, device: torch.device) -> Outcome:
    folder = weights_folder(cell.key)
    record = folder / PRETRAINING
    if not record.is_file() and not results.fetch_weights(cell.key):
        paragraphs, tokenizer = source.paragraphs(cell.selection, cell.size, cell.task), source.tokenizer
        if cell.reduced:
            reduced = source.reduced(cell.selection, cell.size, cell.task)
            paragraphs, tokenizer = reduced.paragraphs, reduced.tokenizer
        checkpoint = Checkpoint(folder.with_suffix(".checkpoint"), cell.identity)
        start = time.monotonic()
        model, history = pretrain(
            paragraphs,
            tokenizer,
            cell.config,
            cell.recipe,
            seed=cell.seed,
            label=cell.label,
            checkpoint=checkpoint,
            device=device,
        )
        content = _record(cell.identity, time.monotonic() - start, device) | {
            "history": history,
            "w_s": len(paragraphs),
            "mean_tokens": round(float(paragraphs.lengths.mean()), 1),
            "parameters": sum(weight.numel() for weight in model.parameters()),
        }
        with new_folder(folder) as partial:
            save_model(model, partial)
            (partial / record.name).write_text(json.dumps(content), encoding="utf-8")
        checkpoint.remove()
    content = json.loads(record.read_text(encoding="utf-8"))
    results.keep_weights(cell.key)
    results.write(cell.key, content)
    return Outcome(f"loss {content['history'][-1]['loss']:.3f}")


def _finetune(cell: FinetuningCell, source: Materials, results: Results, device: torch.device) -> Outcome:
    data, tokenizer = source.of(cell.task), source.tokenizer
    if cell.reduced:
        reduced = source.reduced(cell.selection, cell.size, cell.task)
        data, tokenizer = reduced.data, reduced.tokenizer
    start = start_of(cell, results)
    began = time.monotonic()
    if cell.patience is None:
        tuned = finetune(
            data.encoded,
            tokenizer,
            start,
            cell.recipe,
            seed=cell.seed,
            label=cell.label,
            device=device,
        )
        model, logits = tuned.model, tuned.test_logits
        per_epoch = [epoch["test_accuracy"] for epoch in tuned.history]
        epochs: dict[str, Any] = {
            "best_epoch_accuracy": tuned.best_epoch_accuracy,
            "best_epoch": int(np.argmax(per_epoch)) + 1,
            "history": tuned.history,
        }
    else:
        stopped = finetune_until_best(
            replace(data.encoded, test=data.validation, test_labels=data.validation_labels),
            tokenizer,
            start,
            cell.recipe,
            seed=cell.seed,
            label=cell.label,
            patience=cell.patience,
            device=device,
        )
        model = stopped.model.to(CPU)
        logits = logits_of(model, data.encoded.test)
        epochs = {"kept_epoch": stopped.log.kept, "history": stopped.log.epochs}
    seconds = time.monotonic() - began
    labels = data.encoded.test_labels
    right = logits.argmax(1) == labels
    arrays = {"test": logits.astype(np.float16), "test_labels": labels.astype(np.int16)}
    accuracy = accuracy_of(logits, labels)
    content = _record(cell.identity, seconds, device) | {
        "accuracy": accuracy,
        "per_label": [
            round(float(right[labels == label].mean()), 4) for label in range(data.encoded.n_labels)
        ],
        **epochs,
    }
    if cell.start is not None:
        found = source.coverage(cell.selection, cell.size, cell.task)
        paragraphs = source.paragraphs(cell.selection, cell.size, cell.task)
        content |= {
            "coverage": asdict(found),
            "mean_tokens": round(float(paragraphs.lengths.mean()), 1),
            "absent_share": round(_absent_share(paragraphs.ids, data.in_task), 4),
        }
    if cell.single_heads:
        content["single_heads"] = single_heads(model, data)
    if len(data.validation):
        held_out = logits_of(model, data.validation)
        content["validation_accuracy"] = accuracy_of(held_out, data.validation_labels)
        arrays |= {
            "validation": held_out.astype(np.float16),
            "validation_labels": data.validation_labels.astype(np.int16),
        }
    results.write(cell.key, content, arrays)
    return Outcome(f"accuracy {accuracy:.3f}")


def _baseline(cell: BaselineCell, source: Materials, results: Results) -> Outcome:
    measures = {"tfidf": tfidf_accuracy, "linear-svm": _svm_accuracy, "fasttext": fasttext_accuracy}
    began = time.monotonic()
    accuracy = measures[cell.method](source.of(cell.task).task)
    record = _record(cell.identity, time.monotonic() - began, CPU)
    results.write(cell.key, record | {"accuracy": accuracy})
    return Outcome(f"accuracy {accuracy:.3f}")


def _svm_accuracy(task: Task) -> float:
    found = linear_svm_on(task)
    if found is None:
        raise UserError(f"the linear SVM finds no word in the texts of {task.name}.")
    return found.accuracy


def start_of(cell: FinetuningCell, results: Results) -> MaskedLanguageModel | ModelConfig:
    """The pre-trained model that a fine-tuning begins from, or the architecture where it begins from none."""
    if isinstance(cell.start, Pretraining):
        if not weights_folder(cell.start.key).is_dir():  # another machine trained it
            results.fetch_weights(cell.start.key)
        return _pretrained(weights_folder(cell.start.key))
    if isinstance(cell.start, Public):
        return _pretrained(cell.start.folder)
    return cell.config


@lru_cache(maxsize=2)
def _pretrained(folder: Path) -> MaskedLanguageModel:
    return load_masked_language_model(folder)


def _absent_share(ids: np.ndarray, in_task: np.ndarray) -> float:
    """Share of token occurrences in W_S whose token the task has not."""
    counts = np.bincount(ids, minlength=len(in_task))
    return float(counts[~in_task].sum() / counts.sum())


def _record(identity: dict[str, Any], seconds: float, device: torch.device) -> dict[str, Any]:
    """What every result holds."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "identity": identity,
        "seconds": round(seconds, 2),
        "versions": versions | {"python": platform.python_version()},
        "device": processor_of(device),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
