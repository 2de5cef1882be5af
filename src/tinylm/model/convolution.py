"""The convolutional front end: the embedded text seen as an image.

Section 5 of the paper puts convolutional layers between the embedding and the
first transformer block. The image has one channel and is tokens x width; padded
positions are part of it, as they are in a padded batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from tinylm.model.config import Convolution
from tinylm.ops.autograd import norm_gelu


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
        """The first `rows` rows of its output for `x [texts, height, width]`."""
        # With these strides PyTorch keeps all images channels-last, which saves a third of a
        # training step: the gradients of the convolutions run over contiguous channels.
        image = x.unsqueeze(-1).permute(0, 3, 1, 2)
        stages = iter(self.stages)
        for convolution, norm in zip(stages, stages, strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            image = norm_gelu(convolution(image), norm)
        return image.squeeze(1)[:, :rows]


def _stage(channels_in: int, channels_out: int, kernel: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, padding="same"),
        nn.BatchNorm2d(channels_out),
    ]
