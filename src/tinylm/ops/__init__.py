"""Arithmetic below the architecture: packed batches, kernels, operations with gradients."""

PAD_ID = 0  # every tokenizer here has [PAD] first, as bert-base-uncased has
HEAD_WIDTH = 64  # fixed by the paper: the transformer width is 64 x heads (Table 8)
