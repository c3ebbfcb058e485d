"""How much the members of an ensemble differ: by pair, and on a single case."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.special import xlogy

from medvision.records import Diversity


def pairwise_diversity(models: tuple[str, ...], members: np.ndarray, y_true: np.ndarray) -> tuple[Diversity, ...]:
    """Return Q statistic, disagreement and double fault of each pair (Kuncheva and Whitaker, Machine Learning 2003).

    Parameters
    ----------
    models: names of the members. members: probabilities (members, n, k). y_true: class indices (n,).
    """
    right = members.argmax(axis=2) == y_true
    return tuple(_pair(models[a], models[b], right[a], right[b]) for a, b in combinations(range(len(models)), 2))


def disagreement(members: np.ndarray) -> np.ndarray:
    """Return how much of each case's uncertainty is between the members, (n,) in [0, 1].

    The mutual information of prediction and member, over the logarithm of the classes (Houlsby et al., 2011;
    Lakshminarayanan et al., NeurIPS 2017): 0 where all members say the same.
    """
    k = members.shape[2]
    between = _entropy(members.mean(axis=0)) - _entropy(members).mean(axis=0)
    return np.clip(between / np.log(k), 0, 1)


def normalized_entropy(y_score: np.ndarray) -> np.ndarray:
    """Return the entropy of probabilities (n, k) over the logarithm of the classes, (n,) in [0, 1]."""
    return np.clip(_entropy(y_score) / np.log(y_score.shape[1]), 0, 1)


def _pair(a: str, b: str, a_right: np.ndarray, b_right: np.ndarray) -> Diversity:
    both, neither = float((a_right & b_right).mean()), float((~a_right & ~b_right).mean())
    only_a, only_b = float((a_right & ~b_right).mean()), float((~a_right & b_right).mean())
    agreeing, differing = both * neither, only_a * only_b
    q = None if agreeing + differing == 0 else (agreeing - differing) / (agreeing + differing)
    return Diversity(a, b, q_statistic=q, disagreement=only_a + only_b, double_fault=neither)


def _entropy(scores: np.ndarray) -> np.ndarray:
    return -xlogy(scores, scores).sum(axis=-1)
