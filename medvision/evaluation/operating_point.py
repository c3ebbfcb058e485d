"""From which score on a class is called: the threshold chosen on val with a stated confidence, and its test figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medvision.errors import OperatingPointUnattainable
from medvision.evaluation.intervals import (
    LEVEL,
    clopper_pearson_bound,
    effective_size,
    proportion,
    undefined,
    wilson,
    wilson_limits,
)
from medvision.records import Figure, OperatingPoint, OperatingPointFigures


def choose_operating_point(
    class_name: str, is_class: np.ndarray, score: np.ndarray, groups: np.ndarray | None, *, target_sensitivity: float
) -> OperatingPoint:
    """Return the highest threshold, hence the best specificity, that shows the target sensitivity on val.

    Thresholds are tried from the lowest up, each by the one-sided 95 % lower bound of its sensitivity, and the first
    that fails ends the search: a fixed sequence of tests (Angelopoulos et al., Learn then Test, 2021), so that the
    true sensitivity is below the target in at most 5 % of val splits, although threshold and bound come from the same
    cases. With patients, sensitivity is that to a random image of a random patient, here and in the promise.

    Parameters
    ----------
    is_class, score: truth and score of the class, (n,); scores are taken as float32, as packages give them.
    groups: patient of each case (n,), None where unknown.
    target_sensitivity: in (0, 1).

    Raises
    ------
    OperatingPointUnattainable: too few cases of the class for any threshold to show the target.
    """
    score = np.asarray(score, np.float32)
    positives = _positives(score[is_class], None if groups is None else groups[is_class])
    threshold = _highest_passing(positives, target_sensitivity)
    if threshold is None:
        raise OperatingPointUnattainable(_too_few(class_name, positives, groups is not None, target_sensitivity))
    cleared, others = ~is_called(score[~is_class], threshold), None if groups is None else groups[~is_class]
    return OperatingPoint(
        class_name, threshold, target_sensitivity, positives.sensitivity(threshold), proportion(cleared, others)
    )


def is_called(score: np.ndarray, threshold: float) -> np.ndarray:
    """Return which scores (n,) reach a threshold, compared in float32, in which both are made."""
    return np.asarray(score, np.float32) >= np.float32(threshold)


def patients_needed(target: float) -> int:
    """Return the smallest n for which n of n shows a proportion of ``target``, in (0, 1), with 95 % confidence."""
    # A target that is the bound of n of n itself must not need n + 1 for a rounding.
    return math.ceil(math.log(1 - LEVEL) / math.log(target) - 1e-9)


def figures_at(
    point: OperatingPoint, is_class: np.ndarray, score: np.ndarray, groups: np.ndarray | None, *, prevalence: float
) -> OperatingPointFigures:
    """Return what a frozen operating point does on test, with PPV and NPV at a stated prevalence in (0, 1).

    Bayes' rule takes sensitivity and specificity to the prevalence. The intervals of PPV and NPV recover the variance
    of log sensitivity and of log (1 - specificity) from their Wilson limits (MOVER; Zou and Donner, Stat Med 2008), the
    bounds from Clopper-Pearson. Near 1, where models are, the adjusted logit interval (Mercaldo, Lau and Zhou, Stat Med
    2007) held the truth in as few as 7 of 10 simulated test splits. ``is_class`` and ``score`` are (n,), with cases of
    the class and of others; ``groups`` (n,) or None.
    """
    called = is_called(score, point.threshold)
    positives, others = (None, None) if groups is None else (groups[is_class], groups[~is_class])
    found, cleared = _share(called[is_class], positives), _share(~called[~is_class], others)
    odds = prevalence / (1 - prevalence)
    return OperatingPointFigures(
        class_name=point.class_name,
        threshold=point.threshold,
        sensitivity=proportion(called[is_class], positives),
        specificity=proportion(~called[~is_class], others),
        prevalence=prevalence,
        ppv=_predictive_value(found, cleared, odds, len(score)),
        npv=_predictive_value(cleared, found, 1 / odds, len(score)),
    )


class _Share(NamedTuple):
    """A proportion and its limits, all on the independent cases that the patients are worth."""

    value: float
    low: float
    high: float
    bound: float


@dataclass(frozen=True)
class _Positives:
    """Val cases of a class, the weight of each in its sensitivity, and the independent cases that they are worth."""

    score: np.ndarray
    weights: np.ndarray
    size: float
    n_patients: int

    def sensitivity(self, threshold: float) -> Figure:
        called = is_called(self.score, threshold)
        if self.n_patients == len(called):
            return wilson(int(called.sum()), len(called))
        # Sums of thirds and tenths are off in the last digits.
        value = 1.0 if called.all() else min(float(self.weights @ called), 1.0)
        # As many patients without a miss show no more than that.
        bound = min(
            clopper_pearson_bound(value * self.size, self.size), clopper_pearson_bound(self.n_patients, self.n_patients)
        )
        method = f"Wilson on an effective size of {self.size:.1f}, {self.n_patients} patients counting alike"
        return Figure(value, *wilson_limits(value, self.size), bound, len(called), method)


def _positives(score: np.ndarray, patients: np.ndarray | None) -> _Positives:
    """Weigh each patient alike, and find how many independent cases their images are worth.

    A high sensitivity leaves few misses: too few to show how alike the images of a patient are, and ruled by the one
    patient with many of them. In simulations with such patients, bounds from the misses failed in up to 20 % of val
    splits. The ranks of all scores are at least as alike as the calls that a threshold makes of them, and many.
    """
    _, codes, images = np.unique(
        np.arange(len(score)) if patients is None else patients, return_inverse=True, return_counts=True
    )
    m, weights = len(images), 1 / (images * len(images))[codes]
    ranks = np.searchsorted(np.sort(score), score)
    centre = weights @ ranks
    variance = float(weights @ (ranks - centre) ** 2)
    means = np.bincount(codes, ranks, minlength=m) / images
    between = float(((means - centre) ** 2).sum()) / max(m * (m - 1), 1)
    size = len(score) if between * len(score) <= variance else variance / between
    return _Positives(score, weights, max(float(size), float(m)), m)


def _highest_passing(positives: _Positives, target: float) -> float | None:
    highest = None
    for threshold in np.unique(positives.score):
        bound = positives.sensitivity(threshold).bound
        if bound is None or bound < target:
            break
        highest = float(threshold)
    return highest


def _share(right: np.ndarray, groups: np.ndarray | None) -> _Share:
    value, size = float(right.mean()), effective_size(right, groups)
    return _Share(value, *wilson_limits(value, size), clopper_pearson_bound(value * size, size))


def _too_few(class_name: str, positives: _Positives, knows_patients: bool, target: float) -> str:
    found = f"{len(positives.score)} cases" + (f" of {positives.n_patients} patients" if knows_patients else "")
    unit = "patients" if knows_patients else "cases"
    return (
        f"No threshold shows a sensitivity of {target:g} for {class_name} with 95 % confidence: val has {found}, and "
        f"even a perfect model needs {patients_needed(target)} {unit} with it, one that misses some about twice as "
        "many. Add cases, raise dataset.val_fraction, or lower evaluation.target_sensitivity."
    )


def _predictive_value(found: _Share, cleared: _Share, odds: float, n: int) -> Figure:
    """Return PPV of (found, cleared) at prior ``odds``; NPV if the two are exchanged and the odds turned over."""
    if found.value == 0 and cleared.value == 1:
        return undefined("not defined: no such call", n)
    right, wrong = _log(found.value), _log(1 - cleared.value)
    logit = math.log(odds) + right - wrong
    low = logit - math.hypot(right - _log(found.low), _log(1 - cleared.low) - wrong)
    high = logit + math.hypot(_log(found.high) - right, wrong - _log(1 - cleared.high))
    bound = logit - math.hypot(right - _log(found.bound), _log(1 - cleared.bound) - wrong)
    return Figure(_expit(logit), _expit(low), _expit(high), _expit(bound), n, "MOVER of Wilson, by Bayes' rule")


def _log(share: float) -> float:
    # Of no error at all the recovered limits tend to those of the share of errors alone, which this floor reaches.
    return math.log(max(share, 1e-300))


def _expit(logit: float) -> float:
    # Without overflow on either side.
    return 0.5 * (1 + math.tanh(logit / 2))
