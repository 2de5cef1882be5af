"""The questions of the laboratory: variants of the recipe `fast` that are compared at the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinylm.errors import UserError
from tinylm.model.config import ModelConfig, Pooling, describe_invalid
from tinylm.train.recipes import RECIPES, Recipe

PLAIN: dict[str, Any] = {"consistency": 0.0, "muon_lr": None}
EPOCHS = {"frdev": 4, "ag": 3, "db": 8, "fr10": 4, "fr64": 3}  # of fine-tuning


class Variant(BaseModel):
    """What is pre-trained and fine-tuned, where it differs from the recipe `sketch`, which `fast` came from.

    Attributes:
        layers: of the encoder.
        heads: of the encoder, whose width is 64 x heads.
        pooling: of the classifier.
        vocabulary: tokens of the WordPiece vocabulary.
        vocabulary_of: texts that it is made of: W_S and the own texts together, or first the own texts for
            up to half of it, as in `fit`. The own texts are the training texts of all tasks.
        pretrained: whether there is pre-training at all.
        w_s: paragraphs to pre-train on.
        own_first: epochs of masked language modelling over the own texts, before those over W_S.
        own_last: epochs over the own texts after them.
        recipe: fields of `Recipe`.
        pretrain: fields of its `PhaseConfig` of that name.
        finetune: likewise.
        epochs: of fine-tuning, by task.
        device: where it is trained. On a GPU the loss is over the whole vocabulary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = 1
    heads: int = 2
    pooling: Pooling = "mean"
    vocabulary: int = 16_000
    vocabulary_of: Literal["together", "own first"] = "together"
    pretrained: bool = True
    w_s: int = Field(default=20_000, ge=1)
    own_first: int = Field(default=0, ge=0)
    own_last: int = Field(default=2, ge=0)
    recipe: dict[str, Any] = {"max_tokens": 128}
    pretrain: dict[str, Any] = {"epochs": 3}
    finetune: dict[str, Any] = {"consistency": 4.0, "muon_lr": 0.01}
    epochs: dict[str, int] = EPOCHS
    device: str = Field(default="cpu", exclude_if=lambda value: value == "cpu")

    def but(self, **changes: Any) -> Variant:
        """This variant with other values; those of a dictionary are added to it."""
        values = self.model_dump()
        for name, value in changes.items():
            values[name] = values[name] | value if isinstance(value, dict) else value
        return Variant.model_validate(values)

    def recipe_for(self, task: str) -> Recipe:
        """The recipe with which a task is learned.

        Raises:
            UserError: a field that no recipe has, or a value that it cannot have.
        """
        values = RECIPES["sketch"].model_dump(by_alias=False) | self.recipe
        values |= {"vocabulary": self.vocabulary, "pooling": self.pooling}
        values["pretrain"] |= self.pretrain
        values["finetune"] |= self.finetune | {"epochs": self.epochs[task]}
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            raise describe_invalid(error, "a variant of the recipe") from error

    def architecture(self, vocab_size: int) -> ModelConfig:
        """The encoder."""
        recipe = self.recipe_for(next(iter(EPOCHS)))
        return recipe.model_config_for(vocab_size, layers=self.layers, heads=self.heads)

    def pretraining(self) -> dict[str, Any]:
        """All that decides the weights of pre-training, but the seed and the texts."""
        recipe = self.recipe_for(next(iter(EPOCHS))).model_dump(exclude={"name", "pooling", "finetune"})
        names = {
            "layers",
            "heads",
            "vocabulary",
            "vocabulary_of",
            "pretrained",
            "w_s",
            "own_first",
            "own_last",
            "device",
        }
        return {"recipe": recipe} | self.model_dump(include=names)

    def finetuning(self, task: str) -> dict[str, Any]:
        """All that decides what fine-tuning adds to pre-training."""
        phase = self.recipe_for(task).finetune.model_dump()
        return {"task": task, "pooling": self.pooling, "finetune": phase}


