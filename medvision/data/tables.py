"""Read a table of labels, and find the image that each of its rows is about."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pandas as pd

from medvision.data.sources import TABLES, without_suffix
from medvision.errors import DataInvalid

_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """A table whose cells are all text, "" where empty; ``name`` is what it is called in messages."""

    name: str
    rows: pd.DataFrame


def read_table(path: Path) -> Table:
    """Read a CSV or TSV file (UTF-8, or UTF-16 with its mark), or a Parquet file.

    Raises DataInvalid: another encoding, no header, a column named twice or not at all, a row of another length, no
    rows, or a file that is no table.
    """
    if path.suffix.lower() not in TABLES:
        raise DataInvalid(f"{path}: expected a table in {', '.join(TABLES)}.")
    if not path.is_file():
        raise DataInvalid(f"There is no table {path}. Give dataset.labels the path of one.")
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    if rows.empty:
        raise DataInvalid(f"{path} has a header but no rows.")
    return Table(path.name, rows)


class ImageIndex:
    """Find images by what tables call them: a path, the end of one, or a name, with or without suffix."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_name: dict[str, set[str]] = {}
        self._folders: set[str] = set()
        for path in paths:
            parts = path.split("/")
            self._folders.update(parts[:-1])
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                for key in {name, without_suffix(name)}:
                    self._by_name.setdefault(key, set()).add(path)

    def find(self, name: str) -> set[str]:
        """Return the paths that a cell may stand for, as if it were its whole column."""
        return self.find_all([name])[0]

    def find_all(self, names: Iterable[str]) -> list[set[str]]:
        """Return the paths that each cell of a column may stand for; none where its image is missing.

        Folders that all cells share, those of another machine, are passed over. One that tells cells apart is passed
        over only if the images have no such folders, "a/0.png" is not "b/0.png", of which other cells speak, and only
        if that leads no two cells to one image.
        A path, or a name with its suffix, is looked for first: "a.png" is that file though there is an "a.jpg".
        """
        cells = [_parts(name) for name in names]
        folders = [cell[:-1] for cell in cells if cell]
        n_shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))
        start = next((n for n in range(n_shared) if any(self._named(cell[n:]) for cell in cells)), n_shared)
        told_apart = {folder for parts in folders for folder in parts[start:]}
        found = [self._named(cell[start:]) for cell in cells]
        elsewhere = [
            set() if paths else self._elsewhere(cell[start:], told_apart)
            for cell, paths in zip(cells, found, strict=True)
        ]
        called: dict[str, set[str]] = {}
        for cell, paths in zip(cells, elsewhere, strict=True):
            for path in paths:
                called.setdefault(path, set()).add(without_suffix("/".join(cell)))
        once = {path for path, names in called.items() if len(names) == 1}
        return [paths or others & once for paths, others in zip(found, elsewhere, strict=True)]

    def _named(self, parts: list[str]) -> set[str]:
        ending = "/".join(parts)
        return self._by_name.get(ending) or self._by_name.get(without_suffix(ending)) or set()

    def _elsewhere(self, parts: list[str], told_apart: set[str]) -> set[str]:
        """Return the images by the end of a path, where neither its folders nor theirs are the other's."""
        for start in range(1, len(parts)):
            if parts[start - 1] in self._folders:
                break
            if found := self._named(parts[start:]):
                n_matched = len(parts) - start
                return {path for path in found if not told_apart.intersection(path.split("/")[:-n_matched])}
        return set()

    def share_found(self, names: Iterable[str]) -> float:
        """Return the share of some names, in [0, 1], that stand for at least one image."""
        names = list(names)
        return sum(map(bool, self.find_all(names))) / max(1, len(names))


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_parquet(path)
    # Arrow has errors of its own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        raise DataInvalid(f"{path} is not a Parquet file, or damaged.") from None
    rows = rows.reset_index(drop=isinstance(rows.index, pd.RangeIndex))
    rows.columns = _check_header([str(name) for name in rows.columns], path)
    return rows.apply(lambda column: column.map(_to_text))


def _to_text(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    # An integer column with empty cells comes as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _read_text(path: Path) -> pd.DataFrame:
    text = _decode(path)
    if not text.strip():
        raise DataInvalid(f"{path} is empty. Expected a header and a row an image.")
    first_line = text.lstrip().partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first_line.count)
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise DataInvalid(f"{path} is not a table with {delimiter!r} between the cells: {error}.") from None
    header = _check_header(records[0], path)
    for number, record in enumerate(records[1:], start=2):
        if len(record) != len(header):
            raise DataInvalid(
                f"{path}: row {number} has {len(record)} cells, the header {len(header)}, with {delimiter!r} between "
                "them. Quote cells that hold it."
            )
    return pd.DataFrame([[cell.strip() for cell in record] for record in records[1:]], columns=header, dtype=object)


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataInvalid(f"{path} is not UTF-8 in line {line}. Save it as UTF-8 (Excel: CSV UTF-8).") from None
    if "\0" in text:
        raise DataInvalid(f"{path} holds null characters: that is no table of text. Save it as UTF-8.")
    return text


def _check_header(names: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in names]
    # pandas, and R, write row numbers under an empty name.
    names = ["row" if not name and number == 0 else name for number, name in enumerate(names)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names or twice:
        what = f"names {', '.join(twice)} twice" if twice else "leaves a column without a name"
        raise DataInvalid(f"{path}: the header {what}. Give each column one name in the first line.")
    return names
