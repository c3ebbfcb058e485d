"""Find which columns of a table hold image, label, patient, split and subgroups: as given, or by their names.

A name that could be meant in two ways is refused, and a column that is only like a patient is never taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from medvision.config import ColumnsConfig, nearest
from medvision.data.limits import OLDEST
from medvision.data.sources import split_of
from medvision.data.tables import ImageIndex, Table
from medvision.errors import DataInvalid

_IMAGE = (
    "image", "image_id", "image_name", "image_file", "image_path", "image_index", "img", "img_id", "img_name",
    "img_path", "file", "filename", "file_name", "file_path", "filepath", "path", "name", "id", "dicom_id",
    "image_link", "dicom", "dicom_path", "isic_id",
)  # fmt: skip
_LABEL = (
    "label", "labels", "label_name", "class", "class_name", "class_id", "classname", "category", "dx", "diagnosis",
    "diagnosis_name", "target", "target_name", "finding", "finding_label", "finding_labels", "findings", "pathology",
    "condition", "disease", "ground_truth", "reference_standard", "grade",
)  # fmt: skip
_PATIENT = (
    "patient", "patient_id", "patientid", "patient_key", "patient_no", "patient_number", "patient_name", "pid",
    "subject", "subject_id", "subjectid", "participant", "participant_id", "person", "person_id", "mrn",
)  # fmt: skip
_SPLIT = (
    "split", "set", "subset", "fold", "partition", "dataset_split",
)  # fmt: skip
_SUBGROUPS = (
    "sex", "gender", "patient_sex", "patient_gender", "age", "age_approx", "age_group", "patient_age", "site",
    "hospital", "institution", "center", "centre", "scanner", "manufacturer", "manufacturer_model_name", "device",
    "model", "view", "view_position", "viewposition", "laterality", "side", "race", "ethnicity", "skin_tone",
    "skin_type", "fitzpatrick", "fitzpatrick_skin_type", "localization", "anatom_site", "anatom_site_general",
    "anatom_site_general_challenge", "modality",
)  # fmt: skip
# Ids of something smaller than a patient, or of what may be one: images that share one belong together at least.
_LIKE_PATIENT = re.compile(
    r"(lesion|case|study|exam|examination|accession|series|visit|session|scan|nodule|eye|slide|specimen|biopsy)"
    r"(_?(id|uid|no|number|key|name|instance_uid))?|.*_case_id|group_?id|study_instance_uid|series_instance_uid"
)
_IDENTIFYING = re.compile(r".*(name|birth|dob|mrn|address|phone|mail|ssn|insurance|passport).*|.*patient.*id.*|.*_?uid")
# What manifests have, "picture" after a deep audit; any other column is a subgroup's.
OWN = (
    "image_id", "path", "frame", "label", "given_split", "patient_key", "pixel_hash", "width", "height", "channels",
    "group", "picture",
)  # fmt: skip
# What tables of rows have beside them.
_TAKEN = {*OWN, "class", "side", "row"}
_AGE = re.compile(r"(.*_)?age(_.*)?")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold, None or () where there is none.

    ``given_patient`` tells that the settings name the patient's column; ``like_patient`` are columns that only look
    like one. ``unfit`` says of columns that are called like subgroups why they are none.
    """

    image: str
    label: str | None
    patient: str | None
    given_patient: bool
    split: str | None
    subgroups: tuple[str, ...]
    like_patient: tuple[str, ...]
    unfit: tuple[str, ...] = ()


def find_columns(table: Table, given: ColumnsConfig, index: ImageIndex) -> Columns:
    """Find the columns of a table.

    Raises DataInvalid: a given column is not there, no column names the images, two could be the label or the patient,
    or a given subgroup would name images or patients.
    """
    for name in [given.image, given.label, given.patient, given.split, *given.subgroups]:
        if name is not None and name not in table.rows.columns:
            raise DataInvalid(f"{table.name} has no column {name!r}. {nearest(name, list(table.rows.columns))}")
    image = given.image or _find_image(table, index)
    others = [name for name in table.rows.columns if name != image]
    label = given.label or _the_one(table, _named(others, _LABEL), "label")
    patient = given.patient or _the_one(table, _named(others, _PATIENT), "patient")
    taken = {image, label, patient}
    split = given.split or _find_split(table, [name for name in others if name not in taken])
    subgroups, unfit = _find_subgroups(table, given.subgroups, taken, split)
    return Columns(
        image=image,
        label=label,
        patient=patient,
        given_patient=given.patient is not None,
        split=split,
        subgroups=subgroups,
        like_patient=tuple(name for name in others if name not in taken and _LIKE_PATIENT.fullmatch(_plain(name))),
        unfit=unfit,
    )


