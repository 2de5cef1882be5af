"""Arithmetic below the architecture: packed batches, kernels, operations with gradients."""

HEAD_WIDTH = 64  # fixed by the paper: the transformer width is 64 x heads (Table 8)
