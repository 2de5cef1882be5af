"""Specs: a table of the paper as data.

One YAML file holds what a table varies and what the paper found; everything that turns it
into a training is elsewhere. So a row or a table is added without programming, and a mistake
in the file is refused with its line.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tinylm.errors import UserError
from tinylm.model.config import Convolution
from tinylm.system.plain_yaml import parse_yaml
from tinylm.text.datasets import DATASETS
from tinylm.text.tables import file_format

SPECS = resources.files("tinylm.paper") / "specs"
Model = TypeVar("Model", bound=BaseModel)
ClaimName = Literal["gap", "growth", "overlap", "committee", "untrained-committee"]
Analysis = Literal[
    "weighted-overlap",
    "reverse-mismatch",
    "committee-size",
    "gap-curve",
    "overlap-control",
    "depth",
    "single-head",
    "reduced-vocabulary",
]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finetuning(_Part):
    """Hyper-parameters of a fine-tuning (Tables 10 to 12): eta and alpha."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class TaskSpec(_Part):
    """The classification data of a panel.

    Attributes:
        name: a task of `tinylm.text.tasks`, or a labelled table.
        labels: label numbers; None takes all.
        train_per_label: W_C, rows of each label to learn from.
        test_per_label: rows of each label to measure on.
        hold_out: of the training rows, how many are kept for validation instead.
    """

    name: str
    labels: list[int] | None = None
    train_per_label: int = Field(ge=1)
    test_per_label: int = Field(ge=1)
    hold_out: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DATASETS and not file_format(Path(name)):
            raise ValueError(f"expected {', '.join(DATASETS)} or a labelled table")
        return name


class Selection(_Part):
    """How W_S is chosen.

    Attributes:
        select: `none` (no pre-training), `random`, `custom-made`, `mismatched`, `same-lengths`, `reverse`
            (see `tinylm.text.select`) or `all` (the whole corpus).
        size: W_S; None takes every paragraph that qualifies.
        missing: T_M that a mismatched selection should have.
        absent: of a reverse selection, how many tokens absent from the task it has, or their share of T_W.
        lengths_of: the selection of the same size whose lengths a selection of the same lengths has.
    """

    select: Literal["none", "random", "custom-made", "mismatched", "same-lengths", "reverse", "all"]
    size: int | None = Field(default=None, ge=1)
    missing: int | None = Field(default=None, ge=0)
    absent: Literal["none", "some", "many"] | Annotated[float, Field(ge=0, le=1)] | None = None
    lengths_of: Literal["custom-made", "mismatched"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Selection:
        sized = "mismatched" if self.lengths_of == "mismatched" else self.select
        if sized in ("random", "mismatched", "reverse") and self.size is None:
            raise ValueError(f"a {sized} selection needs a size")
        if (self.select == "same-lengths") != (self.lengths_of is not None):
            raise ValueError("a selection of the same lengths, and no other, says whose lengths (lengths_of)")
        if (self.select == "reverse") != (self.absent is not None):
            raise ValueError("a reverse selection, and no other, says how many tokens are absent")
        if self.missing is not None and sized != "mismatched":
            raise ValueError("missing belongs to a mismatched selection")
        return self


class Architecture(_Part):
    """A BERT-n, with convolutions in front where given (Tables 8 and 9).

    Attributes:
        layers: blocks.
        keep_layers: whatever the preset does to the blocks of other models.
        heads: of each block.
        convolution: the front end.
    """

    layers: int = Field(default=6, ge=1)
    keep_layers: bool = False
    heads: int = Field(default=12, ge=1)
    convolution: Convolution | None = None


class Found(_Part):
    """What the paper reports; None where its text has no value."""

    w_s: int | None = None
    t_w: int | None = None
    t_m: int | None = None
    accuracy: float | None = Field(default=None, ge=0, le=1)
    gap: float | None = Field(default=None, ge=-1, le=1)


class Row(_Part):
    """One row: a selection, an architecture and hyper-parameters.

    Attributes:
        name: what `--rows` takes.
        w_s: the pre-training data.
        architecture: that of the panel when None.
        finetune: that of the panel when None.
        without: hyper-parameters without pre-training; those of the panel when None.
        role: `member` of the panel's committee, or the `deep` model beside it.
        equal_seconds: rows above; this one is trained for so many epochs that its training takes at least
            as long as theirs together.
        equal_parameters: rows above; this one has so many heads that it has about as many parameters as
            they have together.
        reduced_vocabulary: whether the model knows only T_W, the tokens of its W_S.
        paper: what the paper reports.
    """

    name: str = Field(pattern=NAME)
    w_s: Selection
    architecture: Architecture | None = None
    finetune: Finetuning | None = None
    without: Finetuning | None = None
    role: Literal["row", "member", "deep"] = "row"
    equal_seconds: list[str] = []
    equal_parameters: list[str] = []
    reduced_vocabulary: bool = False
    paper: Found = Found()


class Panel(_Part):
    """A table, or one panel of it.

    Attributes:
        name: a, b, ...; empty where the table has one panel.
        task: the classification data.
        architecture: of all rows that name none.
        finetune: hyper-parameters of all rows that name none.
        without: hyper-parameters of the model without pre-training that the gap is measured
            against; no gap is measured when None.
        t_c: the paper's T_C.
        committee: the paper's accuracy of the soft committee of all members.
        single_heads: whether each head of the last block is measured alone (see `heads.py`).
        trials: of each row, at most; for panels whose rows are the sample. None takes the preset's.
        plots: what the report draws from the panel.
        claims: of the paper's claims (see `claims.py`), those that the panel is held against.
    """

    name: str = ""
    title: str
    task: TaskSpec
    architecture: Architecture = Architecture()
    finetune: Finetuning
    without: Finetuning | None = None
    t_c: int | None = None
    committee: float | None = None
    single_heads: bool = False
    trials: int | None = Field(default=None, ge=2)
    plots: list[Literal["gap", "t_m", "labels", "committee", "reverse"]] = []
    claims: list[ClaimName] = []
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_name_each(self) -> Panel:
        _refuse_repeats([row.name for row in self.rows], "row")
        above: list[str] = []
        for row in self.rows:
            for name in [*row.equal_seconds, *row.equal_parameters]:
                if name not in above:
                    raise ValueError(f"row {row.name!r} is to equal {name!r}, which is no row above it")
            above.append(row.name)
        return self


class Table(_Part):
    """A table, figure or open question.

    Attributes:
        title: one line for `tinylm paper list`.
        panels: may be empty where `uses` names the tables whose results are looked at.
        analysis: what the report makes of them beside the tables.
        uses: tables that belong to the analysis.
    """

    title: str
    panels: list[Panel] = []
    analysis: Analysis | None = None
    uses: list[str] = []

    @model_validator(mode="after")
    def _something_to_do(self) -> Table:
        if not self.panels and not self.uses:
            raise ValueError("expected at least one panel, or tables that it uses")
        _refuse_repeats([panel.name for panel in self.panels], "panel")
        return self


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} name {name!r} is there more than once; every one must differ")