@dataclass(frozen=True)
class Question:
    """Variants that are compared.

    Attributes:
        asks: the question, in words.
        variants: by name; the first is the base, with which the others are compared.
    """

    asks: str
    variants: dict[str, Variant]


BASE = Variant()
# Larger batches and no passes over the own texts, as the questions "batch" and "own-texts" found.
LATER: dict[str, Any] = {"own_last": 0, "batch_size": 64}


def _finetuning(**changes: Any) -> Variant:
    return BASE.but(finetune=changes)


def _epochs(factor: float, **changes: Any) -> Variant:
    epochs = {task: max(1, round(factor * count)) for task, count in EPOCHS.items()}
    return BASE.but(epochs=epochs, **changes)


def _pretrained(w_s: int, epochs: int, batch_size: int = 32, **changes: Any) -> Variant:
    return BASE.but(w_s=w_s, pretrain={"epochs": epochs, "batch_size": batch_size}, **changes)


def _shape(layers: int, width: int, epochs: int) -> Variant:
    return _pretrained(20_000, epochs, layers=layers, heads=width // 64)


QUESTIONS = {
    "parts": Question(
        "What do the parts of pre-training bring?",
        {
            "as it is": BASE,
            "random word embeddings": BASE.but(recipe={"neighbour_window": None}),
            "loss over the whole vocabulary": BASE.but(recipe={"sampled_tokens": None}),
            "AdamW alone": BASE.but(pretrain={"muon_lr": None}),
            "no pre-training": BASE.but(pretrained=False),
            "no pre-training, fine-tuned x 3": _epochs(3, pretrained=False),
        },
    ),
    "pooling": Question(
        "Does the classifier read [CLS] or the mean of all tokens?",
        {
            "mean": BASE,
            "[CLS]": BASE.but(pooling="first"),
            "mean, without R-Drop and Muon": _finetuning(**PLAIN),
            "[CLS], without R-Drop and Muon": BASE.but(pooling="first", finetune=PLAIN),
        },
    ),
    "early-pooling": Question(
        "Does a mean over all tokens need the last feed-forward at each of them?",
        {
            "mean after it": _pretrained(20_000, 3, **LATER),
            "mean before it": _pretrained(20_000, 3, pooling="attended", **LATER),
            "[CLS]": _pretrained(20_000, 3, pooling="first", **LATER),
        },
    ),
    "consistency": Question(
        "How much R-Drop (its weight), and does Muon fine-tune the matrices?",
        {
            "4, Muon": BASE,
            **{f"{weight}, Muon": _finetuning(consistency=float(weight)) for weight in (0, 1, 2, 8)},
            **{
                f"{weight}, AdamW": _finetuning(consistency=float(weight), muon_lr=None)
                for weight in (0, 1, 2, 4)
            },
        },
    ),
    "finetune-epochs": Question(
        "How many epochs of fine-tuning?",
        {"as it is": BASE, **{f"x {factor:g}": _epochs(factor) for factor in (0.5, 2, 3)}},
    ),
    "finetune-batch": Question(
        "How many texts in a batch of fine-tuning?",
        {"32": BASE, **{str(size): _finetuning(batch_size=size) for size in (16, 64)}},
    ),
    "finetune-dropout": Question(
        "How much dropout in fine-tuning?",
        {"0.2": BASE, **{str(rate): _finetuning(dropout=rate) for rate in (0.1, 0.3)}},
    ),
    "finetune-rate": Question(
        "How high are the learning rates of fine-tuning?",
        {
            "AdamW 1e-3, Muon 0.01": BASE,
            **{f"AdamW {rate:g}": _finetuning(learning_rate=rate) for rate in (5e-4, 2e-3)},
            **{f"Muon {rate:g}": _finetuning(muon_lr=rate) for rate in (0.005, 0.02)},
        },
    ),
    "own-texts": Question(
        "Do the tasks' own training texts belong into pre-training, and when?",
        {
            "last, 2 epochs": BASE,
            "none": BASE.but(own_last=0),
            **{f"last, {epochs} epochs": BASE.but(own_last=epochs) for epochs in (1, 4, 8)},
            **{f"first, {epochs} epochs": BASE.but(own_first=epochs, own_last=0) for epochs in (1, 2, 4)},
        },
    ),
    # Epochs so that pre-training takes about as long as that of 2 x 256.
    "shape": Question(
        "Depth against width, at about equal seconds of pre-training?",
        {
            "1 x 128, 12 epochs": _shape(1, 128, 12),
            "1 x 256, 6 epochs": _shape(1, 256, 6),
            "2 x 128, 7 epochs": _shape(2, 128, 7),
            "2 x 256, 3 epochs": _shape(2, 256, 3),
            "3 x 128, 5 epochs": _shape(3, 128, 5),
            "4 x 128, 4 epochs": _shape(4, 128, 4),
            "6 x 128, 3 epochs": _shape(6, 128, 3),
        },
    ),
    "vocabulary": Question(
        "How large is the vocabulary, and of which texts is it made?",
        {
            "16,000": BASE,
            **{f"{size:,}": BASE.but(vocabulary=size) for size in (8_000, 30_000)},
            "16,000, own texts first": BASE.but(vocabulary_of="own first"),
        },
    ),
    "text-or-passes": Question(
        "More text, or more passes over less text?",
        {
            "40,000 x 3": _pretrained(40_000, 3),
            "20,000 x 6": _pretrained(20_000, 6),
            "120,000 x 1": _pretrained(120_000, 1),
        },
    ),
    "longer": Question(
        "When does more pre-training stop to help?",
        {
            "40,000 x 3": _pretrained(40_000, 3),
            "40,000 x 10": _pretrained(40_000, 10),
            "40,000 x 30": _pretrained(40_000, 30),
        },
    ),
    "scale": Question(
        "What do depth, width and many more passes bring? (Days on a processor, minutes on a GPU.)",
        {
            f"{layers} x {width}, W_S 40,000 x {epochs}": _pretrained(
                40_000, epochs, layers=layers, heads=width // 64
            )
            for epochs in (3, 10, 30)
            for layers, width in ((1, 128), (1, 256), (2, 128), (2, 256), (3, 256), (6, 256))
        },
    ),
    "width": Question(
        "How wide, at about equal seconds of pre-training?",
        {
            f"{width}, {epochs} epochs": _pretrained(40_000, epochs, heads=width // 64, **LATER)
            for width, epochs in ((128, 6), (256, 3), (512, 1))
        },
    ),
    "max-tokens": Question(
        "Where are texts cut?",
        {"128": BASE, "64": BASE.but(recipe={"max_tokens": 64})},
    ),
    "mask-rate": Question(
        "How many tokens are masked?",
        {"0.3": BASE, **{str(rate): BASE.but(recipe={"mask_rate": rate}) for rate in (0.15, 0.4)}},
    ),
    "batch": Question(
        "How many texts in a batch of pre-training?",
        {"32": BASE, **{str(size): BASE.but(pretrain={"batch_size": size}) for size in (16, 64, 128)}},
    ),
    "rate": Question(
        "How high are the learning rates of pre-training?",
        {
            "AdamW 3e-3, Muon 0.02": BASE,
            **{f"AdamW {rate:g}": BASE.but(pretrain={"learning_rate": rate}) for rate in (1.5e-3, 6e-3)},
            **{f"Muon {rate:g}": BASE.but(pretrain={"muon_lr": rate}) for rate in (0.01, 0.04)},
        },
    ),
}


def questions_named(names: list[str], device: str = "cpu") -> dict[str, Question]:
    """The questions of these names, all where there is no name.

    Raises:
        UserError: there is no such question; the message lists those there are.
    """
    for name in names:
        if name not in QUESTIONS:
            raise UserError(f"the question '{name}' is unknown; there are: {', '.join(QUESTIONS)}.")
    return {name: _on(device, QUESTIONS[name]) for name in names or QUESTIONS}


def _on(device: str, question: Question) -> Question:
    variants = {name: variant.but(device=device) for name, variant in question.variants.items()}
    return Question(question.asks, variants)
