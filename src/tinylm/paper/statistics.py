"""What a handful of trials can say: intervals, slopes and a saturating curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tinylm.report.format import Interval

LEVEL = 0.95
RESAMPLES = 1000
RESAMPLE_SEED = 0
HALF_SIZES = np.logspace(1, 7, 241)  # W_S of half the gap that the fit tries


def interval(differences: Sequence[float] | np.ndarray) -> Interval | None:
    """Mean of paired differences with Student's 95 % interval; None for fewer than two.

    The trials that share a pre-training are not independent, so with two pre-trainings the
    interval tells the spread of fine-tuning well and that of pre-training only in part.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    mean = float(values.mean())
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def slopes(w_s: Sequence[float], gaps: np.ndarray) -> np.ndarray:
    """Growth of the gap per tenfold W_S in each trial, by least squares.

    Args:
        w_s: `[sizes]`.
        gaps: `[sizes, trials]`.

    Returns:
        `[trials]`.
    """
    x = np.log10(np.asarray(w_s, dtype=float))
    x = x - x.mean()
    slope: np.ndarray = (x @ gaps) / (x @ x)
    return slope


@dataclass(frozen=True)
class Curve:
    """gap = full x W_S / (W_S + half): a gap that saturates at `full`.

    Attributes:
        full: the gap at infinite W_S, with its interval.
        half: W_S of half of it.
        w_s_90: W_S that would reach 90 % of it, 9 x half, with its interval.
        bounded: whether the data bound `half` at all; otherwise no W_S can be told.
    """

    full: Interval
    half: float
    w_s_90: Interval
    bounded: bool


def fit_curve(w_s: Sequence[float], gaps: np.ndarray) -> Curve:
    """Fit a saturating curve to the mean gap; intervals from resampled trials.

    Args:
        w_s: `[sizes]`.
        gaps: `[sizes, trials]`.
    """
    sizes = np.asarray(w_s, dtype=float)
    shapes = sizes / (sizes + HALF_SIZES[:, None])  # [tried, sizes]

    def best(mean_gaps: np.ndarray) -> tuple[float, float]:
        full = (shapes @ mean_gaps) / (shapes**2).sum(1)
        errors = ((mean_gaps - full[:, None] * shapes) ** 2).sum(1)
        i = int(errors.argmin())
        return float(full[i]), float(HALF_SIZES[i])

    full, half = best(gaps.mean(1))
    rng = np.random.default_rng(RESAMPLE_SEED)
    trials = gaps.shape[1]
    drawn = np.array([best(gaps[:, rng.integers(0, trials, trials)].mean(1)) for _ in range(RESAMPLES)])
    edges = 100 * np.array([0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    full_low, full_high = np.percentile(drawn[:, 0], edges)
    low, high = np.percentile(9 * drawn[:, 1], edges)
    inside = HALF_SIZES[0] < low / 9 and high / 9 < HALF_SIZES[-1]
    return Curve(
        Interval(full, float(full_low), float(full_high)),
        half,
        Interval(9 * half, float(low), float(high)),
        bool(inside and full > 0),
    )


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)
