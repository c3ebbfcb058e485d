"""What CT values are seen through: the range of Hounsfield units that goes from black to white."""

from __future__ import annotations

import math

from medvision.errors import ConfigInvalid

# Center and width in HU, as viewers offer them; departments differ by some tens of HU, so a project may give its own.
CT_WINDOWS = {
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "bone": (480.0, 2500.0),
    "soft_tissue": (50.0, 400.0),
}


def parse_window(text: str) -> tuple[float, float]:
    """Return center and width of a preset's name or of "CENTER,WIDTH".

    Raises ConfigInvalid: neither of them, or a width below 1, where the DICOM standard's linear function ends.
    """
    if text in CT_WINDOWS:
        return CT_WINDOWS[text]
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError:
        center, width = math.nan, math.nan
    if not (math.isfinite(center) and math.isfinite(width) and width >= 1):
        raise ConfigInvalid(
            f"A window is one of {', '.join(CT_WINDOWS)}, or CENTER,WIDTH with a width of at least 1, "
            f"for example 40,80; found {text!r}."
        )
    return center, width
