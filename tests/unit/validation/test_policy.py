"""A policy is read strictly: what is not understood is refused."""

import pytest

from medvision.errors import ConfigInvalid
from medvision.validation.policy import Policy, check_class_names, load_policy, policy_fingerprint


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "validation.yaml").write_text(text)
        return load_policy(tmp_path / "validation.yaml")

    return load


def test_project_policy(pytestconfig, monkeypatch):
    """The project's own policy asks for accuracy and every sensitivity of at least 0.85."""
    monkeypatch.chdir(pytestconfig.rootpath)
    assert load_policy(pytestconfig.rootpath / "config" / "validation.yaml") == Policy(accuracy=0.85, sensitivity=0.85)


def test_default_path_is_the_project(tmp_path, monkeypatch):
    """Without a path the policy is that of the project around the working directory."""
    (tmp_path / "MLproject").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "validation.yaml").write_text("accuracy: 0.7")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert load_policy().accuracy == 0.7


def test_class_rules_replace_those_of_every_class(load):
    """A class's own minimum counts for that class only."""
    policy = load("sensitivity: 0.8\nclasses:\n  glioma:\n    sensitivity: 0.95\n")
    assert policy.minimum("sensitivity", "glioma") == 0.95
    assert policy.minimum("sensitivity", "meningioma") == 0.8
    assert policy.minimum("specificity", "glioma") is None


def test_what_is_left_out_keeps_its_floor(load):
    """A policy cannot drop the floors of accuracy and sensitivity by not naming them."""
    assert load("auroc: 0.9") == Policy(accuracy=0.85, sensitivity=0.85, auroc=0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensitivty: 0.9", "Did you mean 'sensitivity'"),
        ("acuracy: 0.9", "Did you mean 'accuracy'"),
        ("classes: {glioma: {specificty: 0.9}}", "Did you mean 'specificity'"),
        ("classes: {glioma: {accuracy: 0.9}}", "unknown rule"),
        ("accuracy: 0", "greater than 0"),
        ("accuracy: 85", "less than or equal to 1"),
        ("sensitivity: -0.1", "greater than 0"),
        ("sensitivity: .nan", "finite number"),
        ("accuracy: null", "valid number"),
        ("accuracy: yes", "valid number"),
        ("accuracy: '0.85'", "valid number"),
        ("classes: {glioma: 0.9}", "classes.glioma"),
        ("- accuracy", "expected sections"),
        ("accuracy: [", "not valid YAML"),
    ],
)
def test_what_is_not_a_policy_is_refused(load, text, message):
    """An unknown rule, a minimum outside (0, 1] or anything that is no number is a ConfigInvalid that says so."""
    with pytest.raises(ConfigInvalid, match=message):
        load(text)


def test_missing_file(tmp_path):
    """Without a policy nothing is judged."""
    with pytest.raises(ConfigInvalid, match="can't be read"):
        load_policy(tmp_path / "validation.yaml")


def test_fingerprint_is_of_the_rules(load):
    """Order and comments do not change the fingerprint; any minimum does."""
    one = policy_fingerprint(load("accuracy: 0.9 # strict\nspecificity: 0.8"))
    assert policy_fingerprint(load("specificity: 0.8\naccuracy: 0.9")) == one
    assert policy_fingerprint(load("specificity: 0.8\naccuracy: 0.91")) != one
    assert policy_fingerprint(load("specificity: 0.8\naccuracy: 0.9\nclasses: {a: {sensitivity: 0.9}}")) != one


def test_unknown_class_names_the_nearest(load):
    """Rules for a class that the model lacks are refused with the nearest class."""
    policy = load("classes: {gliomma: {sensitivity: 0.9}}")
    with pytest.raises(ConfigInvalid, match="Did you mean 'glioma'"):
        check_class_names(policy, ("glioma", "meningioma"))
