"""Recipes: how a model is trained, as data.

`paper` is what Gross et al. did, number by number. `fast` learns the most per
second on a laptop of all that we have tried. A result always holds its recipe, so
that the two are never mixed up. To add a recipe, add an entry to RECIPES.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig, Pooling


def _stored_as(name: str, **settings: Any) -> Any:
    """A field whose first name stays in records, since the keys of stored results hash these names."""
    return Field(validation_alias=name, serialization_alias=name, **settings)


class PhaseConfig(BaseModel):
    """One training phase: AdamW with a learning rate that falls linearly to zero.

    Attributes:
        epochs: passes over the data.
        batch_size: texts per step.
        learning_rate: of AdamW, at its highest.
        muon_lr: learning rate of Muon, which then trains the weight matrices in place of AdamW;
            None leaves everything to AdamW.
        weight_decay: AdamW's, the paper's L2 regularization alpha.
        warmup_ratio: share of all steps in which the learning rate rises from zero.
        lr_decay: whether the learning rate falls after every epoch (paper) or every step.
        dropout: on embeddings, attention probabilities and hidden states.
        consistency: weight of R-Drop (Wu et al. 2021) in fine-tuning: every text passes twice, and a
            further loss draws together the two predictions, which differ by dropout.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    muon_lr: float | None = _stored_as("matrix_learning_rate", default=None, gt=0)
    weight_decay: float = Field(ge=0)
    warmup_ratio: float = _stored_as("warm_up", default=0.0, ge=0, lt=1)
    lr_decay: Literal["epoch", "step"] = _stored_as("decay_each", default="step")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    # Left out of records when 0, so that records written before it existed stay the same.
    consistency: float = Field(default=0.0, ge=0, exclude_if=lambda value: value == 0)

    def schedule(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Share of the highest learning rate at `step` of `epoch`, both from 0."""
        done, total = epoch * steps_per_epoch + step, self.epochs * steps_per_epoch
        rising = self.warmup_ratio * total
        if done < rising:
            return (done + 1) / (rising + 1)
        if self.lr_decay == "epoch":
            return 1 - epoch / self.epochs
        return (total - done) / (total - rising)


class Recipe(BaseModel):
    """Everything about training, and what the architecture takes from it.

    Attributes:
        max_tokens: texts are cut to this many tokens, [CLS] and [SEP] included.
        mask_rate: share of the tokens that are masked in pre-training.
        sampled_tokens: masked tokens are predicted over a sampled vocabulary with this many random
            tokens, drawn again in every step (see `CandidateSampling`). None predicts them over the
            whole vocabulary, and so does a GPU.
        vocabulary: tokens of a WordPiece vocabulary trained on the corpus; None
            takes that of bert-base-uncased.
        frequency_bias: start the output bias of masked language modelling at the
            log frequency of each token, so that training need not learn it first.
        neighbour_window: start from word embeddings of the tokens' neighbours in W_S, up to this
            distance (see `cooccurrence.py`); None starts from random ones.
        pooling: of the classifier, see `ModelConfig`.
        bag_of_words: the second part of pre-training, see `bag_of_words.py`; None without.
        model: settings of `ModelConfig` that differ from its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    max_tokens: int = 128
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    # Left out of records when None, so that records written before it existed stay the same.
    sampled_tokens: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    vocabulary: int | None = None
    frequency_bias: bool = False
    neighbour_window: int | None = Field(default=None, ge=1)
    pretrain: PhaseConfig
    finetune: PhaseConfig
    pooling: Pooling = Field(default="first", exclude_if=lambda value: value == "first")
    bag_of_words: PhaseConfig | None = Field(default=None, exclude_if=lambda value: value is None)
    model: dict[str, float] = {}

    def with_epochs(
        self,
        *,
        pretrain: int | None = None,
        bag_of_words: int | None = None,
        finetune: int | None = None,
        learning_rate: float | None = None,
    ) -> Recipe:
        """This recipe with other epochs, or another learning rate of fine-tuning, where given."""
        changes: dict[str, dict[str, float | None]] = {
            "pretrain": {"epochs": pretrain},
            "bag_of_words": {"epochs": bag_of_words},
            "finetune": {"epochs": finetune, "learning_rate": learning_rate},
        }
        values = self.model_dump()
        for phase, settings in changes.items():
            if given := {name: value for name, value in settings.items() if value is not None}:
                values[phase] |= given
        return Recipe.model_validate(values)

    def model_config_for(self, vocab_size: int, **shape: object) -> ModelConfig:
        """A `ModelConfig` of this recipe with the given shape (layers, heads, ...)."""
        values = {"vocab_size": vocab_size, "max_tokens": self.max_tokens, **self.model, **shape}
        return ModelConfig.model_validate(values)


RECIPES = {
    # Section 3 and the appendix, "Hyper-parameters"; fine-tuning as for Table 1.
    "paper": Recipe(
        name="paper",
        pretrain=PhaseConfig(
            epochs=50, batch_size=32, learning_rate=5.5e-5, weight_decay=1e-2, lr_decay="epoch"
        ),
        finetune=PhaseConfig(
            epochs=50, batch_size=32, learning_rate=8e-5, weight_decay=1e-2, lr_decay="epoch"
        ),
    ),
    # docs/recipe.md has the questions that decided these values.
    "fast": Recipe(
        name="fast",
        mask_rate=0.3,
        sampled_tokens=1000,
        vocabulary=16_000,
        frequency_bias=True,
        neighbour_window=8,
        pretrain=PhaseConfig(
            epochs=3,
            batch_size=64,
            learning_rate=3e-3,
            muon_lr=0.02,
            weight_decay=1e-2,
            warmup_ratio=0.06,
            lr_decay="step",
            dropout=0.0,
        ),
        finetune=PhaseConfig(
            epochs=4,
            batch_size=32,
            learning_rate=1e-3,
            muon_lr=0.01,
            weight_decay=1e-2,
            warmup_ratio=0.06,
            lr_decay="step",
            dropout=0.2,
            consistency=4.0,
        ),
        pooling="attended",
        bag_of_words=PhaseConfig(
            epochs=3,
            batch_size=32,
            learning_rate=5e-4,
            muon_lr=0.005,
            weight_decay=1e-2,
            warmup_ratio=0.06,
            lr_decay="step",
        ),
        model={"init_std": 0.05},
    ),
    # What "fast" was when the results of the preset `cpu` were stored, in which it has that name.
    "sketch": Recipe(
        name="fast",
        max_tokens=64,
        mask_rate=0.3,
        sampled_tokens=1000,
        vocabulary=4000,
        frequency_bias=True,
        neighbour_window=8,
        pretrain=PhaseConfig(
            epochs=3,
            batch_size=32,
            learning_rate=3e-3,
            muon_lr=0.02,
            weight_decay=1e-2,
            warmup_ratio=0.06,
            lr_decay="step",
            dropout=0.0,
        ),
        finetune=PhaseConfig(
            epochs=10,
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=1e-2,
            warmup_ratio=0.06,
            lr_decay="step",
            dropout=0.2,
        ),
        model={"init_std": 0.05},
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise UserError(f"recipe '{name}' is unknown; there are: {', '.join(RECIPES)}.")
    return RECIPES[name]
