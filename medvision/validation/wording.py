"""How figures are called and written in a sentence."""

from __future__ import annotations

from medvision.records import Figure

_LABELS = {
    "auroc": "AUROC", "auprc": "AUPRC", "ece": "ECE", "classwise_ece": "class-wise ECE", "brier": "Brier score",
    "nll": "NLL", "ppv": "PPV", "npv": "NPV", "f1": "F1", "macro_f1": "macro F1", "weighted_f1": "weighted F1",
}  # fmt: skip


def label(figure: str) -> str:
    """Return how a figure is called."""
    return _LABELS.get(figure, figure.replace("_", " "))


def shown(value: float, required: float, met: bool) -> str:
    """Return a value rounded, but never to what it is held against if it does not meet it."""
    rounded = f"{value:.3f}"
    # "0.850 is below the required 0.850" would help nobody.
    return rounded if met or rounded != f"{required:.3f}" else repr(value)


def interval(figure: Figure, opening: str = " (") -> str:
    """Return interval and counts of a figure, in parentheses or after another ``opening``; "" if it has neither."""
    parts = [] if figure.low is None or figure.high is None else [f"95 % CI {_range(figure.low, figure.high)}"]
    parts += [] if figure.successes is None else [f"{figure.successes} of {figure.n}"]
    closing = ")" if "(" in opening else ""
    return f"{opening}{', '.join(parts)}{closing}" if parts else ""


def _range(low: float, high: float) -> str:
    # With a dash, a negative end would be misread.
    return f"{low:.2f}-{high:.2f}" if low >= 0 else f"{low:+.2f} to {high:+.2f}"
