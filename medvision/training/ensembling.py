"""How the members of an ensemble are weighed: fitted on val, on probabilities that no member was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from medvision.config import nearest
from medvision.errors import ConfigInvalid, DataInvalid, FingerprintMismatch
from medvision.models.ensemble import combine, stacking_features
from medvision.records import Combination, Member, PackageInfo
from medvision.training.folds import part_by_group

RULES = ("soft", "hard", "stacking")

_FOLDS = 5
# From heavy to hardly any regularisation; the folds choose.
_STRENGTHS = np.logspace(-3, 2, 11)


def check_rule(rule: str) -> None:
    """Raise ConfigInvalid, naming the nearest, unless there is such a way to join models."""
    if rule not in RULES:
        raise ConfigInvalid(f"--rule: there is no way {rule!r} to join models. {nearest(rule, list(RULES))}")


def join_packages(packages: Sequence[PackageInfo]) -> PackageInfo:
    """Return the ensemble of packages, named as the first, with nothing fitted on val yet.

    Its members have equal weights, and each keeps the temperature that its package was given.

    Raises
    ------
    ConfigInvalid: fewer than two packages, or one that is an ensemble itself.
    FingerprintMismatch: packages of other classes or of another split.
    """
    if len(packages) < 2:
        raise ConfigInvalid(f"An ensemble needs at least two models; found {len(packages)}. Give --models 'A B'.")
    first = packages[0]
    for info in packages:
        if len(info.members) > 1:
            raise ConfigInvalid(f"{info.name} is an ensemble itself: give the models that it is made of.")
        if (info.classes, info.split_fingerprint) != (first.classes, first.split_fingerprint):
            raise FingerprintMismatch(
                f"{info.name} and {first.name} have other classes or were trained on another split: what one was "
                "tested on, the other may have learnt. Train both on the same dataset."
            )
    return dataclasses.replace(
        first,
        members=tuple(_keep_temperature(info) for info in packages),
        combination=Combination(weights=(1.0,) * len(packages)),
        operating_points=(),
        conformal=None,
        domain=None,
    )


def _keep_temperature(info: PackageInfo) -> Member:
    return dataclasses.replace(info.members[0], temperature=info.combination.temperature)


def fit_combination(
    rule: str, members: np.ndarray, y_true: np.ndarray, groups: np.ndarray
) -> tuple[Combination, np.ndarray]:
    """Fit on val how members are combined; also return val's combined scores, (n, k), not from what they taught.

    soft: the weights that minimise the negative log-likelihood. hard: each model a vote. stacking: a multinomial
    logistic regression on log probabilities, whose strength folds by patient choose (Wolpert, Neural Networks 1992);
    its val scores are those of the folds.

    Parameters
    ----------
    members: probabilities (members, n, k). y_true: class indices (n,). groups: patient of each image (n,).

    Raises DataInvalid where val has too few patients of a class to stack on.
    """
    if rule == "stacking":
        return _fit_stacking(members, y_true, groups)
    weights = _fit_weights(members, y_true) if rule == "soft" else np.ones(len(members))
    combination = Combination(rule, tuple(weights.tolist()))  # type: ignore[arg-type]
    return combination, combine(members, combination)


def _fit_weights(members: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Return the weights, which sum to 1, of the mixture with the highest likelihood."""
    from scipy.optimize import minimize

    of_truth = members[:, np.arange(len(y_true)), y_true].astype(np.float64)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(weights @ of_truth, np.finfo(np.float64).tiny)
        return -np.log(mixed).mean(), -(of_truth / mixed).mean(axis=1)

    m = len(members)
    found = minimize(
        loss,
        np.full(m, 1 / m),
        jac=True,
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
    )
    weights = np.clip(found.x, 0, 1)
    return weights / weights.sum()


def _fit_stacking(members: np.ndarray, y_true: np.ndarray, groups: np.ndarray) -> tuple[Combination, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_predict

    features = stacking_features(members)
    folds = _stacking_folds(y_true, groups, members.shape[2])
    search = GridSearchCV(LogisticRegression(max_iter=5000), {"C": _STRENGTHS}, scoring="neg_log_loss", cv=folds).fit(
        features, y_true
    )
    model = search.best_estimator_
    out_of_fold = cross_val_predict(model, features, y_true, cv=folds, method="predict_proba")
    coefficients, intercepts = model.coef_, model.intercept_
    if len(coefficients) == 1:
        # Of two classes scikit-learn keeps the second alone. Halves on both sides give the same probabilities, and tell
        # of either class what each member says of it.
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    combination = Combination("stacking", (), tuple(map(tuple, coefficients.tolist())), tuple(intercepts.tolist()))
    return combination, out_of_fold


def _stacking_folds(y_true: np.ndarray, groups: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what is learnt from and what is scored in each of five folds by patient, or as many as a class allows."""
    fewest = min(len(np.unique(groups[y_true == c])) for c in range(k))
    parts = part_by_group(y_true, groups, parts=min(_FOLDS, fewest), seed=0) if fewest > 1 else None
    if parts is None:
        raise DataInvalid(
            f"Stacking is fitted on val by folds that each have every class; val has {fewest} patients, or groups of "
            "equal images, of the rarest. Use --rule soft, or raise dataset.val_fraction."
        )
    everything = np.arange(len(y_true))
    return [(np.setdiff1d(everything, part), part) for part in parts]
