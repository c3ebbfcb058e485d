"""Nothing that names the patient comes out of a DICOM file."""

import logging
import re
import warnings

import numpy as np
import pydicom
import pytest
from medical_files import describe, save, scan, write_dicom

from medvision.data.decode import ImageSource, decode_image
from medvision.data.dicom import ALLOWED_TAGS, patient_key, read_tags
from medvision.errors import ConfigInvalid, DecodeRejected

EXPLICIT = "1.2.840.10008.1.2.1"
KEY = bytes(32)
# Every value from -32,768 to 32,767.
ALL_SIGNED = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256)


class TestTags:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "scan"
        path.write_bytes(scan(PatientID="4711", IssuerOfPatientID="A", PatientAge="045Y", Manufacturer="ACME\r\nCorp"))
        return path

    def test_allowed_tags_are_read(self, path):
        """Values come as text, "" where the file has none."""
        assert read_tags(path, ["Modality", "Rows", "PatientAge", "Laterality"]) == {
            "Modality": "CT",
            "Rows": "64",
            "PatientAge": "45",
            "Laterality": "",
        }

    def test_values_are_one_line(self, path):
        """Control characters of a value don't come out."""
        assert read_tags(path, ["Manufacturer"]) == {"Manufacturer": "ACMECorp"}

    @pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "PatientBirthDate", "InstitutionName", "modality"])
    def test_other_tags_are_refused(self, path, keyword):
        """A tag that is not on the list is refused, and the message names those that are."""
        with pytest.raises(ConfigInvalid, match="Modality"):
            read_tags(path, [keyword])

    def test_unknown_tags_are_said_to_be(self, path):
        """A keyword that the standard has not is said to be none, and is not called a name of a person."""
        with pytest.raises(ConfigInvalid, match="'modality' is no keyword of the standard") as refused:
            read_tags(path, ["modality"])
        assert "may name a person" not in str(refused.value)

    def test_list_names_nobody(self):
        """No tag of the list is one that PS3.15 annex E has removed, or a date, a name, a number or free text."""
        for keyword in ALLOWED_TAGS:
            vr = pydicom.datadict.dictionary_VR(keyword)
            assert vr in {"CS", "US", "IS", "DS", "AS"} or keyword in {
                "Manufacturer", "ManufacturerModelName", "ConvolutionKernel",
            }, keyword  # fmt: skip

    @pytest.mark.parametrize(
        ("age", "years"),
        [("018M", "1.5"), ("003W", "0.0575"), ("101Y", "90"), ("", ""), ("old", ""), ("002D", "0.00548")],
    )
    def test_age_is_in_years(self, tmp_path, age, years):
        """An age comes in years, 90 for all above it."""
        path = tmp_path / "scan"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.write_bytes(scan(PatientAge=age))
        assert read_tags(path, ["PatientAge"]) == {"PatientAge": years}

    def test_patient_key(self, path, tmp_path):
        """The key depends on the number, its issuer and the secret, and holds none of them."""
        other = tmp_path / "other"
        keys = {patient_key(path, KEY), patient_key(path, bytes(range(32)))}
        for attributes in (
            {"PatientID": "4711", "IssuerOfPatientID": "B"},
            {"PatientID": "4712", "IssuerOfPatientID": "A"},
        ):
            other.write_bytes(scan(**attributes))
            keys.add(patient_key(other, KEY))
        assert len(keys) == 4
        assert all(re.fullmatch("[0-9a-f]{16}", key) and "4711" not in key for key in keys)

    def test_patient_key_does_not_depend_on_the_rest(self, path, tmp_path):
        """Two images of a patient have one key, whatever padding the number has."""
        other = tmp_path / "other"
        other.write_bytes(write_dicom(ALL_SIGNED, "implicit", PatientID="4711 ", IssuerOfPatientID="A", Modality="MR"))
        assert patient_key(other, KEY) == patient_key(path, KEY)

    def test_no_patient_no_key(self, tmp_path):
        """Where the file names no patient there is no key, which would join all such files."""
        path = tmp_path / "scan"
        path.write_bytes(scan(PatientID="", IssuerOfPatientID="A"))
        assert patient_key(path, KEY) == ""


CANARY = "CANARY^PATIENT"


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": CANARY},
        {"NumberOfFrames": CANARY},
        {"PhotometricInterpretation": CANARY},
        {"WindowCenter": CANARY, "WindowWidth": 1},
        {"RescaleSlope": CANARY, "RescaleIntercept": 0},
        {"VOILUTFunction": CANARY, "WindowCenter": 1, "WindowWidth": 9},
        {"Modality": CANARY, "SpecificCharacterSet": CANARY, "StudyDate": CANARY, "PatientAge": CANARY},
    ],
)
def test_no_text_of_the_file_comes_out(attributes, tmp_path, caplog, capfd):
    """A name that stands where a number should, or anywhere else, is in no message, no log and no warning."""
    dataset = describe(ALL_SIGNED)
    dataset.PatientName = dataset.PatientID = dataset.StudyDescription = CANARY
    for keyword, value in attributes.items():
        dataset.add_new(keyword, "LO", str(value))
    dataset.add_new(0x00091001, "LO", CANARY)
    path = tmp_path / "scan"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(save(dataset, EXPLICIT))
    capfd.readouterr(), caplog.clear()
    said = ""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for ask in (
            lambda: decode_image(ImageSource(path, window="brain")),
            lambda: decode_image(path),
            lambda: patient_key(path, KEY),
        ):
            try:
                said += str(ask())
            except DecodeRejected as error:
                said += str(error)
    said += caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in caught)
    assert "CANARY" not in said and "PATIENT" not in said
