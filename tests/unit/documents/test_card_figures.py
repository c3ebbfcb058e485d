"""What a model card says of the networks."""

from dataclasses import replace
from types import SimpleNamespace

from medvision.documents.card_figures import model_table
from medvision.records import Combination, Member, Preprocessing

MEMBER = Member("simple_cnn", {}, Preprocessing(32, 1, (0.4,), (0.2,)), 1.0, "run", 1, 0.9)


def test_window_of_a_network():
    """The input of a network that was trained on CT values names their window, that of another does not."""
    scan = replace(MEMBER, preprocessing=replace(MEMBER.preprocessing, window="brain"))
    info = SimpleNamespace(members=(scan, MEMBER), combination=Combination(weights=(0.5, 0.5)))
    assert [row[1] for row in model_table(info).rows] == ["32 × 32 × 1, window brain", "32 × 32 × 1"]
