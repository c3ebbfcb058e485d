"""A policy is read strictly: what is not understood is refused."""

import pytest
from validation_cases import ROOT

from medvision.errors import ConfigInvalid
from medvision.validation.policy import check_class_names, load_policy

FLOORS = "value: {accuracy: 0.8, sensitivity: 0.8}"


@pytest.fixture
def load(tmp_path):
    def load(rules, name="staging"):
        (tmp_path / "validation.yaml").write_text(f"policies: {{staging: {{{rules}}}}}")
        return load_policy(name, tmp_path / "validation.yaml")

    return load


def test_project_policies(monkeypatch):
    """Of the project's own policies staging asks for values and production for bounds, and both for an audit."""
    monkeypatch.chdir(ROOT)
    staging, production = load_policy(), load_policy("production")
    assert (staging.name, staging.rules.value.accuracy, staging.rules.value.sensitivity) == ("staging", 0.85, 0.85)
    assert (staging.rules.bound.accuracy, staging.rules.latency_p95_ms) == (None, 100)
    bound = production.rules.bound
    assert (bound.accuracy, bound.sensitivity, bound.specificity) == (0.85, 0.85, 0.80)
    assert (production.rules.ceiling.ece, production.rules.non_inferiority.margin) == (0.10, 0.03)
    # No dataset has columns of subgroups yet, and a rule that no model can meet is none.
    assert production.rules.subgroup_floor is None
    assert staging.rules.audit == production.rules.audit == "clean-or-handled"
    assert (staging.grades.excellent, staging.grades.good) == (0.90, 0.85)


def test_production_asks_for_all_that_staging_does(monkeypatch):
    """What passes production would pass staging."""
    monkeypatch.chdir(ROOT)
    staging, production = (load_policy(name).rules.model_dump(exclude_none=True) for name in ("staging", "production"))
    assert production["value"] == staging["value"]
    assert production["latency_p95_ms"] == staging["latency_p95_ms"]


def test_default_path_is_the_project(tmp_path, monkeypatch):
    """Without a path the policies are those of the project around the working directory."""
    (tmp_path / "MLproject").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "validation.yaml").write_text(f"policies: {{staging: {{{FLOORS}}}}}")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert load_policy().rules.value.accuracy == 0.8


def test_class_rules_replace_those_of_every_class(load):
    """A class's own minimum counts for that class only, and for values or bounds only."""
    rules = load(f"{FLOORS}, classes: {{glioma: {{value: {{sensitivity: 0.95}}}}}}").rules
    assert rules.minimum("value", "sensitivity", "glioma") == 0.95
    assert rules.minimum("value", "sensitivity", "meningioma") == 0.8
    assert rules.minimum("bound", "sensitivity", "glioma") is None


def test_critical_classes(load):
    """Rules on classes hold for the critical ones, and for one with rules of its own."""
    rules = load(f"{FLOORS}, critical: [a], classes: {{b: {{value: {{sensitivity: 0.5}}}}}}").rules
    assert [rules.minimum("value", "sensitivity", name) for name in "abc"] == [0.8, 0.5, None]


@pytest.mark.parametrize(
    "rules",
    ["", "value: {accuracy: 0.9}", "value: {sensitivity: 0.9}", "bound: {accuracy: 0.9}, value: {auroc: 0.9}",
     "value: {accuracy: null, sensitivity: 0.9}"],
)  # fmt: skip
def test_a_policy_has_floors(load, rules):
    """A policy cannot drop the floors of accuracy and sensitivity by not naming them."""
    with pytest.raises(ConfigInvalid, match="needs a minimum of"):
        load(rules)


