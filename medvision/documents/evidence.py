"""An archive of all that proves a registered version: its records, reports and signatures, and an index of them.

The same version, ledger, settings and dataset's records give the same bytes. What could name a patient, an account's
folder or a server is left out, and so are weights, images and predictions: their hashes stand in the records.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medvision.documents.checklists import Checklist, answer_checklists
from medvision.documents.evidence_index import describe_index, index_record
from medvision.documents.pages import render_html, render_markdown
from medvision.files import atomic_write, sha256_file

SUMS = "SHA256SUMS"
# The first that the format knows: the time of making would make each archive another.
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Material:
    """What goes into an archive: files by their path in it, and what did not hold while they were gathered."""

    name: str
    version: str
    registered_on: str
    files: Mapping[str, bytes]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """An archive on disk, with the checklists that its index answers."""

    path: Path
    sha256: str
    n_files: int
    checklists: tuple[Checklist, ...]
    problems: tuple[str, ...]


def write_archive(path: Path, material: Material) -> Archive:
    """Write an archive with its index and the hash of each file in it, whole or not at all."""
    files = dict(material.files)
    checklists = answer_checklists(files)
    page = describe_index(material.name, material.version, material.registered_on, files, checklists, material.problems)
    files["index.html"] = render_html(page).encode()
    files["index.md"] = render_markdown(page).encode()
    files["index.json"] = index_record(material.name, material.version, checklists, material.problems)
    files[SUMS] = _sums(files)
    atomic_write(path, lambda file: file.write(_zip(files)))
    return Archive(path, sha256_file(path), len(files), checklists, material.problems)


def _sums(files: Mapping[str, bytes]) -> bytes:
    """Return what ``sha256sum --check`` reads."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            # Unix, whatever it is made on.
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, files[name])
    return archive.getvalue()
