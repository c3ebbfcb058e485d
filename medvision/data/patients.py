"""Suggest how patients can be told from file names, or from a table's columns; nothing is ever applied here.

A wrong grouping is worse than none: it makes leaks look mended. So each suggestion says which images it would join.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medvision.data.columns import Columns
from medvision.data.labelling import search_name
from medvision.data.layout import ImageFile
from medvision.data.tables import ImageIndex, Table

# Names of well-known datasets, and words that stand for a patient. Searched in this order, the first that is found
# counts; several that are found are joined into one pattern.
_KNOWN = {
    r"(LIDC-IDRI-\d{4})": "LIDC-IDRI-0001",
    r"(TCGA-\w{2}-\w{4})": "the case of a TCGA barcode",
    r"SOB_[BM]_[A-Z]+-(\d+-\d+[A-Z]*)-": "the slide of BreaKHis",
    r"(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+": "the patient of OCT2017",
    r"(person\d+)_": "personN_",
    r"(NORMAL2-IM-\d+)": "NORMAL2-IM-N",
    r"(IM-\d+)-\d": "IM-N-",
    r"(sub-[A-Za-z0-9]+)_": "the subject of BIDS",
    r"^(\d{8})_\d{3}\.": "the patient of ChestX-ray14",
    r"^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[_-]": "a UUID before the rest of the name",
    r"(?i:(?:^|[_-])((?:patient|pat|pt|subject|subj|sub|p)[_-]?\d+)[_-])": "a word for the patient, a number",
    r"(?i:(?:^|/)((?:patient|pat|pt|subject|subj|sub|p)[_ -]?\d+)/)": "a folder a patient",
}
_LETTERED = r"^(.*\d)[a-h]\.[^.]+$"
_GENERIC = {
    r"^(.+)[_-]\d+\.[^.]+$": "the name without its last number",
    r"^([^_-]+)[_-]": "the first part of the name",
    r"^([^_-]+[_-][^_-]+)[_-]": "the first two parts of the name",
}
# A pattern that is found in fewer names than this, of all, is a chance find.
_RARE = 0.01
_EXAMPLES = 3


@dataclass(frozen=True)
class Suggestion:
    """A setting that would tell patients apart, and the grouping that it would give.

    ``setting`` and ``value``: dataset.patient_pattern and an expression, or dataset.columns.patient and a column.
    ``n_matched`` images would get a patient, in ``n_groups`` groups; ``sizes`` counts groups by their number of images.
    ``n_straddling`` groups have images on more than one given split, ``n_mixed`` of more than one class. ``examples``
    are the paths of some groups, for the console: they may name patients.
    """

    setting: str
    value: str
    reason: str
    n_images: int
    n_matched: int
    n_groups: int
    sizes: dict[int, int]
    n_straddling: int
    n_mixed: int
    examples: tuple[tuple[str, ...], ...]


def suggest_patient_pattern(files: Sequence[ImageFile]) -> list[Suggestion]:
    """Suggest patterns that join images by their names, the likeliest first; [] where names tell nothing.

    What is suggested joins a good part of the images into groups of more than one, but no large part into one group.
    """
    suggestions = [*_known(files), *_lettered(files)]
    if not suggestions:
        tried = (_try(files, pattern, f"Names are alike up to {what}.") for pattern, what in _GENERIC.items())
        likely = [found for found in tried if found and not _is_likely_by_chance(found)]
        # Two ways to the same groups are one.
        suggestions = list({str(found.sizes): found for found in reversed(likely)}.values())[::-1]
    return suggestions


def suggest_patient_column(files: Sequence[ImageFile], table: Table, columns: Columns) -> list[Suggestion]:
    """Suggest columns that name something like a patient: a case, a study, a lesion; [] where a patient is named."""
    if columns.patient is not None:
        return []
    found_images = ImageIndex(file.path for file in files).find_all(table.rows[columns.image])
    suggestions = []
    for name in columns.like_patient:
        cells = zip(found_images, table.rows[name], strict=True)
        keys = {path: value for paths, value in cells if value for path in paths}
        reason = f"Column {name} does not say that it is the patient, but images that share it belong together."
        found = _describe(files, keys, "dataset.columns.patient", name, reason)
        if found is not None and _joins(found):
            suggestions.append(found)
    return suggestions


def _known(files: Sequence[ImageFile]) -> list[Suggestion]:
    open_files, patterns, reasons = list(files), [], []
    for pattern, what in _KNOWN.items():
        found = [file for file in open_files if search_name(pattern, file.path)]
        if len(found) > _RARE * len(files):
            names = set(map(id, found))
            open_files = [file for file in open_files if id(file) not in names]
            patterns.append(pattern)
            reasons.append(what)
    if not patterns or (any("/" in pattern for pattern in patterns) and len(patterns) > 1):
        return []
    found_all = _try(files, "|".join(patterns), f"Names hold {', '.join(reasons)}.")
    return [found_all] if found_all and 2 * found_all.n_matched >= len(files) else []


def _lettered(files: Sequence[ImageFile]) -> list[Suggestion]:
    """Suggest to join 7a and 7b, if letters come in such pairs; other images have no patient then."""
    cases = defaultdict(set)
    for file in files:
        if match := search_name(_LETTERED, file.path):
            cases[match[1]].add(file.path[match.end(1) - len(match.string) :][:1])
    paired = sum({"a", "b"} <= found for found in cases.values())
    if paired < 2 or 2 * paired < len(cases):
        return []
    reason = f"{paired} numbers have an image a and an image b: two of one case."
    found = _describe(files, _keys(files, _LETTERED), "dataset.patient_pattern", _LETTERED, reason)
    return [found] if found else []


def _try(files: Sequence[ImageFile], pattern: str, reason: str) -> Suggestion | None:
    found = _describe(files, _keys(files, pattern), "dataset.patient_pattern", pattern, reason)
    return found if found is not None and _joins(found) else None


def _keys(files: Sequence[ImageFile], pattern: str) -> dict[str, str]:
    """Return what the pattern finds in each path that it is found in, as the manifest would."""
    matches = {file.path: search_name(pattern, file.path) for file in files}
    found = {path: "-".join(group for group in match.groups() if group) for path, match in matches.items() if match}
    return {path: key for path, key in found.items() if key}


def _describe(
    files: Sequence[ImageFile], keys: dict[str, str], setting: str, value: str, reason: str
) -> Suggestion | None:
    groups: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        if file.path in keys:
            groups[keys[file.path]].append(file)
    if not groups:
        return None
    larger = sorted((group for group in groups.values() if len(group) > 1), key=len)
    shown = larger[len(larger) // 2 :][:_EXAMPLES]
    return Suggestion(
        setting=setting,
        value=value,
        reason=reason,
        n_images=len(files),
        n_matched=sum(map(len, groups.values())),
        n_groups=len(groups),
        sizes=dict(sorted(Counter(map(len, groups.values())).items())),
        n_straddling=sum(len({file.split for file in group} - {""}) > 1 for group in groups.values()),
        n_mixed=sum(len({file.label for file in group}) > 1 for group in groups.values()),
        examples=tuple(tuple(file.path for file in group[:_EXAMPLES]) for group in shown),
    )


def _joins(found: Suggestion) -> bool:
    """Tell whether some images would be joined, but not a third of them in one group."""
    return 2 <= found.n_groups < found.n_matched and 3 * max(found.sizes) < max(found.n_matched, 6)


def _is_likely_by_chance(found: Suggestion) -> bool:
    """Tell whether a grouping by parts of names is more likely one of sources, classes or dates than of patients."""
    in_groups = sum(size * count for size, count in found.sizes.items() if size > 1)
    return (
        found.n_matched < 0.9 * found.n_images
        or found.n_groups < 10
        or in_groups < 0.2 * found.n_matched
        or max(found.sizes) > max(20, 0.05 * found.n_matched)
    )
