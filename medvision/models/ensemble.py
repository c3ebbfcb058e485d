"""From the logits of a package's members to the package's probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvision.records import Combination, Member

# A probability that float32 has rounded to 0 still has a logarithm.
_TINY = 1e-30


def member_scores(logits: Sequence[np.ndarray], members: Sequence[Member]) -> np.ndarray:
    """Return each member's probabilities, (members, n, k) float64, of its logits (n, k)."""
    return np.stack(
        [
            softmax(np.asarray(each, dtype=np.float64) / member.temperature)
            for each, member in zip(logits, members, strict=True)
        ]
    )


def combine(scores: np.ndarray, combination: Combination) -> np.ndarray:
    """Return the package's probabilities, (n, k) float64, of its members' (members, n, k).

    soft: the mean by weight. hard: the share of the votes, where the mean probability is one vote more, shared out
    among the classes: it decides between classes with as many votes, and outvotes no member. stacking: the softmax of
    a linear function of log probabilities.
    """
    scores = _as_saved(scores)
    if combination.rule == "stacking":
        log_scores = stacking_features(scores)
        combined = softmax(log_scores @ np.array(combination.coefficients).T + np.array(combination.intercepts))
    elif combination.rule == "hard":
        combined = _poll(scores, np.array(combination.weights))
    else:
        combined = _vote(scores, np.array(combination.weights))
    return sharpen(_as_saved(combined), combination.temperature)


def stacking_features(scores: np.ndarray) -> np.ndarray:
    """Return the log probabilities of all members side by side, (n, members * k)."""
    return np.concatenate(list(log_scores(scores)), axis=1)


def sharpen(y_score: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n, k) as if the logits behind them had been divided by ``temperature``."""
    return y_score if temperature == 1 else softmax(log_scores(y_score) / temperature)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (n, k) float64 of logits (n, k)."""
    from scipy.special import softmax as scipy_softmax

    return scipy_softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def log_scores(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of probabilities, finite also where one was rounded to 0."""
    return np.log(np.maximum(scores, _TINY))


def _as_saved(scores: np.ndarray) -> np.ndarray:
    # Scores are saved as float32, and decisions are fitted on what was saved: both must start from the same numbers,
    # or scores that are equal on val and test, as shares of votes are, end on either side of a threshold.
    return np.asarray(scores, dtype=np.float32).astype(np.float64)


def _poll(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    m = len(weights)
    return (m * _vote(_votes(scores), weights) + _vote(scores, weights)) / (m + 1)


def _votes(scores: np.ndarray) -> np.ndarray:
    """Return each member's vote, shared by the classes that are equally likely to it."""
    best = scores == scores.max(axis=-1, keepdims=True)
    return best / best.sum(axis=-1, keepdims=True)


def _vote(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.tensordot(weights / weights.sum(), scores, axes=1)
