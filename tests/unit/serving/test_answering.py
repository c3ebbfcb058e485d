"""What is recommended goes by all that the package has frozen: prediction sets and operating points."""

from types import SimpleNamespace

import numpy as np
import pytest

from medvision.serving.answering import Weighed, describe_more
from medvision.serving.predictor import Decision, Prediction

CLASSES = ("covid", "normal", "pneumonia")
PROBABILITIES = {"covid": 0.02, "normal": 0.9, "pneumonia": 0.08}


def recommend(held, calls):
    """Return action and recommendation for an image that is most probably normal."""
    info = SimpleNamespace(classes=CLASSES, conformal=None, members=[SimpleNamespace(model="a")])
    served = SimpleNamespace(predictor=SimpleNamespace(info=info), found=SimpleNamespace(name="lungs"), version="1.0.0")
    row = np.array([[list(PROBABILITIES.values())]])
    decision = Decision(held, None if held is None else len(held) != 1, calls)
    weighed = Weighed(served, Prediction("normal", 0.9, PROBABILITIES), decision, row, None)
    answer = describe_more(weighed, "a", 1.0, None)
    return answer.action, answer.uncertainty.recommendation


def test_an_answer_that_nothing_speaks_against():
    """One class in the set, no other called, the label called where it has an operating point: no reader is asked."""
    assert recommend(("normal",), {"covid": False, "normal": True})[0] == "none"
    assert recommend(None, {"covid": False})[0] == "none"


@pytest.mark.parametrize(
    ("held", "calls", "why"),
    [
        (("pneumonia",), {}, "pneumonia is not ruled out, while normal"),
        (("covid", "normal"), {}, "does not rule out covid, normal"),
        ((), {}, "no class is likely enough"),
        (("normal",), {"covid": True}, "covid is above its threshold"),
        (("normal",), {"covid": True, "normal": True}, "covid is above its threshold"),
        (("normal",), {"normal": False}, "normal is below its threshold"),
    ],
)
def test_an_answer_that_contradicts_itself(held, calls, why):
    """Where the set, or an operating point, says otherwise than the label, a second reader is asked, and why."""
    action, recommendation = recommend(held, calls)
    assert action == "second_reader" and why in recommendation
