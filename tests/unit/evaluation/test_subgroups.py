"""Figures of subgroups are those of their images; gaps hold the truth; odd columns break nothing."""

import numpy as np
import pandas as pd
import pytest

from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import select
from medvision.evaluation.subgroups import MINIMUM, assess_subgroups, band
from medvision.records import Plan, Subgroup, load_record, save_record

PLAN = Plan(200)
GROUPS = np.arange(300) // 2
SITES = pd.Series(np.where(GROUPS % 3 == 0, "north", "south"))


@pytest.fixture
def cases(predictions, as_predictions):
    return as_predictions(*predictions(), groups=GROUPS)


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["images", "patients"])
def test_figures_are_those_of_the_subset(predictions, as_predictions, groups):
    """A subgroup has the figures, intervals and bounds of an evaluation of its images alone."""
    cases = as_predictions(*predictions(), groups=groups)
    for found in assess_subgroups(cases, "site", SITES, PLAN):
        expected = evaluate_predictions(
            select(cases, (found.value == SITES).to_numpy()),
            model="m", dataset="d", package_digest="", split_fingerprint="", predictions_sha256="", plan=PLAN,
        )  # fmt: skip
        assert (found.overall, found.per_class) == (expected.overall, expected.per_class)
        assert (found.n, found.n_patients) == (expected.n, expected.n_patients)


def test_subgroups_are_named(cases):
    """Each value of the column is one subgroup, in order."""
    found = assess_subgroups(cases, "site", SITES, PLAN)
    assert [(each.column, each.value, each.state) for each in found] == [
        ("site", "north", "assessed"), ("site", "south", "assessed"),
    ]  # fmt: skip


def test_a_gap_is_to_all_others(cases):
    """A gap is the figure of the subgroup less that of all other images, and of two subgroups the one is minus the
    other."""
    north, south = assess_subgroups(cases, "site", SITES, PLAN)
    for name in ("accuracy", "auroc", "ece"):
        expected = getattr(north.overall, name).value - getattr(south.overall, name).value
        assert north.gaps[name].value == pytest.approx(expected, abs=1e-9)
        assert south.gaps[name].value == pytest.approx(-expected, abs=1e-9)
        assert north.gaps[name].low < north.gaps[name].value < north.gaps[name].high
    assert "sensitivity.glioma" in north.gaps


def test_a_gap_is_found(predictions, as_predictions):
    """Where a site has half of its labels wrong, the interval of the gap of accuracy is below 0."""
    y_true, y_score = predictions()
    bad = (SITES == "north").to_numpy() & (np.arange(300) % 2 == 0)
    y_true = np.where(bad, (y_true + 1) % 3, y_true)
    north, _ = assess_subgroups(as_predictions(y_true, y_score, groups=GROUPS), "site", SITES, PLAN)
    assert north.gaps["accuracy"].high < 0


def test_few_patients_are_insufficient_evidence(predictions, as_predictions):
    """With one patient less than 30 a subgroup has its counts and no figure, however many images they have."""
    y_true, y_score = predictions()
    groups = np.arange(300) // 5
    for m, state in ((MINIMUM - 1, "insufficient evidence"), (MINIMUM, "assessed")):
        column = pd.Series(np.where(groups < m, "rare", "usual"))
        rare = assess_subgroups(as_predictions(y_true, y_score, groups=groups), "site", column, PLAN)[0]
        assert (rare.n, rare.n_patients, rare.state) == (5 * m, m, state)
        assert (rare.overall is None) == (rare.gaps == {}) == (state != "assessed")


def test_images_are_counted_where_patients_are_unknown(predictions, as_predictions):
    """Then 30 images suffice."""
    column = pd.Series(np.where(np.arange(300) < 30, "a", np.where(np.arange(300) < 59, "b", "c")))
    found = assess_subgroups(as_predictions(*predictions()), "site", column, PLAN)
    assert [each.state for each in found] == ["assessed", "insufficient evidence", "assessed"]
    assert [each.n_patients for each in found] == [None] * 3


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["images", "patients"])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_subgroup_without_a_case_of_a_class(predictions, as_predictions, groups, k, tmp_path):
    """Its figures that need the class are undefined, the others are there, and the record can be saved."""
    y_true, y_score = predictions(k=k)
    last = k - 1
    column = pd.Series(np.where((y_true == last) | (np.arange(300) % 2 == 0), "with", "without"))
    cases = as_predictions(y_true, y_score, [f"c{c}" for c in range(k)], groups)
    _, found = assess_subgroups(cases, "site", column, PLAN)
    assert found.state == "assessed"
    assert 0 < found.overall.accuracy.value < 1
    assert found.overall.balanced_accuracy.value is None
    missing = found.per_class[last]
    assert missing.n == 0
    assert missing.sensitivity.value is missing.auroc.value is missing.auprc.value is None
    assert missing.calibration_slope.value is missing.calibration_intercept.value is None
    assert missing.specificity.value is not None
    assert found.gaps[f"sensitivity.c{last}"].value is None
    assert found.gaps["accuracy"].low is not None
    save_record(found, tmp_path / "subgroup.json")
    assert load_record(Subgroup, tmp_path / "subgroup.json") == found


