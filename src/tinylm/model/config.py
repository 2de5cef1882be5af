"""The architecture of a committee's members: every number that decides the shape of their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tinylm.errors import UserError
from tinylm.ops import HEAD_WIDTH

if TYPE_CHECKING:
    from tinylm.text.tokenizer import Tokenizer

LAYER_NORM_EPS = 1e-12
# Far beyond any model of this kind: what reads a configuration may count up to it.
MOST = 1000
Pooling = Literal["first", "mean", "attended"]


class Convolution(BaseModel):
    """The convolutional front end of Tables 8 and 9.

    Attributes:
        layers: convolutional layers before the 1x1 layer that closes the front end.
        channels: filters of each of them, the paper's `d`.
        kernel: tokens x embedding dimensions; (16, 3) sees 16 tokens, (1, 3) is a
            1-dimensional kernel along the embedding of each token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(ge=1, le=MOST)
    channels: int = Field(ge=1)
    kernel: tuple[int, int] = (3, 3)

    @property
    def stages(self) -> list[tuple[int, int, tuple[int, int]]]:
        """Channels in, channels out and kernel of each convolution, the closing 1x1 included."""
        channels = [1] + [self.channels] * self.layers
        square = [(n_in, self.channels, self.kernel) for n_in in channels[:-1]]
        return [*square, (self.channels, 1, (1, 1))]

    @property
    def reach(self) -> int:
        """How many rows behind a token change it: "same" padding puts half a kernel behind every layer."""
        return self.layers * (self.kernel[0] // 2)


class ModelConfig(BaseModel):
    """Architecture of a BERT-n, optionally with convolutions in front; by default the paper's BERT-6.

    Attributes:
        pooling: what the classifier reads of a text: the hidden state of [CLS] ("first", BERT's way
            and the paper's); the mean over all its tokens ("mean"); or the mean over all its tokens of
            what the last block's attention leaves, on which the last feed-forward then works ("attended"),
            as accurate in a third of the last block's time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    is_encoder: ClassVar[bool] = True

    vocab_size: int = Field(default=30_522, ge=6)
    layers: int = Field(default=6, ge=1, le=MOST)
    heads: int = Field(default=12, ge=1, le=MOST)
    max_tokens: int = Field(default=128, ge=3)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    init_std: float = Field(default=0.02, gt=0)
    convolution: Convolution | None = None
    # Left out of records where it is BERT's, so that records written before it existed stay the same.
    pooling: Pooling = Field(default="first", exclude_if=lambda value: value == "first")

    @property
    def is_bert(self) -> bool:
        """Whether HuggingFace's BERT computes the same from the same weights."""
        return self.convolution is None and self.pooling == "first"

    @property
    def width(self) -> int:
        """Transformer width, 64 x heads."""
        return HEAD_WIDTH * self.heads

    @property
    def name(self) -> str:
        """Its name in tables, such as "BERT-1, 12 heads, 2 convolutions 64 x 3x3"."""
        name = f"BERT-{self.layers}, {self.heads} head{'s' if self.heads > 1 else ''}"
        if front := self.convolution:
            plural = "s" if front.layers > 1 else ""
            kernel = "x".join(str(side) for side in front.kernel)
            name += f", {front.layers} convolution{plural} {front.channels} x {kernel}"
        return name

    def image_height(self, longest: int) -> int:
        """Rows of the convolutions' image that change a row which is read, in evaluation.

        Padded rows take part, but only those within reach of the longest text (`longest` tokens).
        """
        assert self.convolution is not None
        return min(self.max_tokens, longest + self.convolution.reach)

    @property
    def layer_count(self) -> int:
        """The paper's measure of latency (section 5): 4 a block, convolutions, and 1.

        BERT-6 has 25 = 6 x 4 + 1; a BERT-1 with two convolutional layers, their
        closing 1x1 layer included, 4 + 3 = 7, counted as the paper counts it.
        """
        if self.convolution is None:
            return 4 * self.layers + 1
        return 4 * self.layers + self.convolution.layers + 1

    def classifier_shapes(self, n_labels: int) -> dict[str, tuple[int, ...]]:
        """Shape of each weight of a classifier, under the names that HuggingFace gives them."""
        width, shapes = self.width, dict[str, tuple[int, ...]]()

        def linear(name: str, n_in: int, n_out: int) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

        def norm(name: str, size: int) -> None:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

        embeddings = "bert.embeddings"
        shapes[f"{embeddings}.word_embeddings.weight"] = (self.vocab_size, width)
        shapes[f"{embeddings}.position_embeddings.weight"] = (self.max_tokens, width)
        shapes[f"{embeddings}.token_type_embeddings.weight"] = (2, width)
        norm(f"{embeddings}.LayerNorm", width)
        for number, (n_in, n_out, kernel) in enumerate(self.convolution.stages if self.convolution else ()):
            name = f"bert.convolution.stages.{2 * number}"
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in, *kernel), (n_out,)
            batch_norm = f"bert.convolution.stages.{2 * number + 1}"
            norm(batch_norm, n_out)
            shapes[f"{batch_norm}.running_mean"] = shapes[f"{batch_norm}.running_var"] = (n_out,)
            shapes[f"{batch_norm}.num_batches_tracked"] = ()
        for layer in range(self.layers):
            block = f"bert.encoder.layer.{layer}"
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                linear(f"{block}.attention.{name}", width, width)
            norm(f"{block}.attention.output.LayerNorm", width)
            linear(f"{block}.intermediate.dense", width, 4 * width)
            linear(f"{block}.output.dense", 4 * width, width)
            norm(f"{block}.output.LayerNorm", width)
        linear("bert.pooler.dense", width, width)
        linear("classifier", width, n_labels)
        return shapes

    def to_huggingface(self) -> dict[str, Any]:
        """The entries of `config.json` on the architecture: BERT's own, and `tinylm` with ours."""
        return {
            "model_type": "bert" if self.is_bert else "tinylm",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "hidden_act": "gelu",
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
            "max_position_embeddings": self.max_tokens,
            "type_vocab_size": 2,
            "initializer_range": self.init_std,
            "layer_norm_eps": LAYER_NORM_EPS,
            "pad_token_id": 0,
            "tie_word_embeddings": True,
            "tinylm": self.model_dump(mode="json"),
        }