def test_floors_may_be_bounds(load):
    """A floor of the bound is a floor."""
    assert load("bound: {accuracy: 0.9, sensitivity: 0.9}").rules.value.accuracy is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("value: {sensitivty: 0.9}", "Did you mean 'sensitivity'"),
        ("value: {acuracy: 0.9}", "Did you mean 'accuracy'"),
        ("boond: {accuracy: 0.9}", "Did you mean 'bound'"),
        ("ceiling: {ecee: 0.9}", "Did you mean 'ece'"),
        ("latency_p95: 100", "Did you mean 'latency_p95_ms'"),
        ("non_inferiority: {figure: balanced_acuracy, margin: 0.03}", "Did you mean 'balanced_accuracy'"),
        ("subgroup_floor: {columns: [sex], figure: sensitivty, minimum: 0.8}", "Did you mean 'sensitivity'"),
        ("subgroup_floor: {columns: [sex], figure: sensitivity, minimm: 0.8}", "Did you mean 'minimum'"),
        ("subgroup_floor: {figure: sensitivity, minimum: 0.8}", "subgroup_floor.columns: is missing"),
        ("subgroup_floor: {columns: [], figure: sensitivity, minimum: 0.8}", "at least 1 item"),
        ("subgroup_floor: {columns: sex, figure: sensitivity, minimum: 0.8}", "valid tuple"),
        ("audit: cleen", "Did you mean 'clean'"),
        ("classes: {glioma: {bound: {specificty: 0.9}}}", "Did you mean 'specificity'"),
        ("classes: {glioma: {value: {accuracy: 0.9}}}", "unknown rule"),
        ("value: {accuracy: 0}", "greater than 0"),
        ("value: {accuracy: 85}", "less than or equal to 1"),
        ("value: {sensitivity: -0.1}", "greater than 0"),
        ("value: {sensitivity: .nan}", "finite number"),
        ("value: {accuracy: yes}", "valid number"),
        ("value: {accuracy: '0.85'}", "valid number"),
        ("latency_p95_ms: .inf", "finite number"),
        ("latency_p95_ms: 0", "greater than 0"),
        ("non_inferiority: {figure: accuracy, margin: 0}", "greater than 0"),
        ("non_inferiority: {figure: accuracy}", "margin: is missing"),
        ("classes: {glioma: 0.9}", "classes.glioma"),
        ("critical: glioma", "critical"),
    ],
)
def test_what_is_not_a_policy_is_refused(load, rules, message):
    """An unknown rule or figure, a minimum out of range or no number is a ConfigInvalid that says so."""
    with pytest.raises(ConfigInvalid, match=message):
        load(f"{rules}, {FLOORS}" if not rules.startswith("value") else rules)


@pytest.mark.parametrize("column", ["image_id", "path", "patient_key", "pixel_hash", "group", "label"])
def test_subgroups_are_not_people(load, column):
    """A column that names images or patients, or the truth, makes no subgroups and is refused by its name."""
    with pytest.raises(ConfigInvalid, match=f"subgroup_floor.columns: column '{column}' names"):
        load(f"{FLOORS}, subgroup_floor: {{columns: [site, {column}], figure: accuracy, minimum: 0.8}}")


def test_the_example_of_the_file_is_a_policy(tmp_path):
    """The commented example of config/validation.yaml is understood."""
    lines = (ROOT / "config" / "validation.yaml").read_text().partition("#   mine:")[2].splitlines()[1:]
    (tmp_path / "validation.yaml").write_text("\n".join(["policies:", "  mine:", *(line[1:] for line in lines)]))
    floor = load_policy("mine", tmp_path / "validation.yaml").rules.subgroup_floor
    assert (floor.columns, floor.figure, floor.minimum, floor.at_least) == (("site", "sex"), "sensitivity", 0.8, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- accuracy", "expected sections"),
        ("policies: [", "not valid YAML"),
        ("polices: {}", "Did you mean 'policies'"),
        ("accuracy: 0.85", "policies: is missing"),
        ("grades: {excellent: 0.5}\npolicies: {}", "expects excellent"),
    ],
)
def test_what_is_not_a_file_of_policies_is_refused(tmp_path, text, message):
    """A file of another shape, as that of earlier versions, is refused with what is wrong."""
    (tmp_path / "validation.yaml").write_text(text)
    with pytest.raises(ConfigInvalid, match=message):
        load_policy(path=tmp_path / "validation.yaml")


def test_unknown_policy_names_the_nearest(load):
    """A policy that the file lacks is refused with the nearest that it has."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'staging'"):
        load(FLOORS, name="stagin")


def test_missing_file(tmp_path):
    """Without a policy nothing is judged."""
    with pytest.raises(ConfigInvalid, match="can't be read"):
        load_policy(path=tmp_path / "validation.yaml")


def test_fingerprint_is_of_the_rules(load):
    """Order and comments do not change the fingerprint; any minimum does."""
    one = load("value: {accuracy: 0.9, sensitivity: 0.8}, latency_p95_ms: 100 # ms\n").fingerprint
    assert load("latency_p95_ms: 100, value: {sensitivity: 0.8, accuracy: 0.9}").fingerprint == one
    assert load("latency_p95_ms: 101, value: {sensitivity: 0.8, accuracy: 0.9}").fingerprint != one
    assert load("latency_p95_ms: 100, value: {sensitivity: 0.8, accuracy: 0.91}").fingerprint != one
    assert load("latency_p95_ms: 100, critical: [a], value: {sensitivity: 0.8, accuracy: 0.9}").fingerprint != one


def test_unknown_class_names_the_nearest(load):
    """Rules for a class that the model lacks are refused with the nearest class."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'glioma'"):
        check_class_names(load(f"{FLOORS}, critical: [gliomma]"), ("glioma", "meningioma"))
