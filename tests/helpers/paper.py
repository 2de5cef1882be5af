"""Made-up results of the paper's tables: figures without any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinylm.paper.preset import load_preset
from tinylm.paper.results import Results
from tinylm.paper.spec import Table
from tinylm.system.files import key_of

FINETUNE = {"learning_rate": 1e-4, "weight_decay": 0}


@dataclass(frozen=True)
class MadeUp:
    """Figures of one row.

    Attributes:
        accuracy: of each trial.
        without: the same without pre-training; a gap needs both.
        coverage: T_M and the like; empty without pre-training.
        logits: `test` and `validation` logits of each trial, `[texts, labels]`.
    """

    accuracy: Sequence[float]
    without: Sequence[float] = ()
    coverage: Mapping[str, float] = field(default_factory=dict)
    logits: Sequence[dict[str, np.ndarray]] = ()


def row(name: str, select: str = "random", size: int | None = 100, **more: object) -> dict[str, Any]:
    """A row of a spec."""
    w_s = {"select": select} | ({} if size is None else {"size": size})
    return {"name": name, "w_s": w_s | more.pop("w_s", {}), **more}  # type: ignore[dict-item]


def panel(rows: Sequence[Mapping[str, Any]], **more: object) -> dict[str, Any]:
    """A panel of a spec."""
    task = {"name": "fewrel", "train_per_label": 5, "test_per_label": 5}
    return {"title": "a task", "task": task, "finetune": FINETUNE, "rows": list(rows)} | more


def store(
    folder: Path, name: str, spec: Mapping[str, Any], figures: Mapping[str, Mapping[str, MadeUp]]
) -> Results:
    """Store a table.

    Args:
        folder: of the results; tables may be added one by one.
        name: of the table.
        spec: of the table.
        figures: by panel and row.
    """
    table = Table.model_validate({"title": f"title of {name}", **spec})
    results = Results(folder)
    results.begin("cpu")

    def cell(content: dict[str, Any], *identity: object, logits: Any = None) -> str:
        cell = {"identity": {"made up": list(map(str, identity))}, "seconds": 1.0} | content
        key = key_of(cell["identity"])
        results.write(key, cell, logits)
        return key

    def trial(accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "best_epoch_accuracy": accuracy, "per_label": [accuracy, accuracy]}

    panels = []
    for each in table.panels:
        rows = []
        for of_row in each.rows:
            found = figures[each.name][of_row.name]
            facts = {"mean_tokens": 60.0, "absent_share": 0.01, "coverage": dict(found.coverage)}
            trials = [
                cell(
                    trial(accuracy) | (facts if found.coverage else {}),
                    name, each.name, of_row.name, i,
                    logits=found.logits[i] if found.logits else None,
                )
                for i, accuracy in enumerate(found.accuracy)
            ]  # fmt: skip
            without = [
                cell(trial(accuracy), name, each.name, of_row.name, "without", i)
                for i, accuracy in enumerate(found.without)
            ]
            rows.append(
                {
                    "name": of_row.name,
                    "architecture": f"model of {of_row.name}",
                    "layer_count": 5,
                    "trials": trials,
                    "without": without,
                    "pretrainings": [],
                    "note": "",
                }
            )
        task = {"name": each.task.name, "labels": ["a", "b"], "train_texts": 10, "validation_texts": 4}
        facts = {"test_texts": 10, "t_c": 50, "mean_tokens": 9.0, "notes": []}
        baselines = {"tfidf": cell({"accuracy": 0.7}, name, each.name, "tfidf")}
        panels.append({"name": each.name, "task": task | facts, "baselines": baselines, "rows": rows})
    plan = {"preset": "cpu", "knobs": load_preset("cpu").model_dump(mode="json"), "panels": panels}
    results.write_plan(name, plan | {"table": name, "spec": table.model_dump(mode="json")})
    return results
