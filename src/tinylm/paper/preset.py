"""Presets: the same experiments at another size.

`paper` changes nothing. The others turn knobs, each named here and printed by the report, so
that a small run is not mistaken for the paper's.
"""

from __future__ import annotations

from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig
from tinylm.paper.spec import Architecture, Finetuning, Selection, parse
from tinylm.train.recipes import Recipe, recipe_named

MOST_TRIALS = 100  # of a row: seeds leave room for this many
PRESETS = resources.files("tinylm.paper") / "presets.yaml"


class Sources(BaseModel):
    """Files of a corpus, in `$TINYLM_DATA` or the cache folder.

    Attributes:
        articles: openings of articles, one paragraph per title: of several files that hold a
            title, the first counts.
        further: later paragraphs, any number per title.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    articles: list[str] = Field(min_length=1)
    further: list[str] = []


class Preset(BaseModel):
    """How far an experiment is scaled down.

    Attributes:
        recipe: of training, see `tinylm.train.recipes`.
        vocabulary: the tokenizer; a number trains one on the corpus.
        corpus: a name for `open_corpus`, or files.
        trials: fine-tunings of each cell.
        pretrainings: pre-trainings that they begin from in turn.
        max_tokens: texts are cut there.
        w_s_divided_by: of every W_S.
        all_of_wikipedia: what W_S = 6 million becomes: a public model, a number of paragraphs, or
            None for the whole corpus.
        paper_t_m: whether a mismatched W_S must have the paper's T_M; otherwise its T_M is as
            large as W_S allows.
        layers: blocks of a model that has several in the paper; None keeps the paper's.
        deep_layers: the same for the deep model that a committee is compared with.
        heads_divided_by: of the heads, rounded, at least 1.
        channels_divided_by: of the convolutions' filters, rounded, at least 1.
        mask_rate, batch_size: of pre-training; None keeps the recipe's.
        sampled_tokens: masked tokens are predicted over this many sampled tokens; None predicts them
            over the whole vocabulary, as the paper does.
        pretrain_epochs: None keeps the recipe's.
        least_paragraphs: small W_S are read repeatedly until at least this many paragraphs
            are seen.
        finetune_epochs: None keeps the recipe's.
        most_finetune_texts: a large task has fewer epochs, so that about this many texts are seen,
            in two epochs at least; None sets no bound.
        patience: fine-tuning ends when this many epochs in a row brought no better validation accuracy,
            and the weights of the best epoch are kept, with pre-training and without; None takes all
            epochs and keeps the last one's.
        finetune_muon_lr: trains the matrices with Muon; None keeps the recipe's.
        spec_hyperparameters: whether learning rate and weight decay of fine-tuning are those of
            the spec (Tables 10 to 12) or the recipe's.
        max_train_texts: training texts of a task, all labels together; None takes all.
        max_test_texts: the same for test texts.
        validation_per_label: validation texts, at most, of the training texts that are left over.
        validation_share: of each label's training texts, this share is used for validation instead.
        task_instead: a task that stands for every task of the specs.
        labels_instead: its number of labels.
        rows_instead: as many training and test rows of each label does it have at most.
        leaves_out: tables that `all` does not stand for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    vocabulary: str | int
    corpus: str | Sources
    trials: int = Field(default=5, ge=2, le=MOST_TRIALS)
    pretrainings: int = Field(default=2, ge=1, le=MOST_TRIALS)
    max_tokens: int = Field(default=128, ge=3)
    w_s_divided_by: float = Field(default=1, ge=1)
    all_of_wikipedia: str | int | None = "distilbert-base-uncased"
    paper_t_m: bool = True
    layers: int | None = Field(default=None, ge=1)
    deep_layers: int | None = Field(default=None, ge=1)
    heads_divided_by: float = Field(default=1, ge=1)
    channels_divided_by: float = Field(default=1, ge=1)
    mask_rate: float | None = Field(default=None, gt=0, lt=1)
    batch_size: int | None = Field(default=None, ge=1)
    sampled_tokens: int | None = Field(default=None, ge=1)
    pretrain_epochs: int | None = Field(default=None, ge=1)
    least_paragraphs: int = Field(default=0, ge=0)
    finetune_epochs: int | None = Field(default=None, ge=1)
    most_finetune_texts: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    finetune_muon_lr: float | None = Field(default=None, gt=0)
    spec_hyperparameters: bool = True
    max_train_texts: int | None = Field(default=None, ge=1)
    max_test_texts: int | None = Field(default=None, ge=1)
    validation_per_label: int = Field(default=0, ge=0)
    validation_share: float = Field(default=0, ge=0, lt=1)
    task_instead: str | None = None
    labels_instead: int = Field(default=2, ge=2)
    rows_instead: int = Field(default=100, ge=2)
    leaves_out: list[str] = []

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> Preset:
        if self.patience is not None and not (self.validation_per_label or self.validation_share):
            raise ValueError("patience needs validation texts: give validation_share")
        return self

    def base_recipe(self) -> Recipe:
        """The recipe with this preset's changes, but for what a row decides."""
        recipe = recipe_named(self.recipe)
        pretrain = {"batch_size": self.batch_size, "epochs": self.pretrain_epochs}
        finetune = {
            "epochs": self.finetune_epochs,
            "matrix_learning_rate": self.finetune_muon_lr,
        }
        values = recipe.model_dump()
        values["max_tokens"] = self.max_tokens
        values["sampled_tokens"] = self.sampled_tokens
        values["mask_rate"] = self.mask_rate or recipe.mask_rate
        values["bag_of_words"] = None  # the paper's pre-training is masked language modelling alone
        values["pretrain"] |= {key: value for key, value in pretrain.items() if value is not None}
        values["finetune"] |= {key: value for key, value in finetune.items() if value is not None}
        return Recipe.model_validate(values)

    def pretraining_recipe(self, w_s: int) -> Recipe:
        """The recipe for a number of paragraphs: small W_S are read more often."""
        recipe = self.base_recipe()
        epochs = max(recipe.pretrain.epochs, -(-self.least_paragraphs // w_s))
        return recipe.with_epochs(pretrain=epochs)

    def finetuning_recipe(self, hyper: Finetuning, texts: int) -> Recipe:
        """The recipe for so large a task, if wanted with the hyper-parameters of Tables 10 to 12."""
        recipe = self.base_recipe()
        if self.most_finetune_texts is not None:
            most = max(2, round(self.most_finetune_texts / texts))
            recipe = recipe.with_epochs(finetune=min(recipe.finetune.epochs, most))
        if not self.spec_hyperparameters:
            return recipe
        return with_hyperparameters(recipe, hyper)

    def model_config_of(self, architecture: Architecture, vocab_size: int, *, role: str) -> ModelConfig:
        """The architecture of a row with that role, scaled."""
        front = architecture.convolution
        if front is not None:
            front = front.model_copy(update={"channels": _scaled(front.channels, self.channels_divided_by)})
        layers = architecture.layers
        if layers > 1 and not architecture.keep_layers:
            layers = (self.deep_layers if role == "deep" else self.layers) or layers
        return self.base_recipe().model_config_for(
            vocab_size,
            layers=layers,
            heads=_scaled(architecture.heads, self.heads_divided_by),
            convolution=front,
        )

    def size_of(self, selection: Selection, paper_w_s: int | None) -> int | None:
        """W_S of a selection, scaled; None for every paragraph that qualifies."""
        if selection.select == "all":
            return self.all_of_wikipedia if isinstance(self.all_of_wikipedia, int) else None
        if selection.size is None and self.w_s_divided_by == 1:
            return None
        size = selection.size or paper_w_s
        return None if size is None else max(1, round(size / self.w_s_divided_by))

    def rows_per_label(self, train: int, hold_out: int, test: int, n_labels: int) -> tuple[int, int, int]:
        """Training, validation and test rows of each label, out of the spec's."""
        # Validation texts that every fine-tuning has serve those that are to have some just as well.
        used = train - (0 if self.validation_share else hold_out)
        if self.max_train_texts is not None:
            used = min(used, max(1, self.max_train_texts // n_labels))
        if self.max_test_texts is not None:
            test = min(test, max(1, self.max_test_texts // n_labels))
        return used, min(self.validation_per_label, train - used), test


def with_hyperparameters(recipe: Recipe, hyper: Finetuning) -> Recipe:
    """A recipe with these values in fine-tuning; Muon's learning rate keeps its ratio to AdamW's."""
    phase = recipe.finetune
    values = hyper.model_dump()
    if phase.muon_lr is not None:
        values["muon_lr"] = phase.muon_lr * hyper.learning_rate / phase.learning_rate
    return recipe.model_copy(update={"finetune": phase.model_copy(update=values)})


def preset_names() -> list[str]:
    """Names of the presets."""
    return list(yaml.safe_load(PRESETS.read_text(encoding="utf-8")))


def load_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    presets = yaml.safe_load(PRESETS.read_text(encoding="utf-8"))
    if name not in presets:
        raise UserError(f"preset '{name}' is unknown; there are {', '.join(presets)}.")
    return parse(Preset, yaml.safe_dump(presets[name]), f"presets.yaml, {name}")


def _scaled(number: int, divisor: float) -> int:
    return max(1, round(number / divisor))
