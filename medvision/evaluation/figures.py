"""What each figure is: from sums over patients, or over images, that carry a weight each.

With a weight of 1 a figure is that of the sample; with the counts of a bootstrap draw it is that of the draw. Point
values and replicates come from the same lines. A figure that is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERALL = (
    "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "auroc", "auprc",
    "ece", "classwise_ece", "brier", "nll",
)  # fmt: skip
PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
# Less is better; their bound is the upper one.
ERRORS = ("ece", "classwise_ece", "brier", "nll")

N_BINS = 15
# float32 tells no probability nearer to 1; a lower floor would let one confident error be the whole NLL.
PROBABILITY_FLOOR = 1e-7
# Sums of multiples of it are exact, and so the same on every processor and with any number of threads, up to millions
# of images; finer than the float32 of the scores.
_GRAIN = 2.0**-30


@dataclass(frozen=True)
class Ranking:
    """The images of one class and all others, best score first, by the unit that carries their weight.

    For each case: how many cases score at least as high, and how many others score higher, and at least as high.
    """

    cases: np.ndarray
    others: np.ndarray
    cases_at_least: np.ndarray
    others_above: np.ndarray
    others_at_least: np.ndarray


@dataclass(frozen=True)
class Sample:
    """Predictions of ``n_units`` patients or images, in the form from which figures are computed.

    ``sums`` (n_units, columns): cases found, cases, and calls of each class; squared error and log loss; and the
    difference of score and truth in each bin, of the predicted class and then of each class.
    """

    n_classes: int
    n_units: int
    sums: np.ndarray
    rankings: tuple[Ranking, ...]


def figure_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what ``compute`` returns: overall, then ``sensitivity.<class>`` and so on."""
    return (*OVERALL, *(f"{figure}.{name}" for figure in PER_CLASS for name in classes))


def prepare(y_true: np.ndarray, y_score: np.ndarray, units: np.ndarray) -> Sample:
    """Sort and sum predictions, once for all weights.

    Parameters
    ----------
    y_true, y_score: (n,) and (n, k), as in ``evaluate_predictions``.
    units: (n,) codes 0 to n_units - 1 of the patient, or of the image itself.
    """
    n_units, k = int(units.max()) + 1, y_score.shape[1]
    rows = _grained(np.hstack([_counts(y_true, y_score), _losses(y_true, y_score), _gaps(y_true, y_score)]))
    sums = np.zeros((n_units, rows.shape[1]))
    np.add.at(sums, units, rows)
    rankings = tuple(_rank(y_true == c, y_score[:, c], units) for c in range(k))
    return Sample(k, n_units, sums, rankings)


def compute(sample: Sample, weights: np.ndarray) -> np.ndarray:
    """Return every figure under every row of weights, (r, n_units) float, in the order of ``figure_names``: (r, f).

    ECE: |mean score - share of cases| over 15 bins of equal mass of the whole sample, of the predicted class (Guo et
    al., ICML 2017; Nguyen and O'Connor, EMNLP 2015). Class-wise ECE: the mean of the same over the scores of each
    class (Kull et al., NeurIPS 2019). Brier: the squared distance to the truth summed over classes, in [0, 2] (Brier
    1950). NLL: natural logarithm, probabilities of at least 1e-7. AUPRC: average precision, in steps and without
    interpolation (Davis and Goadrich, ICML 2006). AUROC and AUPRC are one-vs-rest; overall their mean, of two classes
    those of the second.
    """
    k, sums = sample.n_classes, weights @ sample.sums
    hits, cases, calls, losses, gaps = np.split(sums, [k, 2 * k, 3 * k, 3 * k + 2], axis=1)
    n = cases.sum(axis=1, keepdims=True)
    ranks = np.stack([_rank_figures(ranking, weights) for ranking in sample.rankings], axis=2)
    auroc, auprc = ranks if k > 2 else ranks[:, :, 1:]
    bins = np.abs(gaps).reshape(len(weights), k + 1, N_BINS).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, ppv, f1 = hits / cases, hits / calls, 2 * hits / (cases + calls)
        rejections = n - cases - calls + hits
        specificity, npv = rejections / (n - cases), rejections / (n - calls)
        overall = (
            hits.sum(axis=1) / n[:, 0],
            sensitivity.mean(axis=1),
            f1.mean(axis=1),
            (f1 * cases).sum(axis=1) / n[:, 0],
            auroc.mean(axis=1),
            auprc.mean(axis=1),
            bins[:, 0] / n[:, 0],
            bins[:, 1:].mean(axis=1) / n[:, 0],
            *(losses / n).T,
        )
    return np.hstack([np.stack(overall, axis=1), sensitivity, specificity, ppv, npv, f1, *ranks])


