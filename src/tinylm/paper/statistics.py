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
    """Mean of independent, paired differences with Student's 95 % interval; None for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(stats.sem(values))
    if error == 0:  # scipy has no such distribution
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def difference(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Difference of two means with Welch's 95 % interval; None where a side has fewer than two values.

    The values of each side are independent of each other: one for each pre-training, or one for each trial
    without pre-training. With two pre-trainings the interval is wide, and still covers the truth in only
    90 % of the cases where they differ more than trials do (simulated).
    """
    if min(len(first), len(second)) < 2:
        return None
    mean = float(np.mean(first) - np.mean(second))
    # Written out: scipy's warns, on standard error, where all values of a side are nearly equal.
    errors = [float(np.var(each, ddof=1)) / len(each) for each in (first, second)]
    if sum(errors) == 0:
        return Interval(mean, mean, mean)
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(each) - 1) for error, each in zip(errors, (first, second), strict=True)
    )
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * sum(errors) ** 0.5
    return Interval(mean, mean - half, mean + half)


def slope(x: Sequence[float] | np.ndarray, y: Sequence[float]) -> Interval | None:
    """Slope of a straight line, by least squares, with Student's 95 % interval.

    Args:
        x, y: of each pre-training.

    Returns:
        None for fewer than three values, or where `x` does not vary.
    """
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    line = stats.linregress(x, y)
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * line.stderr
    return Interval(float(line.slope), float(line.slope - half), float(line.slope + half))


def growth(w_s: Sequence[float], accuracies: Sequence[float]) -> Interval | None:
    """Growth of the accuracy for ten times W_S, see `slope`."""
    return slope(np.log10(w_s), accuracies)


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray],
    samples: Sequence[Sequence[float]],
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Figures of several means with percentile intervals from resampled values (bootstrap).

    With few values in a sample such intervals are too narrow.

    Args:
        statistic: of means `[samples, resamples]`; returns `[figures, resamples]`.
        samples: the values of each mean, at least two; those of one are independent of each other and of
            those of the others.
        resamples: their number.

    Returns:
        An interval for each figure.
    """

    def of_samples(*drawn: np.ndarray, axis: int) -> np.ndarray:
        means = np.stack([sample.mean(axis) for sample in drawn])  # [samples], or [samples, resamples]
        return statistic(means.reshape(len(means), -1)).reshape(-1, *means.shape[1:])

    values = tuple(np.asarray(sample, dtype=float) for sample in samples)
    found = stats.bootstrap(
        values,
        of_samples,
        axis=-1,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(RESAMPLE_SEED),
    ).confidence_interval
    means = of_samples(*values, axis=-1)
    return [Interval(*map(float, each)) for each in zip(means, found.low, found.high, strict=True)]


def resampled_rows(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    samples: Sequence[Sequence[float]],
    groups: Sequence[str],
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Figures of rows that are a sample themselves, with percentile intervals (nested bootstrap).

    Rows are drawn again within their group, and for each row drawn its values.

    Args:
        statistic: of the numbers of the rows and their means; returns `[figures]`.
        samples: the values of each row; those of one are independent of each other.
        groups: of each row.
        resamples: their number.

    Returns:
        An interval for each figure.
    """
    rng = np.random.default_rng(RESAMPLE_SEED)
    members = [[i for i, each in enumerate(groups) if each == group] for group in dict.fromkeys(groups)]
    every = np.arange(len(samples))
    means = statistic(every, np.array([np.mean(sample) for sample in samples]))
    found = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(inside, len(inside)) for inside in members])
        drawn = [np.mean(rng.choice(samples[row], len(samples[row]))) for row in rows]
        found.append(statistic(rows, np.array(drawn)))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(*map(float, each)) for each in zip(means, low, high, strict=True)]


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


def fit_curve(w_s: Sequence[float], arms: Sequence[Sequence[float]], without: Sequence[float]) -> Curve:
    """Fit a saturating curve to the mean gap; intervals from resampled pre-trainings and trials.

    Args:
        w_s: `[sizes]`.
        arms: for each of them the accuracy of each pre-training, at least two.
        without: the accuracy of each trial without pre-training, at least two.
    """
    sizes = np.asarray(w_s, dtype=float)
    shapes = sizes / (sizes + HALF_SIZES[:, None])  # [tried, sizes]

    def best(accuracies: np.ndarray) -> np.ndarray:
        """Full gap and `half` with the least squared error, `[2, resamples]`."""
        means = accuracies[:-1] - accuracies[-1]
        full = (shapes @ means) / (shapes**2).sum(1)[:, None]  # [tried, resamples]
        errors = ((means - full[:, None] * shapes[:, :, None]) ** 2).sum(1)
        tried = errors.argmin(0)
        return np.stack([full[tried, np.arange(len(tried))], HALF_SIZES[tried]])

    full, half = resampled(best, [*arms, without])
    inside = HALF_SIZES[0] < half.low and half.high < HALF_SIZES[-1]
    w_s_90 = Interval(9 * half.mean, 9 * half.low, 9 * half.high)
    return Curve(full, half.mean, w_s_90, bool(inside and full.mean > 0))


def rank_correlation(x: Sequence[float], y: Sequence[float], beside: Sequence[float] | None = None) -> float:
    """Spearman's rank correlation, or the partial one with `beside` held equal; 0 where one does not vary."""
    ranks = [stats.rankdata(each) for each in (x, y)]
    if beside is not None:
        held = stats.rankdata(beside)
        ranks = [_residuals(each, held) for each in ranks]
    if min(float(np.ptp(each)) for each in ranks) < 1e-9:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _residuals(values: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """What a straight line over `beside` leaves of values."""
    if np.ptp(beside) == 0:
        return values
    held = beside - beside.mean()
    return values - values.mean() - held * (held @ values) / (held @ held)
