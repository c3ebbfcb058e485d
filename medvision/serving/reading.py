"""An image file in each form that the members of a package take, without torch: decoding needs none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medvision.data.decode import DATASET_FORMATS, ImageSource, decode_image, fit_to_square

# An image in each form that a member of a package takes: (window, side, channels) and uint8 (side, side, channels).
Form = tuple[str, int, int]
Forms = dict[Form, np.ndarray]


def read_forms(
    source: ImageSource | Path | bytes, forms: Sequence[Form], formats: tuple[str, ...] = DATASET_FORMATS
) -> Forms:
    """Decode an image once for each window and return it in each form; DecodeRejected if it is none."""
    source = source if isinstance(source, ImageSource) else ImageSource(source)
    windows = {window for window, _, _ in forms}
    images = {window: decode_image(replace(source, window=window), formats) for window in windows}
    return {form: fit_to_square(images[form[0]], *form[1:]) for form in forms}
