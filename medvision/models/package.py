"""A model package: a folder with weights.safetensors and package.json, all that a prediction needs.

It is written whole or not at all, and loaded only if it is what was written. Nothing in it is ever run. One process
writes a package at a time.
"""

import hashlib
import os
import shutil
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

import medvision
from medvision.errors import CheckpointCorrupt, DataInvalid, MedvisionError
from medvision.files import atomic_write, read_json, sync_directory, write_json
from medvision.models.catalog import Architecture
from medvision.models.network import Network, build_network
from medvision.records import PackageInfo, as_dict, load_record, record_fingerprint

WEIGHTS = "weights.safetensors"
INFO = "package.json"


def save_package(
    folder: Path,
    network: Network,
    *,
    name: str,
    dataset: str,
    classes: tuple[str, ...],
    manifest_fingerprint: str,
    split_fingerprint: str,
    run_key: str,
    best_epoch: int,
    best_val_accuracy: float,
) -> PackageInfo:
    """Write a network as a package; one that is already there stays until the new one is whole.

    Raises DataInvalid if there is not one class a logit; DiskFull, with the old package intact.
    """
    if len(classes) != network.architecture.n_classes:
        raise DataInvalid(f"Expected {network.architecture.n_classes} classes, one a logit; found {len(classes)}.")
    new = _fresh_folder(folder)
    try:
        weights = safetensors.torch.save(_tensors(network))
        atomic_write(new / WEIGHTS, lambda file: file.write(weights))
        info = PackageInfo(
            name=name,
            dataset=dataset,
            architecture=as_dict(network.architecture),
            classes=tuple(classes),
            preprocessing=network.preprocessing,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            manifest_fingerprint=manifest_fingerprint,
            split_fingerprint=split_fingerprint,
            run_key=run_key,
            best_epoch=best_epoch,
            best_val_accuracy=best_val_accuracy,
            medvision_version=medvision.__version__,
        )
        write_json(new / INFO, {**as_dict(info), "fingerprint": record_fingerprint(info)})
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return info


def load_package(folder: Path) -> tuple[PackageInfo, Network]:
    """Return what a package holds; the network is on the CPU and in evaluation mode.

    Raises CheckpointCorrupt: a file is missing, damaged, a link, or not one of a package's.
    """
    folder = _present(folder)
    _check_files(folder)
    info = _read_info(folder)
    weights = (folder / WEIGHTS).read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != info.weights_sha256:
        raise _corrupt(folder, f"expected {WEIGHTS} with SHA-256 {info.weights_sha256}, found {found}")
    try:
        architecture = TypeAdapter(Architecture).validate_python(info.architecture)
        mean, std = info.preprocessing.mean, info.preprocessing.std
        with torch.random.fork_rng(devices=[]):  # the random weights that are replaced at once cost the caller no draw
            network = build_network(architecture, mean=mean, std=std, pretrained=False)
        network.load_state_dict(safetensors.torch.load(weights))
    except (ValidationError, MedvisionError, RuntimeError, SafetensorError) as error:
        # Whole, but of another version of timm or medvision.
        raise _corrupt(
            folder, f"made by medvision {info.medvision_version}, it does not fit this one ({error})"
        ) from None
    return info, network.eval()


def package_digest(folder: Path) -> str:
    """Return the fingerprint of a package: of what package.json says, which includes the hash of the weights.

    Raises CheckpointCorrupt as load_package does, except that the weights are not read.
    """
    folder = _present(folder)
    _check_files(folder)
    return record_fingerprint(_read_info(folder))


def _tensors(network: Network) -> dict[str, Tensor]:
    # safetensors takes neither a GPU's tensors as they are nor those in channels_last.
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _read_info(folder: Path) -> PackageInfo:
    try:
        info = load_record(PackageInfo, folder / INFO)
        expected = read_json(folder / INFO)["fingerprint"]
    except (DataInvalid, KeyError) as error:
        raise _corrupt(folder, f"expected a whole {INFO}, found: {error}") from None
    found = record_fingerprint(info)
    if found != expected:
        raise _corrupt(folder, f"expected {INFO} with fingerprint {expected}, found {found}")
    return info


def _check_files(folder: Path) -> None:
    expected = {WEIGHTS, INFO}
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        raise _corrupt(folder, "expected a folder, found none") from None
    if found.keys() != expected:
        raise _corrupt(folder, f"expected {INFO} and {WEIGHTS}, found {', '.join(sorted(found)) or 'nothing'}")
    for name, is_regular in found.items():
        if not is_regular:
            raise _corrupt(folder, f"expected {name} to be a file, found a link or a folder")


def _corrupt(folder: Path, problem: str) -> CheckpointCorrupt:
    return CheckpointCorrupt(
        f"The model package {folder} can't be used: {problem}. Copy it again from where it was made, or train again."
    )


def _beside(folder: Path, suffix: str) -> Path:
    return folder.parent / f".{folder.name}.{suffix}"


def _fresh_folder(folder: Path) -> Path:
    """Return an empty folder beside the package, after tidying up what a killed save left."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)
    shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def _replace(folder: Path, new: Path) -> None:
    # A folder that is not empty can't be renamed over: between the two renames the old one stands beside.
    old = _beside(folder, "old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    sync_directory(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _present(folder: Path) -> Path:
    """Return where the package is: a save that was killed between its renames has left the old one beside."""
    old = _beside(folder, "old")
    return old if old.is_dir() and not folder.exists() else folder