class TfidfConfig(BaseModel):
    """The member without a block, see `model/tfidf.py`.

    Attributes:
        rows: of its table of weights, a power of two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    is_encoder: ClassVar[bool] = False

    rows: int = Field(ge=4)

    @field_validator("rows")
    @classmethod
    def _power_of_two(cls, rows: int) -> int:
        if rows & (rows - 1):
            raise ValueError("expected a power of two")
        return rows

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "TF-IDF of words and characters"

    def classifier_shapes(self, n_labels: int) -> dict[str, tuple[int, ...]]:
        """As of `ModelConfig`."""
        return {"tfidf.weight": (self.rows, n_labels), "tfidf.idf": (self.rows,), "tfidf.bias": (n_labels,)}

    def to_huggingface(self) -> dict[str, Any]:
        """As of `ModelConfig`."""
        return {"model_type": "tinylm", "tinylm_tfidf": self.model_dump(mode="json")}


# Names of tensors in the folders that hold a `TokenTfidfConfig`.
STORED_IDF, STORED_TOKEN_WEIGHTS = "rarity", "votes.weight"


class TokenTfidfConfig(BaseModel):
    """The TF-IDF member of earlier folders, logistic regression on tokens; it is read, but no longer trained.

    Attributes:
        vocab_size: tokens of the vocabulary.
        max_tokens: texts are cut to this many tokens, [CLS] and [SEP] included, which have no weight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    is_encoder: ClassVar[bool] = False

    vocab_size: int = Field(ge=1)
    max_tokens: int = Field(default=128, ge=3)

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "TF-IDF of tokens"

    def classifier_shapes(self, n_labels: int) -> dict[str, tuple[int, ...]]:
        """As of `ModelConfig`."""
        return {
            STORED_IDF: (self.vocab_size,),
            STORED_TOKEN_WEIGHTS: (self.vocab_size, n_labels),
            "cls.predictions.bias": (n_labels,),
        }

    def to_huggingface(self) -> dict[str, Any]:
        """As of `ModelConfig`."""
        return {"model_type": "tinylm", "tinylm_linear": self.model_dump(mode="json")}


# Of the members that read tokens, and of all.
TokenConfig = ModelConfig | TokenTfidfConfig
AnyConfig = TokenConfig | TfidfConfig


def heads_of_width(width: int) -> int:
    """Number of heads of a transformer width.

    Raises:
        UserError: the width is not a multiple of 64.
    """
    if width <= 0 or width % HEAD_WIDTH:
        raise UserError(f"width {width} is not 64 x heads; give a multiple of 64, such as 128 or 768.")
    return width // HEAD_WIDTH


def describe_invalid(error: ValidationError, what: str) -> UserError:
    """Turn a pydantic error into one sentence that names the first bad setting."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or what
    return UserError(f"{what}: setting '{name}' was {first.get('input')!r}: {first['msg']}.")


def check_vocabulary(config: TokenConfig, tokenizer: Tokenizer) -> None:
    """Refuse a model whose vocabulary is not as large as the tokenizer's."""
    if config.vocab_size != len(tokenizer):
        raise UserError(
            f"the model is for {config.vocab_size:,} tokens, the tokenizer has {len(tokenizer):,};"
            " both must be equal."
        )