def panel_name(table: str, panel: str) -> str:
    """How reports and messages call a panel, such as table3(a)."""
    return f"{table}({panel})" if panel else table


def table_names() -> list[str]:
    """Names of the tables that come with the package, in the paper's order."""
    names = [file.name.removesuffix(".yaml") for file in SPECS.iterdir() if file.name.endswith(".yaml")]
    tables = sorted(name for name in names if name[-1].isdigit())
    return tables + sorted(set(names) - set(tables))


def load_table(name: str) -> tuple[str, Table]:
    """A table by its name or from a file of the user's.

    Returns:
        Its name (that of the file, without ending) and the spec.

    Raises:
        UserError: no such table, or a spec that is not valid, with its file and line.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"spec file {name} does not exist.")
        if path.stem in table_names():
            raise UserError(f"{name} has the name of a table of the paper; give the file another name.")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 (byte {error.start}); expected a YAML file.") from error
        return path.stem, parse_table(text, str(path))
    if name not in table_names():
        known = ", ".join(table_names())
        raise UserError(f"table '{name}' is unknown; there are {known}, all, or a YAML file of your own.")
    return name, parse_table((SPECS / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def parse_table(text: str, source: str) -> Table:
    """A spec from its YAML text; `source` names it in errors.

    Raises:
        UserError: not YAML, or not a valid spec; names the line.
    """
    return parse(Table, text, source)


def parse(model: type[Model], text: str, source: str) -> Model:
    """Validate YAML text against a pydantic model.

    Raises:
        UserError: names source and line of the first mistake.
    """
    values, tree = parse_yaml(text, source)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = str(first["msg"]).removeprefix("Value error, ")
        given = f" was {first['input']!r:.60}" if not isinstance(first["input"], dict | list) else ""
        raise UserError(f"{source}, line {_line(tree, first['loc'])}: {place}{given}: {reason}.") from error


def _line(node: Any, location: Sequence[Hashable]) -> int:
    """Line of the deepest node that `location`, a path of keys and indices, leads to."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
