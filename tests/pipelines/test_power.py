"""What no model could show on the test split is said before training."""

import numpy as np
import pandas as pd
import pytest

from medvision.config import Config
from medvision.data.manifest import Manifest
from medvision.data.split import Split
from medvision.errors import ConfigInvalid
from pipelines.audit import _too_few
from pipelines.dataset import SplitDataset
from pipelines.power import say_unattainable

POLICIES = "policies: {own: {value: {sensitivity: 0.5}, bound: {accuracy: 0.85}}}"


@pytest.fixture
def dataset():
    """Return a dataset with 18 test patients, each of whom has an image of both classes."""
    patients = [f"patient{number}" for number in range(18)] * 2
    rows = pd.DataFrame({"image_id": range(36), "patient_key": patients, "label": np.repeat([0, 1], 18)})
    manifest = Manifest(None, ("a", "b"), rows, (), 0, (), "", "m")
    return SplitDataset(manifest, Split(np.full(36, "test"), "m", "s"), None)


def test_the_policies_that_were_given_are_warned_by(dataset, tmp_path, capsys):
    """A warning is by the file of policies that the step was given, and counts a patient of two classes once."""
    (tmp_path / "own.yaml").write_text(POLICIES)
    say_unattainable(dataset, Config(), policies=tmp_path / "own.yaml")
    out = capsys.readouterr().out
    assert "Policy own asks for a 95 % bound of 0.85 on the accuracy: 18 patients can't show it" in out
    assert "Policy production" not in out


def test_the_finding_names_its_policy(dataset, tmp_path):
    """The audit's finding says by which policies no model can pass, and not that none can."""
    (tmp_path / "own.yaml").write_text(POLICIES)
    (finding,) = _too_few(dataset, tmp_path / "own.yaml")
    assert finding.effect == "No model can pass own."


def test_without_a_file_the_policies_are_those_of_the_project(dataset, capsys):
    """Without a file of one's own the warning is by the project's policies."""
    say_unattainable(dataset, Config())
    assert "Policy production" in capsys.readouterr().out


def test_a_file_that_is_not_there(dataset, tmp_path):
    """A file of policies that was asked for has to be there."""
    with pytest.raises(ConfigInvalid, match="can't be read"):
        say_unattainable(dataset, Config(), policies=tmp_path / "none.yaml")
