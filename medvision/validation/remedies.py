"""What would mend a rule that is not met, in a sentence for the person who has to."""

from __future__ import annotations

import math

from medvision.evaluation.operating_point import patients_needed
from medvision.records import Figure, State
from medvision.validation.power import cases_needed_at

MISSING = "Run medvision evaluate and validate again; if it is still missing, the test split has no case for it."
UNSOUND = "Run: medvision evaluate, then medvision validate"
# On val, since a model that is mended by its mistakes on test has no test set any more.
_MISTAKES = "look at the mistakes on val"
_BETTER = "train longer or with more images, or choose a larger model"


def of_value(what: str, required: float, figure: Figure) -> str:
    """Return how many more cases have to be right, where cases are counted; else how far the figure is off."""
    if figure.successes is None:
        return f"Raise the {what} by {required - (figure.value or 0):.3f}: {_BETTER}."
    more = math.ceil(required * figure.n - 1e-9) - figure.successes
    return f"{more} more of these {figure.n} test images must be right: {_MISTAKES}, {_BETTER}."


def of_bound(state: State, required: float, figure: Figure, n: int, cases: str) -> str:
    """Return how many more test cases would let a perfect model, or this one, pass."""
    if state == "insufficient_evidence":
        return _for_a_perfect_model(required, n, cases, "lower the minimum")
    value = figure.value or 0.0
    needed = cases_needed_at(value, required)
    if needed is None:
        return f"More test cases would not show it, since {value:.3f} is what they would confirm: {_BETTER}."
    if needed <= n:
        return f"The mistakes are clustered, so that the {n} {cases} tell less: {_MISTAKES}, {_BETTER}."
    return f"About {needed - n} more {cases} in the test split would show it at the present value; or {_BETTER}."


def of_ceiling(state: State, what: str, ceiling: float, n: int, cases: str) -> str:
    """Return how an error is brought under its ceiling."""
    if state == "insufficient_evidence":
        return _for_a_perfect_model(1 - ceiling, n, cases, "raise the ceiling")
    return f"Bring down the {what}: calibrate on more val images, or {_BETTER}."


def of_comparison(what: str, margin: float, figure: Figure) -> str:
    """Return whether the candidate is worse than the champion, or only not shown to be as good."""
    if figure.high is not None and figure.high < 0:
        return f"The candidate is worse than the champion: keep the champion, or {_BETTER}."
    return f"That the {what} is at most {margin:g} lower is not shown: test on more cases, or {_BETTER}."


def _for_a_perfect_model(minimum: float, n: int, cases: str, otherwise: str) -> str:
    if minimum >= 1:
        return f"No number of {cases} shows it, even without a mistake: {otherwise}."
    needed = patients_needed(minimum)
    return (
        f"{needed - n} more {cases} in the test split would let a perfect model pass: {needed} are needed, {n} are "
        "there."
    )
