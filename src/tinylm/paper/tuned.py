"""Tables with the learning rates and weight decays that `tinylm paper tune` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinylm.errors import UserError
from tinylm.paper.results import Results
from tinylm.paper.spec import Finetuning, Row, Table

TUNED = "-tuned"  # ends the name of such a table
COMPARED = ["row", "the paper's", "the preset's", "found", "attempts"]


def tuned_table(name: str, table: Table, results: Results) -> tuple[str, Table]:
    """A table with the values found in place of the paper's; rows that were not searched are left out.

    Raises:
        UserError: nothing was searched.
    """
    panels = []
    for panel in table.panels:
        found = (results.tuning(name, panel.name) or {"rows": {}})["rows"]
        rows = [_tuned(row, found[row.name]) for row in panel.rows if row.name in found]
        if rows:
            panels.append(panel.model_copy(update={"rows": rows}))
    if not panels:
        raise UserError(
            f"{results.folder} has no learning rates found for {name}; search first: tinylm paper tune"
            f" {name}."
        )
    title = f"{table.title}; hyper-parameters searched here"
    return name + TUNED, table.model_copy(update={"panels": panels, "title": title})


def _tuned(row: Row, found: Mapping[str, Any]) -> Row:
    values = {arm: Finetuning.model_validate({name: of["found"][name] for name in Finetuning.model_fields})
              for arm, of in found.items()}  # fmt: skip
    return row.model_copy(update=values)


def comparison(found: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a grid with the head COMPARED, for the `rows` of a stored panel."""
    return [
        [row + (", no pre-training" if arm == "without" else ""), _line(of["paper"]), _line(of["preset"]),
         _line(of["found"]), f"{of['attempts']} ({of['pruned']} ended early)"]
        for row, arms in found.items()
        for arm, of in arms.items()
    ]  # fmt: skip


def _line(values: Mapping[str, Any]) -> str:
    words = values_words(Finetuning(**{name: values[name] for name in Finetuning.model_fields}))
    return words if values["accuracy"] is None else f"{words}: {values['accuracy']:.3f}"


def values_words(values: Finetuning) -> str:
    """Learning rate and weight decay, such as "1e-03, 0.012"."""
    return f"{values.learning_rate:.1e}, {values.weight_decay:.2g}"
