"""How figures, counts and looks are called: the same words in every report, picture and table."""

from __future__ import annotations

from medvision.records import Evaluation

_LABELS = {
    "macro_f1": "macro F1", "weighted_f1": "weighted F1", "auroc": "AUROC", "auprc": "AUPRC", "ece": "ECE",
    "classwise_ece": "class-wise ECE", "brier": "Brier", "nll": "NLL", "ppv": "PPV", "npv": "NPV", "f1": "F1",
    "mcnemar": "McNemar", "delong": "DeLong",
}  # fmt: skip
# Below it the spread of a bootstrap is that of a handful of patients.
_FEW = 20


def label(name: str) -> str:
    """Return how a figure, or a test, is called within a sentence."""
    return _LABELS.get(name, name.replace("_", " "))


def heading(name: str) -> str:
    """Return how a figure is called where a line begins with it."""
    called = label(name)
    return called[0].upper() + called[1:]


def describe_cases(evaluation: Evaluation) -> str:
    """Return what was tested on: test split, 300 images, 100 patients."""
    n_patients = evaluation.n_patients
    patients = "patients unknown" if n_patients is None else _counted(n_patients, "patient")
    return f"test split, {_counted(evaluation.n, 'image')}, {patients}"


def describe_looks(looks: int) -> str:
    """Return how often the test set has been used."""
    return f"This test set has been looked at {_counted(looks, 'time')}."


def rough_classes(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the classes with so few patients, or images where patients are unknown, that intervals are rough."""
    unit = "image" if evaluation.n_patients is None else "patient"
    found = [(each.name, each.n if each.n_patients is None else each.n_patients) for each in evaluation.per_class]
    return [(name, _counted(n, unit)) for name, n in found if n < _FEW]


def shorten(text: str, longest: int) -> str:
    """Return a text with at most ``longest`` characters; an ellipsis says that there was more."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _counted(n: int, unit: str) -> str:
    return f"{n} {unit}{'' if n == 1 else 's'}"
