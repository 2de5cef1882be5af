"""What a tiny BERT looks like: every number that decides the shape of its weights."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinylm.errors import UserError
from tinylm.model.tfidf import TfidfConfig
from tinylm.ops import HEAD_WIDTH
from tinylm.text.tokenizer import Tokenizer


class Convolution(BaseModel):
    """The convolutional front end of Tables 8 and 9.

    Attributes:
        layers: convolutional layers before the 1x1 layer that closes the front end.
        channels: filters of each of them, the paper's `d`.
        kernel: tokens x embedding dimensions; (16, 3) sees 16 tokens, (1, 3) is a
            1-dimensional kernel along the embedding of each token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(ge=1)
    channels: int = Field(ge=1)
    kernel: tuple[int, int] = (3, 3)

    @property
    def reach(self) -> int:
        """How many rows behind a token change it: "same" padding puts half a kernel behind every layer."""
        return self.layers * (self.kernel[0] // 2)


class ModelConfig(BaseModel):
    """Architecture of a BERT-n, optionally with convolutions in front; by default the paper's BERT-6."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(default=30_522, ge=6)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=12, ge=1)
    max_tokens: int = Field(default=128, ge=3)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    init_std: float = Field(default=0.02, gt=0)
    convolution: Convolution | None = None

    @property
    def width(self) -> int:
        """Transformer width, 64 x heads."""
        return HEAD_WIDTH * self.heads

    @property
    def name(self) -> str:
        """How tables call it, as in "BERT-1, 12 heads, 2 convolutions 64 x 3x3"."""
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


def check_vocabulary(config: ModelConfig | TfidfConfig, tokenizer: Tokenizer) -> None:
    """Refuse a model that has not one weight, or row of weights, per token."""
    if config.vocab_size != len(tokenizer):
        raise UserError(
            f"the model is for {config.vocab_size:,} tokens, the tokenizer has {len(tokenizer):,};"
            " both must be equal."
        )
