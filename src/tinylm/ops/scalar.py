# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, misc"
# (numba compiles functions that carry no types)
"""Arithmetic on single numbers that numba compiles into the kernels: bf16, exp, GELU, hashed dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import config, njit, types
from numba.extending import intrinsic

from tinylm.system.paths import cache_folder

f4, u4, u2 = np.float32, np.uint32, np.uint16


def _find_cache() -> None:
    """Name a folder for compiled kernels where numba finds none: a read-only installation without a home."""
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        config.CACHE_DIR = str(cache_folder() / "numba")  # type: ignore[attr-defined]


_find_cache()

OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    # No "nnan" or "ninf": a diverging run must show.
    "fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"},
}


inline = njit(inline="always", **OPTIONS)


kernel = njit(nogil=True, **OPTIONS)


ONE, ZERO, HALF = f4(1), f4(0), f4(0.5)


@intrinsic
def _bits_to_float(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def load(typing: Any, number: Any) -> Any:
    """An entry of an array as float32; bf16 is the upper half of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        bits = context.get_value_type(types.uint32)
        wide = builder.shl(builder.zext(arguments[0], bits), bits(16))
        return builder.bitcast(wide, context.get_value_type(types.float32))

    return types.float32(number), generate


@intrinsic
def store(typing: Any, array: Any, number: Any) -> Any:
    """float32 as an entry of `array`; to bf16 it is rounded to nearest even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if array.dtype == types.float32:
            return arguments[1]
        wide, half = (context.get_value_type(kind) for kind in (types.uint32, types.uint16))
        bits = builder.bitcast(arguments[1], wide)
        odd = builder.and_(builder.lshr(bits, wide(16)), wide(1))
        rounded = builder.add(bits, builder.add(odd, wide(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, wide(16)), half)

    return array.dtype(array, types.float32), generate


@intrinsic
def _float_to_bits(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@inline
def rank(x):
    """int32 that rises with the float32 x.

    LLVM vectorises the maximum of integers, but that of floats only on the promise that there is no NaN.
    """
    bits = _float_to_bits(x)
    return np.int32(bits ^ (np.int32(bits >> 31) & np.int32(0x7FFFFFFF)))


@inline
def of_rank(number):
    """The float32 that `rank` made a number of."""
    return _bits_to_float(u4(np.int32(number ^ (np.int32(number >> 31) & np.int32(0x7FFFFFFF)))))


LOWEST = np.int32(-(2**31))  # below every rank


@inline
def hashed(seed, index):
    """32 random bits for element `index`: the finalizer of MurmurHash3 on (index, seed)."""
    h = u4(u4(index) * u4(0x9E3779B1)) ^ u4(seed)
    h = u4(u4(h ^ u4(h >> u4(16))) * u4(0x85EBCA6B))
    h = u4(u4(h ^ u4(h >> u4(13))) * u4(0xC2B2AE35))
    return u4(h ^ u4(h >> u4(16)))


@inline
def kept(seed, index, cut, scale):
    """What dropout multiplies element `index` by: `scale`, or 0 with probability cut / 2^32."""
    return scale if hashed(seed, index) >= cut else ZERO


LOG2E = f4(1.4426950408889634)


# 2^r on [-1/2, 1/2]: the Taylor series of exp(r ln 2).
EXP2 = tuple(f4(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))


E1, E2, E3, E4, E5, E6 = EXP2


@inline
def exp(x):
    """exp in float32, relative error about 1e-7; x is clamped to [-87, 87].

    It is written out so that LLVM vectorises it, which it cannot do with a call. `np.floor` stays in
    float32; `math.floor` would give int64 and prevent it as well.
    """
    y = min(max(x, f4(-87)), f4(87)) * LOG2E
    n = np.floor(y + HALF)
    r = y - n
    series = ONE + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return series * _bits_to_float(u4(np.int32(np.int32(n) + np.int32(127))) << u4(23))


# Abramowitz and Stegun 7.1.26: erf with an absolute error below 1.5e-7.
A0, A1, A2, A3, A4, A5 = (
    f4(a) for a in (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)


SQRT_HALF = f4(math.sqrt(0.5))


@inline
def normal(x):
    """Distribution function of the normal distribution at x, so that GELU is x * normal(x)."""
    a = abs(x) * SQRT_HALF
    t = ONE / (ONE + A0 * a)
    tail = HALF * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * exp(-a * a)
    return ONE - tail if x > ZERO else tail


DENSITY = f4(1 / math.sqrt(2 * math.pi))


@inline
def gelu_slope(x):
    """Derivative of GELU at x."""
    a = abs(x) * SQRT_HALF  # as in `normal`: the compiler takes the exponential once
    return normal(x) + x * DENSITY * exp(-a * a)