def test_one_value_has_no_gap(cases):
    """A column that is the same everywhere has one subgroup, and nothing to compare it with."""
    (found,) = assess_subgroups(cases, "site", pd.Series(["north"] * 300), PLAN)
    assert (found.n, found.gaps) == (300, {})


def test_a_column_keeps_its_rows_whatever_its_index(cases):
    """Values belong to images by position: the index of a part of the manifest changes nothing."""
    moved = pd.Series(SITES.to_numpy(), index=np.arange(300)[::-1] + 1000)
    assert assess_subgroups(cases, "site", moved, PLAN) == assess_subgroups(cases, "site", SITES, PLAN)


def test_missing_values_are_a_subgroup(cases):
    """Images without a value are 'unknown', not lost."""
    column = SITES.where(np.arange(300) >= 80)
    found = {each.value: each.n for each in assess_subgroups(cases, "site", column, PLAN)}
    assert found["unknown"] == 80
    assert sum(found.values()) == 300


def test_numbers_become_quarters():
    """Numbers with many values are four bands of about equal size, named by their ends."""
    found = band(pd.Series(np.arange(20, 81)))
    assert found.value_counts().to_dict() == {"20 to 35": 16, "35 to 50": 15, "50 to 65": 15, "65 to 80": 15}
    assert found[0] == "20 to 35"
    assert found[15] == "20 to 35"


def test_numbers_with_missing_values():
    """Quarters are those of the known numbers, and the others are unknown."""
    found = band(pd.Series([np.nan, *range(20, 81), np.nan]))
    assert found.iloc[[0, -1]].tolist() == ["unknown", "unknown"]
    assert found.nunique() == 5


@pytest.mark.parametrize(
    "values", [20_230_100 + np.arange(28), np.linspace(0, 1e-6, 40), 1e9 + np.linspace(0, 1, 40)], ids=str
)
def test_bands_of_near_numbers_have_different_names(values):
    """Names have the digits that tell the bands apart."""
    assert band(pd.Series(values)).nunique() == 4


def test_many_equal_numbers_make_fewer_bands():
    """Where quarters coincide they are one, and no value is lost."""
    found = band(pd.Series([0] * 60 + list(range(1, 41))))
    assert not (found == "unknown").any()
    assert 2 <= found.nunique() <= 3


def test_few_numbers_stay_values():
    """A number with at most ten values, as a code, is a category."""
    assert set(band(pd.Series(np.arange(100) % 10))) == {str(i) for i in range(10)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None, "b"], ["a", "unknown", "b"]),
        (["a", "", " "], ["a", "unknown", "unknown"]),
        ([True, False, True], ["True", "False", "True"]),
        (pd.Categorical(["a", None, "b"]), ["a", "unknown", "b"]),
        (pd.array([1, None, 2], "Int64"), ["1", "unknown", "2"]),
        ([None, None, None], ["unknown"] * 3),
    ],
)
def test_other_columns_are_texts(values, expected):
    """Texts, yes or no, categories and whole numbers are told apart as they are written."""
    assert band(pd.Series(values)).tolist() == expected


def gaps_held(simulate_pair, runs, m, size):
    """Return how often the interval of a gap holds 0, where the site tells nothing."""
    rng, held = np.random.default_rng(m), []
    for _ in range(runs):
        cases, _ = simulate_pair(rng, m, size)
        sites = pd.Series(np.where(rng.permutation(m) < 0.35 * m, "a", "b")[cases.groups])
        found = assess_subgroups(cases, "site", sites, Plan(100, int(rng.integers(1e6))))[0].gaps
        held.append([found[name].low <= 0 <= found[name].high for name in ("accuracy", "auroc")])
    return np.mean(held, axis=0)


def test_gaps_hold_the_truth(simulate_pair):
    """With images that are alike within patients, the intervals of a gap hold it about 95 % of the time."""
    assert gaps_held(simulate_pair, 60, 100, 3).min() >= 0.87


@pytest.mark.slow
def test_gaps_hold_the_truth_in_many_studies(simulate_pair):
    """Also over 800 studies."""
    found = gaps_held(simulate_pair, 800, 100, 3)
    assert found.min() >= 0.93 and found.max() <= 0.985


def test_a_subgroup_without_a_known_patient(predictions, as_predictions):
    """Where only the patients of other images are known, a subgroup counts images, and says that it does."""
    groups = [None if i < 60 else i // 2 for i in range(300)]
    column = pd.Series(np.where(np.arange(300) < 60, "old", "new"))
    new, old = assess_subgroups(as_predictions(*predictions(), groups=groups), "archive", column, PLAN)
    assert (old.n, old.n_patients, old.state) == (60, None, "assessed")
    assert (new.n, new.n_patients, new.state) == (240, 120, "assessed")
    assert old.gaps["accuracy"].value == pytest.approx(-new.gaps["accuracy"].value)
