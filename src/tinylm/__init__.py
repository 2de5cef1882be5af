"""tinylm: tiny BERT encoders, pre-trained from scratch, and soft committees of them."""

import os
from typing import Any

# Our kernels and PyTorch's OpenMP share the processor's cores. By default OpenMP's
# threads spin between two operations, on the cores where ours should run. It reads
# this when it starts, so it must stand before the first import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    # Late: the command line's --help should not wait for PyTorch.
    if name == "TinyTextClassifier":
        from tinylm.estimator import TinyTextClassifier

        return TinyTextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
