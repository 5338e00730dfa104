"""Whether something grows: a line through samples, and how far it can be trusted. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

# Above this, samples that follow upon each other say all the same.
CORRELATION_MAX = 0.95


def slope(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The line that fits best.

    Args:
        times: When, at least three different moments.
        values: What was found then.

    Returns:
        By how much it rises in a unit of time, and the standard error of that. Samples that follow upon each other resemble each other (memory
        comes and goes in blocks), so they count for fewer than they are.
    """
    mean_time, mean = statistics.fmean(times), statistics.fmean(values)
    spread = sum((time - mean_time) ** 2 for time in times)
    rise = sum((time - mean_time) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    rest = [value - mean - rise * (time - mean_time) for time, value in zip(times, values, strict=True)]
    squares = sum(one * one for one in rest)
    if not squares:
        return rise, 0.0
    correlation = sum(one * other for one, other in itertools.pairwise(rest)) / squares
    correlation = min(max(correlation, 0.0), CORRELATION_MAX)
    error = math.sqrt(squares / (len(rest) - 2) / spread)
    return rise, error * math.sqrt((1 + correlation) / (1 - correlation))


def percentile(ordered: Sequence[float], share: float) -> float:
    """What so much of all is below, of values in order; NaN if there are none."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else math.nan