def place_in_bins(score: np.ndarray) -> np.ndarray:
    """Return in which of 15 bins of equal mass each score (n,) lies, from 0 on; equal scores lie together."""
    return np.searchsorted(np.quantile(score, np.arange(1, N_BINS) / N_BINS), score)


def _counts(y_true: np.ndarray, y_score: np.ndarray) -> np.ndarray:
    one_hot = np.eye(y_score.shape[1])
    truth, called = one_hot[y_true], one_hot[y_score.argmax(axis=1)]
    return np.hstack([truth * called, truth, called])


def _losses(y_true: np.ndarray, y_score: np.ndarray) -> np.ndarray:
    brier = ((y_score - np.eye(y_score.shape[1])[y_true]) ** 2).sum(axis=1)
    nll = -np.log(np.clip(y_score[np.arange(len(y_true)), y_true], PROBABILITY_FLOOR, 1))
    return np.stack([brier, nll], axis=1)


def _gaps(y_true: np.ndarray, y_score: np.ndarray) -> np.ndarray:
    """Return score minus truth in the column of the score's bin, (n, (1 + k) * bins)."""
    top, k = y_score.argmax(axis=1), y_score.shape[1]
    binned = [_binned(y_score.max(axis=1), top == y_true)]
    return np.hstack([*binned, *(_binned(y_score[:, c], y_true == c) for c in range(k))])


def _binned(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    columns = np.zeros((len(score), N_BINS))
    columns[np.arange(len(score)), place_in_bins(score)] = score - truth
    return columns


def _rank(is_case: np.ndarray, score: np.ndarray, units: np.ndarray) -> Ranking:
    order = np.argsort(-score, kind="stable")
    falling, case_places, other_places = -score[order], is_case[order], ~is_case[order]
    cases, others = falling[case_places], falling[other_places]
    return Ranking(
        cases=units[order][case_places],
        others=units[order][other_places],
        cases_at_least=np.searchsorted(cases, cases, "right"),
        others_above=np.searchsorted(others, cases, "left"),
        others_at_least=np.searchsorted(others, cases, "right"),
    )


def _rank_figures(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """Return AUROC and AUPRC under every row of weights, (2, r)."""
    cases = np.take(weights, ranking.cases, axis=1)
    case_sums, other_sums = _running(cases), _running(np.take(weights, ranking.others, axis=1))
    n_cases, n_others = case_sums[:, -1], other_sums[:, -1]
    above = np.take(other_sums, ranking.others_above, axis=1)
    at_least = np.take(other_sums, ranking.others_at_least, axis=1)
    hits = np.take(case_sums, ranking.cases_at_least, axis=1)
    # A case of weight 0 before all others has no precision, and counts for nothing.
    precision = _grained(hits / np.maximum(hits + at_least, np.finfo(float).tiny))
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = 1 - np.einsum("rc,rc->r", cases, above + at_least) / (2 * n_cases * n_others)
        auprc = np.einsum("rc,rc->r", cases, precision) / n_cases
    # Without a counter-case every precision is 1, which tells nothing.
    return np.stack([auroc, np.where(n_others > 0, auprc, np.nan)])


def _grained(values: np.ndarray) -> np.ndarray:
    return np.rint(values / _GRAIN) * _GRAIN


def _running(weights: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, ... weights of each row."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
