"""The convolutional front end for answering."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from tinylm.model.convolution import ConvolutionalFrontEnd
from tinylm.ops.fourier import FourierConvolution, fourier_is_cheaper
from tinylm.system.memory import keep_memory


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
    if fourier_is_cheaper(channels, rows):
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
