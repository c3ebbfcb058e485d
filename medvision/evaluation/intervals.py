"""Confidence intervals of proportions."""

from __future__ import annotations

from medvision.errors import DataInvalid
from medvision.records import Proportion


def wilson(successes: int, n: int, level: float = 0.95) -> Proportion:
    """Return a proportion with its two-sided Wilson score interval (Wilson, JASA 1927; Newcombe, Stat Med 1998).

    Raises DataInvalid without a case: a proportion of nothing has no value, and a record holds no NaN.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise DataInvalid(
            f"A proportion needs at least one case and 0 to n successes; found {successes} of {n}. "
            "Evaluate on a split that holds cases of every class."
        )
    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return Proportion(successes / n, successes, n, float(interval.low), float(interval.high), f"Wilson {level:.0%}")
