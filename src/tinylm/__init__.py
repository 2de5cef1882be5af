"""tinylm: tiny BERT encoders, pre-trained from scratch, and soft committees of them."""

import os

# Our kernels and PyTorch's OpenMP share the processor's cores. By default OpenMP's
# threads spin between two operations, on the cores where ours should run. It reads
# this when it starts, so it must stand before the first import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from tinylm.estimator import TinyTextClassifier as TinyTextClassifier
    from tinylm.onnx_classifier import load_onnx as load_onnx


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `--help` should not wait for PyTorch, and an exported model
    # answers where there is none.
    if name == "load_onnx":
        from tinylm.onnx_classifier import load_onnx

        return load_onnx
    if name == "TinyTextClassifier":
        from tinylm.estimator import TinyTextClassifier

        return TinyTextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
