"""Wilson's interval, against its published figures, its formula, and simulation."""

import math

import numpy as np
import pytest

from medvision.errors import DataInvalid
from medvision.evaluation.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals(successes, n, low, high):
    """The intervals are those of Newcombe, Statistics in Medicine 1998, table I, method 3."""
    figure = wilson(successes, n)
    assert (round(figure.low, 4), round(figure.high, 4)) == (low, high)


@pytest.mark.parametrize("level", [0.90, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 2, 17, 400])
def test_closed_formula(n, level):
    """The interval is Wilson's closed formula for every count of successes."""
    from scipy.stats import norm

    z = norm.ppf((1 + level) / 2)
    for successes in range(n + 1):
        p = successes / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        figure = wilson(successes, n, level)
        assert (figure.low, figure.high) == pytest.approx((centre - half, centre + half), abs=1e-12)
        assert 0 <= figure.low <= figure.high <= 1


@pytest.mark.parametrize("truth", [0.5, 0.85, 0.95])
def test_coverage(truth):
    """In simulated studies of 100 cases the 95 % interval holds the truth in about 95 % of them."""
    counts = np.random.default_rng(0).binomial(100, truth, 20_000)
    intervals = {count: wilson(int(count), 100) for count in np.unique(counts)}
    covered = np.mean([intervals[count].low <= truth <= intervals[count].high for count in counts])
    # A discrete interval oscillates about its level (Agresti and Coull 1998).
    assert 0.93 < covered < 0.98


def test_names_its_method():
    """The figure says by which method and at which level its interval was made."""
    assert wilson(1, 2).method == "Wilson 95%"


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(successes, n):
    """A proportion of nothing, or of impossible counts, is an error and never NaN."""
    with pytest.raises(DataInvalid, match="at least one case"):
        wilson(successes, n)
