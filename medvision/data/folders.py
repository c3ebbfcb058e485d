"""What the folders above the images say: the class, the split and, where they tell sites apart, the site.

Only names and their places are looked at. Where they could be meant in two ways, nothing is chosen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medvision.data.sources import split_of
from medvision.errors import DataInvalid

Parts = Sequence[tuple[str, ...]]

# Names of folders that stand for where, how or of whom images were taken, and not for what is on them.
_SITE = r"(?:site|hospital|cent(?:er|re)|clinic|scanner|device|vendor|source|batch|fold|cohort)"
_PATIENT = r"(?:patient|pat|subject|subj|sub|participant|person|case|study|series|visit|session)"
VIEW = (
    r"(?:view|left|right|l|r|ap|pa|lateral|cc|mlo|axial|sagittal|coronal|flair|t1w?|t2w?|dwi|images?|imgs?|png|jpe?g)"
)
_NO_CLASS = re.compile(rf"(?:{_SITE}|{_PATIENT}|{VIEW}|\d{{4}})[-_ ]?\w{{0,4}}", re.IGNORECASE)
# A name, or number, of a patient is no site: it would be written into records as one.
_ONE_PATIENT = re.compile(rf"{_PATIENT}[-_ ]?\w{{0,4}}|\d{{4}}", re.IGNORECASE)
_HOPELESS = re.compile(rf"(?:{_SITE}|{_PATIENT})[-_ ]?\d+|images?|imgs?|masks?|labels?|annotations?", re.IGNORECASE)

WAYS_OUT = (
    "Give dataset.labels (a table), dataset.label_pattern (for example '^[^/]+/([^/]+)/' for the second folder of the "
    "path), or dataset.label_tag (a DICOM keyword)."
)


@dataclass(frozen=True)
class Levels:
    """At which depth of the path the split, the class and the site stand; None where they do not."""

    split: int | None
    label: int
    site: int | None


def read_levels(root: Path, paths: Sequence[str]) -> Levels | None:
    """Find out which folders name split and class; None if the images lie in no folders.

    One folder around all is passed over. Of two levels that are crossed, as sites with the same classes in each, the
    class is the one whose names are not those of sites, views or patients.

    Raises DataInvalid: split folders that are doubled, mixed with others or without train; names that are no classes;
    two levels either of which could be the class.
    """
    parts = [tuple(path.split("/")[:-1]) for path in paths]
    foldered = [part for part in parts if part]
    if not foldered:
        return None
    start = _skip_wrappers(foldered)
    split = find_split_level(root, foldered, start)
    first, second = [level for level in range(start, start + 3) if level != split][:2]
    deep = [part for part in foldered if len(part) > first]
    if not deep:
        return None
    if not _are_crossed(deep, first, second):
        _check_names(root, {part[first] for part in deep})
        return Levels(split, first, None)
    return _choose(root, deep, split, first, second)


def find_split_level(root: Path, parts: Parts, start: int) -> int | None:
    """Return the depth at which the folders are splits; None if there is none."""
    names = sorted({part[start] for part in parts if len(part) > start})
    found: dict[str, str] = {}
    for name in filter(split_of, names):
        if split_of(name) in found:
            twin = found[split_of(name)]
            raise DataInvalid(
                f"{root / twin} and {root / name} both look like the {split_of(name)} split. Keep one of them."
            )
        found[split_of(name)] = name
    others = [name for name in names if not split_of(name)]
    if found and others:
        raise DataInvalid(
            f"{root} has split folders ({', '.join(found.values())}) beside others with images "
            f"({', '.join(others[:20])}). Expected either split folders or class folders."
        )
    if found and "train" not in found:
        raise DataInvalid(f"{root} has {', '.join(found.values())} but no train folder. Add one.")
    return start if found else next((level for level in (start + 1, start + 2) if _is_split_level(parts, level)), None)


def _is_split_level(parts: Parts, level: int) -> bool:
    if any(len(part) <= level for part in parts):
        return False
    splits = {split_of(part[level]) for part in parts}
    return "" not in splits and "train" in splits and len(splits) > 1


def _skip_wrappers(parts: Parts) -> int:
    """Return how many folders, one in the other, hold everything."""
    level = 0
    while all(len(part) > level + 1 for part in parts):
        names = {part[level] for part in parts}
        if len(names) > 1 or split_of(min(names)):
            break
        level += 1
    return level


def _are_crossed(parts: Parts, first: int, second: int) -> bool:
    """Tell whether each name on the second level stands below at least two of the first."""
    if any(len(part) <= second for part in parts):
        return False
    above = defaultdict(set)
    for part in parts:
        above[part[second]].add(part[first])
    return len(above) > 1 and all(len(names) > 1 for names in above.values())


def _choose(root: Path, parts: Parts, split: int | None, first: int, second: int) -> Levels:
    upper, lower = ({part[level] for part in parts} for level in (first, second))
    upper_is_class, lower_is_class = (not all(map(_NO_CLASS.fullmatch, names)) for names in (upper, lower))
    if upper_is_class and not lower_is_class:
        return Levels(split, first, None)
    if lower_is_class and not upper_is_class:
        return Levels(split, second, None if all(map(_ONE_PATIENT.fullmatch, upper)) else first)
    raise DataInvalid(
        f"{root}: either of two levels of folders could be the class: {_some(upper)}, or below them {_some(lower)}. "
        f"{WAYS_OUT} The first folder of the path is '^([^/]+)/'."
    )


def _check_names(root: Path, names: set[str]) -> None:
    if all(map(_HOPELESS.fullmatch, names)) and len(names) > 1:
        raise DataInvalid(
            f"The folders in {root} look like patients, sites or kinds of files, not like classes: {_some(names)}. "
            f"{WAYS_OUT}"
        )


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:4])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 4 else shown
