"""Latency of a committee, its members and the deep model, on the machine of the run.

Weights do not change how long a model takes, so models with random weights are measured: one
text at a time, on one thread, after all trainings have ended.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tinylm.infer.classifier import Classifier
from tinylm.infer.committee import Committee
from tinylm.infer.latency import measure_latency
from tinylm.model.heads import SequenceClassifier
from tinylm.paper.cells import PanelPlan, TablePlan
from tinylm.paper.data import Materials
from tinylm.paper.results import Results
from tinylm.system.cores import cores

TEXTS = 60


def store_latencies(plans: Sequence[TablePlan], results: Results, source: Materials) -> None:
    """Measure each panel with a committee and a deep model, unless that was done here."""
    for plan in plans:
        for panel in plan.panels:
            roles = {row.row.role for row in panel.rows}
            if {"member", "deep"} <= roles and results.latency(plan.name, panel.panel.name) is None:
                results.write_latency(plan.name, panel.panel.name, _measure(panel, source))


def _measure(panel: PanelPlan, source: Materials) -> dict[str, Any]:
    task = source.of(panel.panel.task).task
    models = {
        row.row.name: Classifier.of(
            SequenceClassifier(row.config, len(task.label_names)), source.tokenizer, task.label_names
        )
        for row in panel.rows
    }
    members = [row.row.name for row in panel.rows if row.row.role == "member"]
    predictors = {name: Committee([model]).predict for name, model in models.items()}
    predictors["committee"] = Committee([models[name] for name in members]).predict
    texts = task.test_texts[:: max(1, len(task.test_texts) // TEXTS)][:TEXTS]
    latencies = measure_latency(list(predictors.values()), texts)
    return {
        "ms": {name: asdict(latency) for name, latency in zip(predictors, latencies, strict=True)},
        "layers": {row.row.name: row.config.layer_count for row in panel.rows},
        "texts": len(texts),
        "machine": f"{platform.machine()}, {cores()} cores",
    }
