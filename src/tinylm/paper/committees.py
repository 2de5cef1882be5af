"""Soft committees of stored members, computed when a run ends.

Logits are large and stay on the machine that made them; what the report says about committees
is computed here and kept as a small file. A subset of the members is chosen on validation texts,
never on test texts.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tinylm.paper.results import Results
from tinylm.paper.spec import panel_name
from tinylm.train.finetune import accuracy_of

DRAWS = 200  # random committees of each size
DRAW_SEED = 0

Logits = dict[str, np.ndarray]


def store_committees(results: Results) -> list[str]:
    """Compute the committees of all tables that were run, as far as their logits are stored here.

    A trial counts when every member has it, so a run that was stopped has committees too. What was computed
    before is kept where logits are missing, as in a fresh clone: the accuracy of each trial, and the rest as
    long as no more trials are stored here than it rests on.

    Returns:
        A sentence for each panel whose members have no trial in common.
    """
    notes = []
    for name in results.planned():
        plan = results.plan(name)
        if plan is None:
            continue
        for panel, spec in zip(plan["panels"], plan["spec"]["panels"], strict=True):
            pairs = zip(panel["rows"], spec["rows"], strict=True)
            members = [row for row, of_spec in pairs if of_spec["role"] == "member"]
            if len(members) < 2:
                continue
            trials = list(zip(*(row["trials"] for row in members), strict=True))  # [trials][members]
            finished = {i: list(keys) for i, keys in enumerate(trials) if all(map(results.has, keys))}
            if not finished:
                notes.append(
                    f"{panel_name(name, panel['name'])}: no committee yet, no trial has all its members."
                )
                continue
            before = results.committees(name, panel["name"])
            if before is not None and before["keys"] == list(finished.values()):
                continue
            content = _counted([row["name"] for row in members], finished, results, before)
            if content is not None:
                results.write_committees(name, panel["name"], content)
    return notes


def _counted(
    names: list[str], finished: dict[int, list[str]], results: Results, before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What is stored of a panel's committees; None where there are no logits here to count anything new.

    `numbers` are the trials whose accuracies are known, `counted` those on which all else rests.

    Args:
        names: of the members.
        finished: for the number of each trial that all members have, the keys of their cells.
        results: where logits may be.
        before: what was stored.
    """
    found = {number: [results.logits(key) for key in keys] for number, keys in finished.items()}
    here: dict[int, list[Logits]] = {
        number: [one for one in logits if one is not None] for number, logits in found.items() if all(logits)
    }
    if not here:
        return None
    content = _count(names, [list(trials_of) for trials_of in zip(*here.values(), strict=True)])
    accuracies = dict(zip(here, content["trials"], strict=True))
    counted = list(here)
    if before is not None:
        stored = zip(before["numbers"], before["keys"], before["trials"], strict=True)
        earlier = {number: accuracy for number, keys, accuracy in stored if finished.get(number) == keys}
        accuracies = earlier | accuracies
        rests_on = before.get("counted", before["numbers"])  # earlier records: on all trials
        if len(rests_on) >= len(here) and earlier.keys() >= set(rests_on):
            content, counted = before, rests_on
    numbers = sorted(accuracies)
    return content | {
        "keys": [finished[number] for number in numbers],
        "numbers": numbers,
        "counted": counted,
        "trials": [accuracies[number] for number in numbers],
    }


def _count(names: list[str], logits: list[list[Logits]]) -> dict[str, Any]:
    """All figures of a panel's committees.

    Args:
        names: of the members.
        logits: `[members][trials]`.
    """
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
    smaller. It is repeated on each trial by itself to show how stable it is.
    """
    held = np.array([[of["validation"].astype(np.float32) for of in row] for row in logits])
    held_labels = logits[0][0]["validation_labels"]
    members, trials = test.shape[:2]
    subsets = [s for size in range(1, members + 1) for s in combinations(range(members), size)]

    def accuracies(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """`[subsets, trials]`."""
        return np.array(
            [[accuracy_of(logits[list(s), t].sum(0), truth) for t in range(trials)] for s in subsets]
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
