"""The audit log of predictions: check that nobody has touched it, write it as a table, or find a request in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from sqlalchemy import URL

    from medvision.config import Config
    from medvision.serving.audit_chain import CheckedChain

Action = Annotated[
    str, typer.Argument(help="verify: name what was touched; export: write a table; find: show the rows of a request.")
]
RequestId = Annotated[str | None, typer.Option(help="find: id of the request, as its answer named it.")]
Out = Annotated[Path | None, typer.Option(help="export: the file, .jsonl, .csv or .parquet.")]
Head = Annotated[
    str | None, typer.Option(help="verify: hash of a row that must be there, as an earlier verify told it.")
]
Heads = Annotated[Path | None, typer.Option(help="verify: file of heads; beside the log if not given.")]
Url = Annotated[str | None, typer.Option(help="sqlite:///PATH or postgresql://...; serving.audit_url if not given.")]


@dataclass(frozen=True)
class Exported:
    """How many rows were written, and where."""

    n_rows: int
    out: str


@dataclass(frozen=True)
class Found:
    """The rows of a request."""

    request_id: str
    rows: tuple[dict[str, Any], ...]


def audit_log(
    action: Action,
    request_id: RequestId = None,
    out: Out = None,
    head: Head = None,
    heads: Heads = None,
    url: Url = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> CheckedChain | Exported | Found:
    """Verify the audit log of predictions, export it, or find a request in it."""
    from medvision.errors import ConfigInvalid
    from medvision.serving.audit_place import parse_url

    settings = configure(config, None, set_)
    place = parse_url(url or settings.audit_url)
    if action == "verify":
        return verify_log(settings, place, head=head, heads=heads)
    if action == "export" and out is not None:
        return _export(place, out)
    if action == "find" and request_id is not None:
        return _find(place, request_id)
    raise ConfigInvalid(
        f"audit-log expects verify, export --out FILE or find --request-id ID; found {action!r} without these."
    )


def verify_log(config: Config, place: URL, *, head: str | None = None, heads: Path | None = None) -> CheckedChain:
    """Check every row of a log against the one before it and against the heads, and say how many there are.

    Raises LedgerBroken, which names the first bad row; DataInvalid if there is no log.
    """
    from medvision.errors import ConfigInvalid, LedgerBroken
    from medvision.serving.audit_chain import check_chain, check_end
    from medvision.serving.audit_heads import read_heads
    from medvision.serving.audit_place import default_heads_path
    from medvision.serving.audit_rows import read_rows

    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        raise ConfigInvalid(f"--head expects a hash, 64 hexadecimal digits; found {head!r}.")
    path = heads or default_heads_path(place, config.paths.state)
    # Before the rows: a server that writes meanwhile is ahead of these heads, and never behind.
    known = read_heads(path)
    checked = check_chain(read_rows(place), known, head)
    check_end(checked.n_rows, read_heads(path))
    if checked.n_rows and not known and head is None:
        raise LedgerBroken(
            f"{path} is missing, though {checked.n_rows} rows were written: what was cut off the end would not show. "
            "Name it with --heads, or the last row that you know of with --head HASH."
        )
    say(f"{checked.n_rows} rows, each as it was written, held against {_heads(checked.n_heads)}. Head: {checked.head}")
    return checked


def _export(place: URL, out: Path) -> Exported:
    from medvision.serving.audit_export import export
    from medvision.serving.audit_rows import read_rows

    n_rows = export(read_rows(place), out)
    say(f"{out}: {n_rows} rows")
    return Exported(n_rows, str(out))


def _find(place: URL, request_id: str) -> Found:
    from medvision.errors import ConfigInvalid, LedgerBroken
    from medvision.files import canonical_json
    from medvision.serving.audit_chain import hash_row
    from medvision.serving.audit_export import flatten
    from medvision.serving.audit_rows import find_rows

    rows = find_rows(place, request_id)
    if not rows:
        raise ConfigInvalid(f"The audit log has no row of a request {request_id!r}.")
    for row in rows:
        if row.hash != hash_row(row):
            raise LedgerBroken(f"Row {row.sequence} of the audit log was edited. Run: medvision audit-log verify")
    found = Found(request_id, tuple(flatten(row) for row in rows))
    for values in found.rows:
        say(canonical_json(values))
    return found


def _heads(number: int) -> str:
    return "1 head" if number == 1 else f"{number} heads"


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(audit_log)
