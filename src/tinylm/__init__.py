"""tinylm: tiny BERT encoders, pre-trained from scratch, and soft committees of them."""

import os

# Our kernels and PyTorch's OpenMP share the processor's cores. By default OpenMP's
# threads spin between two operations, on the cores where ours should run. It reads
# this when it starts, so it must stand before the first import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from tinylm.onnx_classifier import load_onnx as load_onnx


def __getattr__(name: str) -> Any:
    # Loaded when asked for: this package must be importable without what one use of it needs.
    if name == "load_onnx":
        from tinylm.onnx_classifier import load_onnx

        return load_onnx
    raise AttributeError(f"module 'tinylm' has no attribute {name!r}")
