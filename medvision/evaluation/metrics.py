"""From predictions to an Evaluation: every figure of classification, with its interval and its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvision.errors import DataInvalid
from medvision.evaluation.bootstrap import point_values, replicate
from medvision.evaluation.figures import ERRORS, OVERALL
from medvision.evaluation.intervals import (
    MAX_UNDEFINED,
    auroc_interval,
    bootstrap_limits,
    certain,
    proportion,
    undefined,
)
from medvision.evaluation.predictions import Predictions
from medvision.evaluation.recalibration import calibration_intercept, calibration_slope
from medvision.records import ClassFigures, Evaluation, Figure, OverallFigures, Plan

# Probabilities are float32 sums over classes; half precision on a GPU costs three digits.
SUM_TOLERANCE = 1e-3
_NO_VARIATION, _FEW_PAIRS = "no interval: no variation", "no interval: fewer than two independent pairs"


def evaluate_predictions(
    predictions: Predictions,
    *,
    model: str,
    dataset: str,
    package_digest: str,
    split_fingerprint: str,
    predictions_sha256: str,
    plan: Plan,
) -> Evaluation:
    """Compute every figure of one model package on one test split; the same input gives the same record.

    Parameters
    ----------
    predictions: y_true (n,) class indices, every class has a case; y_score (n, k) probabilities in [0, 1] of at least
        two classes, rows sum to 1. The prediction is the class of the highest one.

    Where patients are known every interval counts them. Where they are not, images are taken for independent:
    proportions have Wilson's interval, AUROC has DeLong's, and the rest is bootstrapped by image.

    Raises
    ------
    DataInvalid: shapes, labels or scores are not as above.
    """
    y_true, y_score = check_predictions(predictions.y_true, predictions.y_score, predictions.classes)
    predictions = replace(predictions, y_true=y_true, y_score=y_score)
    overall, per_class = describe(predictions, plan)
    confusion, groups = confusion_matrix(y_true, predictions.y_pred, len(predictions.classes)), predictions.groups
    return Evaluation(
        model=model,
        dataset=dataset,
        package_digest=package_digest,
        split_fingerprint=split_fingerprint,
        predictions_sha256=predictions_sha256,
        classes=predictions.classes,
        n=len(y_true),
        n_patients=None if groups is None else int(groups.max()) + 1,
        plan=plan,
        overall=overall,
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def describe(predictions: Predictions, plan: Plan) -> tuple[OverallFigures, tuple[ClassFigures, ...]]:
    """Return every figure of checked predictions; those of a class without a case are not defined."""
    study = _study(predictions, plan)
    return _overall_figures(study), tuple(_class_figures(study, c) for c in range(len(predictions.classes)))


def check_predictions(y_true: np.ndarray, y_score: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores as int64 and float64 arrays; DataInvalid says what is wrong with them."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    k = len(classes)
    if k < 2:
        raise DataInvalid(f"An evaluation needs at least 2 classes, found {k}. Check the package's list of classes.")
    if y_true.ndim != 1 or y_score.shape != (len(y_true), k) or len(y_true) == 0:
        raise DataInvalid(
            f"Expected y_true (n,) and y_score (n, {k}) with n >= 1, found {y_true.shape} and {y_score.shape}. "
            "Score the test split again with the package that these classes belong to."
        )
    _check_scores(y_score)
    return _check_labels(y_true, classes), y_score


def confusion_matrix(y_true: np.ndarray, y_pred: np.ndarray, k: int) -> np.ndarray:
    """Count cases, (k, k): rows are the truth, columns the prediction."""
    return np.bincount(y_true * k + y_pred, minlength=k * k).reshape(k, k)


def _check_scores(y_score: np.ndarray) -> None:
    if not np.isfinite(y_score).all():
        bad = int((~np.isfinite(y_score)).any(axis=1).sum())
        raise DataInvalid(
            f"Expected finite probabilities, found NaN or infinity in {bad} of {len(y_score)} rows. "
            "The weights or the normalization are damaged: train again, or run evaluate with another checkpoint."
        )
    sums = y_score.sum(axis=1)
    if y_score.min() < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise DataInvalid(
            f"Expected probabilities in [0, 1] whose rows sum to 1, found values from {y_score.min():.4g} and sums "
            f"from {sums.min():.4g} to {sums.max():.4g}. Apply softmax to logits before they are evaluated."
        )


def _check_labels(y_true: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    if y_true.dtype.kind not in "iu" or y_true.min() < 0 or y_true.max() >= len(classes):
        raise DataInvalid(
            f"Expected integer labels from 0 to {len(classes) - 1}, found {y_true.dtype} from {y_true.min()} to "
            f"{y_true.max()}. The split and the package must list the same classes: run normalize and train again."
        )
    counts = np.bincount(y_true, minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        raise DataInvalid(
            f"Expected test cases of every class, found none of {', '.join(absent)}: their sensitivity has no value. "
            "Add images of them and split again."
        )
    return y_true.astype(np.int64)


@dataclass(frozen=True)
class _Study:
    """Predictions with the values of all figures and their replicates, by name."""

    predictions: Predictions
    groups: np.ndarray | None
    values: dict[str, float]
    draws: dict[str, np.ndarray]


def _study(predictions: Predictions, plan: Plan) -> _Study:
    names, draws = replicate(predictions, plan)
    by_name = dict(zip(names, draws.T, strict=True))
    return _Study(predictions, predictions.groups, point_values(predictions), by_name)


def _overall_figures(study: _Study) -> OverallFigures:
    y_true, y_score, classes = study.predictions.y_true, study.predictions.y_score, study.predictions.classes
    pairs = min(_independent_pairs(y_true == c, study.predictions.units) for c in range(len(classes)))
    figures = {name: _bootstrapped(study, name, pairs) for name in OVERALL}
    figures["accuracy"] = _share(study, "accuracy", study.predictions.y_pred == y_true, np.full(len(y_true), True))
    if study.groups is None and len(classes) == 2:
        figures["auroc"] = auroc_interval(y_true == 1, y_score[:, 1])
    return OverallFigures(**{name: _settled(figure) for name, figure in figures.items()})


def _class_figures(study: _Study, c: int) -> ClassFigures:
    name, groups = study.predictions.classes[c], study.groups
    is_case, called = study.predictions.y_true == c, study.predictions.y_pred == c
    score = study.predictions.y_score[:, c]
    pairs = _independent_pairs(is_case, study.predictions.units)
    figures = {
        "sensitivity": _share(study, f"sensitivity.{name}", called, is_case),
        "specificity": _share(study, f"specificity.{name}", ~called, ~is_case),
        "ppv": _share(study, f"ppv.{name}", is_case, called),
        "npv": _share(study, f"npv.{name}", ~is_case, ~called),
        "f1": _bootstrapped(study, f"f1.{name}", pairs),
        "auroc": auroc_interval(is_case, score) if groups is None else _bootstrapped(study, f"auroc.{name}", pairs),
        "auprc": _bootstrapped(study, f"auprc.{name}", pairs),
        "calibration_slope": calibration_slope(is_case, score, groups),
        "calibration_intercept": calibration_intercept(is_case, score, groups),
    }
    return ClassFigures(
        name=name,
        n=int(is_case.sum()),
        n_patients=None if groups is None else len(np.unique(groups[is_case])),
        **{figure: _settled(found) for figure, found in figures.items()},
    )


def _share(study: _Study, name: str, right: np.ndarray, among: np.ndarray) -> Figure:
    """Return the share of ``right`` among the images where ``among``."""
    return proportion(right[among], None if study.groups is None else study.groups[among], study.draws[name])


def _bootstrapped(study: _Study, name: str, pairs: int) -> Figure:
    n, value, draws = len(study.predictions.y_true), study.values[name], study.draws[name]
    unit, is_error = "image" if study.groups is None else "patient", name in ERRORS
    if np.isnan(draws).mean() > MAX_UNDEFINED:
        return undefined("not defined in more than 10 % of the replicates", n)
    is_loss = name in ("brier", "nll")
    limits = bootstrap_limits(draws, value, pairs, is_loss=is_loss)
    if limits is not None:
        bound = limits.upper if is_error else limits.lower
        return Figure(value, limits.low, limits.high, bound, n, f"{unit} bootstrap, {len(draws)} replicates")
    if is_loss:
        return Figure(value, None, None, None, n, _FEW_PAIRS if pairs < 2 else _NO_VARIATION)
    return certain(value, pairs, n, is_error)


def _settled(figure: Figure) -> Figure:
    """Round to 10 digits, so that the last ones of another processor make no other record; counted shares are exact."""
    value, *limits = (
        None if each is None else float(f"{each:.10g}")
        for each in (figure.value, figure.low, figure.high, figure.bound)
    )
    low, high, bound = limits
    return replace(figure, value=value if figure.successes is None else figure.value, low=low, high=high, bound=bound)


def _independent_pairs(is_case: np.ndarray, units: np.ndarray) -> int:
    """Return how many pairs of a case and a counter-case can be formed of different patients, or images."""
    cases, others = np.unique(units[is_case]), np.unique(units[~is_case])
    return min(len(cases), len(others), (int(units.max()) + 1) // 2)
