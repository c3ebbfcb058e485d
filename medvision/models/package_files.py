"""The two files of a model package: whether they are there, and what was written; without torch.

Whoever only has to know that a package is what it was, as the registry's gate, answers in the time that its bytes take.
"""

import os
from pathlib import Path

from medvision.errors import CheckpointCorrupt, DataInvalid
from medvision.files import fingerprint, read_json, sha256_file
from medvision.records import PackageInfo, load_record, record_fingerprint

WEIGHTS = "weights.safetensors"
INFO = "package.json"


def load_info(folder: Path) -> PackageInfo:
    """Return what package.json says; the weights are not read.

    Raises CheckpointCorrupt: a file is missing, damaged, a link, or not one of a package's.
    """
    folder = present(folder)
    check_files(folder)
    return read_info(folder)


def package_digest(folder: Path) -> str:
    """Return the fingerprint of a package: of what package.json says, which includes the hash of the weights.

    Raises CheckpointCorrupt as load_info does.
    """
    return record_fingerprint(load_info(folder))


def verify_digest(folder: Path) -> str:
    """Return the fingerprint of a package of which every byte was read.

    Raises CheckpointCorrupt as load_info does, and if the weights are not those that package.json names.
    """
    info = load_info(folder)
    check_weights(folder, info, sha256_file(present(folder) / WEIGHTS))
    return record_fingerprint(info)


def check_weights(folder: Path, info: PackageInfo, found: str) -> None:
    """Raise CheckpointCorrupt unless the hash of the weights is the one that package.json names."""
    if found != info.weights_sha256:
        raise corrupt(folder, f"expected {WEIGHTS} with SHA-256 {info.weights_sha256}, found {found}")


def read_info(folder: Path) -> PackageInfo:
    """Return what package.json says; CheckpointCorrupt unless it is exactly what was written."""
    try:
        info = load_record(PackageInfo, folder / INFO)
        written = read_json(folder / INFO)
        expected = written.pop("fingerprint")
    except (DataInvalid, KeyError) as error:
        raise corrupt(folder, f"expected a whole {INFO}, found: {error}") from None
    # Of what is written, not of what was understood: an unknown key would be passed over.
    found = fingerprint(written)
    if found != expected:
        raise corrupt(folder, f"expected {INFO} with fingerprint {expected}, found {found}")
    return info


def check_files(folder: Path) -> None:
    """Raise CheckpointCorrupt unless a folder holds the two files of a package, and nothing else."""
    expected = {WEIGHTS, INFO}
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        raise corrupt(folder, "expected a folder, found none") from None
    if found.keys() != expected:
        raise corrupt(folder, f"expected {INFO} and {WEIGHTS}, found {', '.join(sorted(found)) or 'nothing'}")
    for name, is_regular in found.items():
        if not is_regular:
            raise corrupt(folder, f"expected {name} to be a file, found a link or a folder")


def corrupt(folder: Path, problem: str) -> CheckpointCorrupt:
    """Return the error that a package can't be used."""
    return CheckpointCorrupt(
        f"The model package {folder} can't be used: {problem}. Copy it again from where it was made, or train again."
    )


def beside(folder: Path, suffix: str) -> Path:
    """Return where a package stands while another one takes its place."""
    return folder.parent / f".{folder.name}.{suffix}"


def present(folder: Path) -> Path:
    """Return where the package is: a save that was killed between its renames has left the old one beside."""
    old = beside(folder, "old")
    return old if old.is_dir() and not folder.exists() else folder