def clean_name(name: str) -> str:
    """Return a column's name in lower case, with one underscore for whatever is no letter or digit."""
    return _plain(name) or "column"


def as_values(texts: Sequence[str]) -> list[float] | list[str]:
    """Return cells as numbers, NaN where empty, if all that are not empty are numbers; else as they are."""
    numbers = pd.to_numeric(pd.Series([text if text else None for text in texts], dtype=object), errors="coerce")
    is_number = numbers.notna().to_numpy()
    if is_number.any() and all(number or not text for number, text in zip(is_number, texts, strict=True)):
        return [float(number) for number in numbers]
    return list(texts)


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _named(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the columns with a known name, in the order in which the names are known."""
    by_name = {_plain(column): column for column in reversed(columns)}
    return [by_name[name] for name in known if name in by_name]


def _find_image(table: Table, index: ImageIndex) -> str:
    """Return the column whose cells name most images; one with a known name where there is such a one."""
    columns = list(table.rows.columns)
    sample = table.rows.sample(min(len(table.rows), 1000), random_state=0)
    shares = {column: index.share_found(filter(None, sample[column])) for column in columns}
    named = [column for column in _named(columns, _IMAGE) if shares[column]]
    best = max(named or columns, key=shares.__getitem__)
    # An image may be called image.jpg: a usual name of a column is one.
    if best not in named and index.find(best):
        raise DataInvalid(f"{table.name} has no header: its first line names an image. Put names of columns above it.")
    if shares[best]:
        return best
    raise DataInvalid(
        f"{table.name}: no column names the images of the dataset. Its columns: {', '.join(columns)}; for example "
        f"{', '.join(table.rows.iloc[0])}. Give dataset.columns.image, or the table that belongs to the images."
    )


def _the_one(table: Table, found: list[str], role: str) -> str | None:
    """Return the only column, or of several with the same meaning the one in words; None if there is none."""
    if len(found) < 2:
        return found[0] if found else None
    pairs = table.rows[found].drop_duplicates()
    if all(pairs[name].is_unique for name in found):
        words = [name for name in found if not pairs[name].str.fullmatch(r"-?\d+(\.0*)?").all()]
        return (words or found)[0]
    raise DataInvalid(
        f"{table.name}: columns {' and '.join(found)} could each be the {role}. Say which: "
        f"dataset.columns.{role}={found[0]}"
    )


def _find_split(table: Table, columns: list[str]) -> str | None:
    # Numbers of folds, or a set that means another thing, are no split.
    for name in _named(columns, _SPLIT):
        values = set(table.rows[name]) - {""}
        if values and all(map(split_of, values)):
            return name
    return None


def _find_subgroups(
    table: Table, given: tuple[str, ...], taken: set[str | None], split: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of subgroups, given or found, and why others that are called like them are none."""
    if given:
        for name in given:
            if fault := _fault(table, name, given, taken):
                raise DataInvalid(f"dataset.columns.subgroups: {name} {fault}")
        return given, ()
    found = [name for name in _named(list(table.rows.columns), _SUBGROUPS) if name not in {*taken, split}]
    faults = {name: _fault(table, name, found, taken) for name in found}
    unfit = tuple(f"{table.name}: not taken as a subgroup: {name} {fault}" for name, fault in faults.items() if fault)
    return tuple(name for name in found if not faults[name]), unfit


def _fault(table: Table, name: str, names: Sequence[str], taken: set[str | None]) -> str:
    """Return why a column is no subgroup, "" if it is one."""
    clean, values = clean_name(name), table.rows[name]
    unique_texts = values.nunique() > max(20, len(values) / 2) and isinstance(as_values(values)[0], str)
    is_identifying = _IDENTIFYING.fullmatch(clean) and clean not in _SUBGROUPS
    if name in taken or is_identifying or unique_texts:
        return "names images or patients, and no subgroups."
    if clean in _TAKEN or [clean_name(other) for other in names].count(clean) > 1:
        return f"would be called {clean!r}, which the manifest has already. Rename the column."
    return ""


def coarsen_age(name: str, cell: str) -> str:
    """Return a cell of a column of subgroups, with 90 for each greater age."""
    if not _AGE.fullmatch(clean_name(name)):
        return cell
    # 93, 93.5, and as DICOM has it 093Y.
    years = re.fullmatch(r"0*(\d+)(\.\d*)?Y?", cell)
    return str(OLDEST) if years and float(years[1]) >= OLDEST else cell
