"""What a version that answers takes from strangers."""

from types import SimpleNamespace

import pytest

from medvision.serving.served import Served


@pytest.mark.parametrize(
    ("learnt", "taken"),
    [
        (("PNG",), ("PNG", "JPEG")),
        (("BMP", "NIFTI", "TIFF"), ("PNG", "JPEG")),
        (("DICOM",), ("PNG", "JPEG", "DICOM")),
        (("DICOM", "JPEG"), ("PNG", "JPEG", "DICOM")),
        ((), ("PNG", "JPEG")),
    ],
)
def test_dicom_is_taken_by_who_has_learnt_from_it(learnt, taken):
    """PNG and JPEG are taken by all; DICOM by a model that was trained on it; nothing else by any."""
    predictor = SimpleNamespace(info=SimpleNamespace(formats=learnt))
    assert Served(found=None, predictor=predictor, verdict=None).formats == taken
