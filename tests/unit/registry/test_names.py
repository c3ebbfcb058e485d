"""A version has three names, and one reader of them."""

import pytest

from medvision.errors import ConfigInvalid
from medvision.registry.names import VersionName, parse_version_name
from medvision.registry.packages import models_uri


@pytest.mark.parametrize(
    ("text", "expected", "uri"),
    [
        ("tiny/3", VersionName("tiny", 3, ""), "models:/tiny/3"),
        ("tiny/1.20.3", VersionName("tiny", None, "v1-20-3"), "models:/tiny@v1-20-3"),
        ("models:/tiny@champion", VersionName("tiny", None, "champion"), "models:/tiny@champion"),
    ],
)
def test_names_of_versions(text, expected, uri):
    """Number, semantic version and alias are told apart, and MLflow is asked for what is meant."""
    assert parse_version_name(text) == expected
    assert models_uri(text) == uri


@pytest.mark.parametrize(
    "text", ["tiny", "tiny/", "/3", "@champion", "tiny/abc", "tiny/1.2", "tiny/٣", "tiny/" + "9" * 30]
)
def test_what_names_no_version(text):
    """What is none of the three is answered with the three, before any registry is asked."""
    with pytest.raises(ConfigInvalid, match=r"Expected NAME/3, NAME/1\.2\.0 or NAME@champion; found "):
        parse_version_name(text)


def test_logged_models_have_uris_of_their_own():
    """A URI of another kind is MLflow's to read."""
    assert models_uri("models:/m-" + "0" * 32) == "models:/m-" + "0" * 32
