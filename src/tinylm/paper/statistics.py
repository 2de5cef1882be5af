"""What a handful of trials can say: intervals, slopes and a saturating curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    Trials that share a pre-training are not independent: with fewer pre-trainings than trials the
    interval covers the spread of fine-tuning well and that of pre-training only in part.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(stats.sem(values))
    if error == 0:  # scipy has no such distribution
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray], gaps: np.ndarray, resamples: int = RESAMPLES
) -> list[Interval]:
    """Figures of the mean gaps with percentile intervals from resampled trials (bootstrap).

    Args:
        statistic: of mean gaps `[rows, resamples]`; returns `[figures, resamples]`.
        gaps: `[rows, trials]`.
        resamples: their number.

    Returns:
        An interval for each figure.
    """

    def of_sample(sample: np.ndarray, axis: int) -> np.ndarray:
        means = sample.mean(axis)  # [rows], or [rows, resamples]
        return statistic(means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])

    found = stats.bootstrap(
        (gaps,),
        of_sample,
        axis=-1,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(RESAMPLE_SEED),
    ).confidence_interval
    means = of_sample(gaps, -1)
    return [Interval(*map(float, each)) for each in zip(means, found.low, found.high, strict=True)]


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
        bounded: whether the data bound `half` at all; otherwise they tell no W_S.
    """

    full: Interval
    half: float
    w_s_90: Interval
    bounded: bool


def fit_curve(w_s: Sequence[float], gaps: np.ndarray) -> Curve:
    """Fit a saturating curve to the mean gap; intervals from resampled trials.

    Args:
        w_s: `[sizes]`.
        gaps: `[sizes, trials]`, at least two trials.
    """
    sizes = np.asarray(w_s, dtype=float)
    shapes = sizes / (sizes + HALF_SIZES[:, None])  # [tried, sizes]

    def best(means: np.ndarray) -> np.ndarray:
        """Full gap and `half` with the least squared error, `[2, resamples]`."""
        full = (shapes @ means) / (shapes**2).sum(1)[:, None]  # [tried, resamples]
        errors = ((means - full[:, None] * shapes[:, :, None]) ** 2).sum(1)
        tried = errors.argmin(0)
        return np.stack([full[tried, np.arange(len(tried))], HALF_SIZES[tried]])

    full, half = resampled(best, gaps)
    inside = HALF_SIZES[0] < half.low and half.high < HALF_SIZES[-1]
    w_s_90 = Interval(9 * half.mean, 9 * half.low, 9 * half.high)
    return Curve(full, half.mean, w_s_90, bool(inside and full.mean > 0))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)
