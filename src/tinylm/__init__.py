"""tinylm: tiny BERT encoders, pre-trained from scratch, and soft committees of them."""

import importlib
import os

# Our kernels and PyTorch's OpenMP share the processor's cores. By default OpenMP's
# threads spin between two operations, on the cores where ours should run. It reads
# this when it starts, so it must stand before the first import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# By default onnxruntime reports on its use to its maker. It reads this when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from typing import TYPE_CHECKING, Any  # noqa: E402

from tinylm.system.cores import limit_threads  # noqa: E402

limit_threads()  # for the same reason here

if TYPE_CHECKING:
    from tinylm.export.runtime import load_onnx as load_onnx
    from tinylm.fit.estimator import TinyTextClassifier as TinyTextClassifier
    from tinylm.infer.committee import Committee as Committee
    from tinylm.infer.committee import load_committee as load_committee

    __version__: str

# The public names and where they live.
PUBLIC = {
    "TinyTextClassifier": "tinylm.fit.estimator",
    "Committee": "tinylm.infer.committee",
    "load_committee": "tinylm.infer.committee",
    "load_onnx": "tinylm.export.runtime",
}
__all__ = ["Committee", "TinyTextClassifier", "__version__", "load_committee", "load_onnx"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: `--help` should not wait for PyTorch, and an exported model
    # predicts where there is none.
    if name == "__version__":
        from importlib.metadata import version  # slow to import and seldom needed

        return version("tinylm")
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
