"""A window is a preset's name or two numbers."""

import pytest

from medvision.errors import ConfigInvalid
from medvision.windows import CT_WINDOWS, parse_window


def test_presets():
    """Each preset gives its own center and width."""
    assert parse_window("brain") == (40, 80)
    assert len({parse_window(name) for name in CT_WINDOWS}) == len(CT_WINDOWS)


@pytest.mark.parametrize(("text", "expected"), [("40,80", (40, 80)), ("-600, 1500", (-600, 1500)), ("0.5,1", (0.5, 1))])
def test_numbers(text, expected):
    """Two numbers are center and width."""
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["", "Brain", "40", "40,80,1", "40,0", "40,0.9", "nan,80", "40,inf", "40;80", "a,b"])
def test_anything_else_is_refused(text):
    """Anything else is refused, and the message names the presets and gives an example."""
    with pytest.raises(ConfigInvalid, match=r"brain, lung, bone, soft_tissue.*40,80"):
        parse_window(text)
