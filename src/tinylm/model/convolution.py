"""The convolutional front end: the embedded text seen as an image.

Section 5 of the paper puts convolutional layers between the embedding and the
first transformer block. The image has one channel and is tokens x width; padded
positions are part of it, as they are in a padded batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.memory import keep_memory
from tinylm.model.config import Convolution
from tinylm.model.fourier import FourierConvolution, fourier_pays
from tinylm.model.functions import norm_gelu


class ConvolutionalFrontEnd(nn.Module):
    """`layers` times Conv2d + BatchNorm2d + GELU, then 1x1 to one channel, no residual."""

    def __init__(self, config: Convolution) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 1
        for _ in range(config.layers):
            # "same" pads an even kernel by one more at the end than at the beginning.
            stages += _stage(channels, config.channels, config.kernel)
            channels = config.channels
        stages += _stage(channels, 1, (1, 1))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """The first `rows` rows of what it makes of `x [texts, height, width]`."""
        # With these strides PyTorch keeps all images channels-last, which saves a third of a
        # training step: the gradients of the convolutions run over contiguous channels.
        image = x.unsqueeze(-1).permute(0, 3, 1, 2)
        stages = iter(self.stages)
        for convolution, norm in zip(stages, stages, strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            image = norm_gelu(convolution(image), norm)
        return image.squeeze(1)[:, :rows]


class FoldedFrontEnd(nn.Module):
    """The same for answering: a third of the time, nearly the same numbers.

    BatchNorm is folded into the convolutions, these work in `dtype`, kernels of many rows by
    way of frequencies, and no layer computes rows that reach no row which is read.

    Args:
        front: the trained front end, which is not changed.
        max_tokens: rows of the image in training; behind them there is nothing.
        dtype: bf16 where the processor multiplies it.
    """

    def __init__(self, front: ConvolutionalFrontEnd, max_tokens: int, dtype: torch.dtype) -> None:
        super().__init__()
        keep_memory()  # images take megabytes, again for every answer
        self.max_tokens, self.dtype = max_tokens, dtype
        stages = iter(front.stages)
        folded = [_fold(*pair, dtype) for pair in zip(stages, stages, strict=True)]
        *square, self.last = folded
        self.kernel = square[0][0].shape[2:]
        self.convolutions = [_convolution(weight, bias) for weight, bias in square]

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """The first `rows` rows of what the front end makes of `x [texts, height, width]`, fp32."""
        # Images are [texts, height, width, channels] throughout.
        x = x.to(self.dtype).unsqueeze(-1)
        tokens, dimensions = self.kernel
        # "same" padding: an even kernel reaches one further at the end than at the beginning.
        left, right, before, behind = (dimensions - 1) // 2, dimensions // 2, (tokens - 1) // 2, tokens // 2
        for number, convolution in enumerate(self.convolutions, start=1):
            wanted = min(self.max_tokens, rows + (len(self.convolutions) - number) * behind)
            padded = F.pad(x, (0, 0, left, right, before, max(0, wanted + behind - x.shape[1])))
            x = F.gelu(convolution(padded[:, : before + wanted + behind]))
        weight, bias = self.last
        return F.gelu((x @ weight.flatten()).float() + bias.float())


def _convolution(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """The convolution of images `[texts, rows, columns, channels]`, without padding."""
    _, channels, rows, _ = weight.shape
    if fourier_pays(channels, rows):
        return FourierConvolution(weight, bias)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1).contiguous()


def _fold(convolution: nn.Module, norm: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its BatchNorm, in evaluation."""
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert convolution.bias is not None and norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = convolution.weight * factor[:, None, None, None]
    bias = (convolution.bias - norm.running_mean) * factor + norm.bias
    return weight.detach().to(dtype), bias.detach().to(dtype)


def _stage(channels_in: int, channels_out: int, kernel: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, padding="same"),
        nn.BatchNorm2d(channels_out),
    ]
