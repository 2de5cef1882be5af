"""The device that a model is trained on, the CPU or an NVIDIA GPU, and what it supports."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch

from tinylm.errors import UserError

CPU = torch.device("cpu")


def device_named(name: str, here: bool = True) -> torch.device:
    """The device with this name: `cpu`, `cuda`, or `cuda:1` for the second GPU.

    Args:
        name: of the device.
        here: whether it must be in this machine; otherwise it is another one's.

    Raises:
        UserError: another name, or a GPU that is not present.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"`device` was '{name}'; expected cpu, cuda, or cuda:1 for the second GPU.")
    count = torch.cuda.device_count()
    if here and device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(f"`device` was '{name}', but PyTorch finds {count or 'no'} CUDA GPUs here; use cpu.")
    return device


def processor_of(device: torch.device) -> str:
    """Name of a GPU, or of this machine's processor with the widest instructions that training can use.

    Virtual machines of unlike processors often give the same name.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1] if found else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}{', bf16' if supports_bf16() else ''})"


def supports_bf16(device: torch.device = CPU) -> bool:
    """Whether this processor, or a device, multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@lru_cache
def gains_by_int8() -> bool:
    """Whether this processor gains by int8: it has VNNI and not AMX, with which bf16 takes no longer."""
    return bool(torch.cpu._is_vnni_supported()) and not torch.cpu._is_amx_tile_supported()
