"""Choose the table of a dataset among those beside its images: the given one, or the only one that names most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medvision.config import DatasetConfig
from medvision.data.columns import Columns, clean_name, find_columns
from medvision.data.labelling import Seen
from medvision.data.sources import Found, splits_in
from medvision.data.tables import ImageIndex, Table, read_table
from medvision.errors import DataInvalid

# A table beside the images is theirs if it names most of them.
_MOST = 0.5


def choose_table(root: Path, found: Found, dataset: DatasetConfig, seen: Seen) -> tuple[Table | None, Columns | None]:
    """Return the given table, or the one in the folder that names most of the images; None if there is none."""
    index = ImageIndex(file.path for file in found.images)
    if dataset.labels is not None:
        table = read_table(dataset.labels if dataset.labels.is_absolute() else _beside(root, dataset.labels))
        return table, find_columns(table, dataset.columns, index)
    tables = _join_splits(_read_tables(root, found, seen), seen)
    candidates = [table for table in tables if _names_most(table, found, index)]
    if len(candidates) > 1:
        names = " and ".join(table.name for table in candidates)
        raise DataInvalid(f"{root}: {names} each name the images. Say which is meant: dataset.labels.")
    if not candidates:
        return None, None
    columns = find_columns(candidates[0], dataset.columns, index)
    _check_others(root, candidates[0], columns, tables, index)
    return candidates[0], columns


def _read_tables(root: Path, found: Found, seen: Seen) -> list[Table]:
    tables = []
    for file in found.tables:
        try:
            tables.append(read_table(root / file.path))
        except DataInvalid as error:
            seen.evidence.append(f"Not used: {error}")
    return tables


def _join_splits(tables: list[Table], seen: Seen) -> list[Table]:
    """Join tables of one header that are called as splits, as train.csv and test.csv: their names give the split."""
    parts = {table.name: split for table in tables if (split := _split_of_table(table))}
    by_split = [table for table in tables if table.name in parts]
    splits = [parts[table.name] for table in by_split]
    headers = {tuple(sorted(table.rows.columns)) for table in by_split}
    if len(set(splits)) < max(2, len(splits)) or "train" not in splits or len(headers) > 1:
        return tables
    name = " and ".join(table.name for table in by_split)
    # A column of their own is what says it.
    has_split = any(clean_name(column) == "split" for column in by_split[0].rows.columns)
    pairs = zip(by_split, splits, strict=True)
    rows = pd.concat(
        [table.rows if has_split else table.rows.assign(split=split) for table, split in pairs], ignore_index=True
    )
    seen.evidence.append(f"{name} have the same columns, and are read as one table.")
    return [Table(name, rows), *(table for table in tables if table.name not in parts)]


def _split_of_table(table: Table) -> str:
    found = splits_in(table.name)
    return found.pop() if len(found) == 1 else ""


def _check_others(root: Path, chosen: Table, columns: Columns, tables: Sequence[Table], index: ImageIndex) -> None:
    """Refuse to take one table where another names images that it lacks: they would be left out."""
    known = set().union(*index.find_all(chosen.rows[columns.image]))
    for other in tables:
        if other is chosen or columns.image not in other.rows.columns:
            continue
        lacking = set().union(*index.find_all(other.rows[columns.image])) - known
        if lacking:
            raise DataInvalid(
                f"{root}: {other.name} names {len(lacking)} images that {chosen.name} does not, for example "
                f"{min(lacking)}. Join the two into one table, or say which is meant: dataset.labels."
            )


def _names_most(table: Table, found: Found, index: ImageIndex) -> bool:
    """Tell whether the cells of a column name most of the images."""
    named = (set().union(*index.find_all(set(table.rows[column]))) for column in table.rows.columns)
    return any(len(paths) > _MOST * len(found.images) for paths in named)


def _beside(root: Path, table: Path) -> Path:
    """Return a relative path as seen from the working directory, or else from the dataset's folder."""
    return table if table.is_file() else root / table
