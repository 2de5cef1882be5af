"""Soft committees of stored members, counted up when a run ends.

Logits are large and stay on the machine that made them; what the report says about committees
is counted here and kept as a small file. A subset of the members is chosen on validation texts,
never on test texts.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tinylm.paper.cells import PanelPlan, TablePlan
from tinylm.paper.results import Results, write_json
from tinylm.train.finetune import accuracy_of

DRAWS = 200  # random committees of each size
DRAW_SEED = 0

Logits = dict[str, np.ndarray]


def store_committees(plan: TablePlan, results: Results) -> list[str]:
    """Count the committees of a table's panels and store them.

    Returns:
        A sentence for each panel whose members' logits are not all at hand.
    """
    notes = []
    for panel in plan.panels:
        members = [row for row in panel.rows if row.row.role == "member"]
        if len(members) < 2:
            continue
        keys = [[cell.key for cell in row.trials] for row in members]
        path = committee_file(results, plan.name, panel.panel.name)
        stored = read_committee(results, plan.name, panel.panel.name)
        if stored is not None and stored["members"] == keys:
            continue
        logits = [[results.logits(key) if results.has(key) else None for key in row] for row in keys]
        if any(field is None for row in logits for field in row):
            notes.append(
                f"{plan.name} {panel.panel.name}: no committee, as logits of its members are missing; run"
                " all of its rows in one results folder."
            )
            continue
        content = {"members": keys} | _count(panel, logits)  # type: ignore[arg-type]
        write_json(path, content)
    return notes


def committee_file(results: Results, table: str, panel: str) -> Any:
    """Where the committees of a panel are stored."""
    return results.folder / "committees" / f"{table}{panel and '-' + panel}.json"


def read_committee(results: Results, table: str, panel: str) -> dict[str, Any] | None:
    """The stored committees of a panel."""
    import json

    path = committee_file(results, table, panel)
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["members"], content["trials"]
    except (ValueError, KeyError, TypeError):
        aside = path.with_name(path.name + ".damaged")
        path.replace(aside)
        results.set_aside.append(f"{path} is damaged; it was renamed to {aside.name} and is not used.")
        return None
    return content


def _count(panel: PanelPlan, logits: list[list[Logits]]) -> dict[str, Any]:
    """All figures of a panel's committees.

    Args:
        logits: `[members][trials]`.
    """
    names = [row.row.name for row in panel.rows if row.row.role == "member"]
    labels = logits[0][0]["test_labels"]
    test = np.array(
        [[of["test"].astype(np.float32) for of in row] for row in logits]
    )  # [m, t, texts, labels]
    trials = test.shape[1]
    content: dict[str, Any] = {
        "names": names,
        "trials": [accuracy_of(test[:, trial].sum(0), labels) for trial in range(trials)],
        "twins": {name: accuracy_of(test[member].sum(0), labels) for member, name in enumerate(names)},
        "sizes": _sizes(test.reshape(-1, *test.shape[2:]), labels),
    }
    if "validation" in logits[0][0]:
        content["subsets"] = _subsets(logits, test, labels)
    return content


def _sizes(pool: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Accuracy of random committees of each size out of all stored members.

    Args:
        pool: test logits, `[stored members, texts, labels]`.
    """
    rng = np.random.default_rng(DRAW_SEED)
    out = []
    for size in range(1, len(pool) + 1):
        draws = [rng.permutation(len(pool))[:size] for _ in range(DRAWS if size < len(pool) else 1)]
        accuracies = [accuracy_of(pool[chosen].sum(0), labels) for chosen in draws]
        out.append({"size": size, "mean": float(np.mean(accuracies)), "sd": float(np.std(accuracies))})
    return out


def _subsets(logits: list[list[Logits]], test: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Every subset of the members: validation accuracy, test accuracy, and the one that is chosen.

    The choice is that of the highest mean validation accuracy over the trials; of equals, the
    smaller. It is repeated with each trial left to the others to show how stable it is.
    """
    held = np.array([[of["validation"].astype(np.float32) for of in row] for row in logits])
    held_labels = logits[0][0]["validation_labels"]
    members, trials = test.shape[:2]
    subsets = [s for size in range(1, members + 1) for s in combinations(range(members), size)]

    def accuracies(fields: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """`[subsets, trials]`."""
        return np.array(
            [[accuracy_of(fields[list(s), t].sum(0), truth) for t in range(trials)] for s in subsets]
        )

    on_validation, on_test = accuracies(held, held_labels), accuracies(test, labels)
    best = int(on_validation.mean(1).argmax())
    chosen_by_trial = on_validation.argmax(0)
    return {
        "validation_texts": len(held_labels),
        "all": [
            {"members": list(s), "validation": float(v), "test": float(t)}
            for s, v, t in zip(subsets, on_validation.mean(1), on_test.mean(1), strict=True)
        ],
        "chosen": list(subsets[best]),
        "chosen_test": on_test[best].tolist(),
        "all_members_test": on_test[-1].tolist(),
        "chosen_by_trial": [list(subsets[i]) for i in chosen_by_trial],
        "chosen_by_trial_test": on_test[chosen_by_trial, range(trials)].tolist(),
    }
