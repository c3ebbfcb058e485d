"""A model package: a folder with weights.safetensors and package.json, all that a prediction needs.

It is written whole or not at all, and loaded only if it is what was written. Nothing in it is ever run. One process
writes a package at a time.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

import medvision
from medvision.errors import DataInvalid, MedvisionError
from medvision.files import atomic_write, sync_directory, write_json
from medvision.models.catalog import Architecture
from medvision.models.network import Network, build_network
from medvision.models.package_files import (
    INFO,
    WEIGHTS,
    beside,
    check_files,
    check_weights,
    corrupt,
    load_info,
    package_digest,
    present,
    read_info,
)
from medvision.records import Combination, Member, PackageInfo, as_dict, essence, record_fingerprint

__all__ = [
    "INFO", "WEIGHTS", "copy_package", "describe", "load_info", "load_package", "package_digest", "save_package",
]  # fmt: skip


def describe(
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
    """Return what there is to say of a package of one network, before anything is fitted on val."""
    member = Member(
        model=network.architecture.model,
        architecture=as_dict(network.architecture),
        preprocessing=network.preprocessing,
        temperature=1.0,
        run_key=run_key,
        best_epoch=best_epoch,
        best_val_accuracy=best_val_accuracy,
    )
    return PackageInfo(
        name=name,
        dataset=dataset,
        classes=tuple(classes),
        members=(member,),
        combination=Combination(),
        operating_points=(),
        conformal=None,
        manifest_fingerprint=manifest_fingerprint,
        split_fingerprint=split_fingerprint,
        run_key=run_key,
    )


def save_package(folder: Path, info: PackageInfo, networks: Sequence[Network]) -> PackageInfo:
    """Write networks, one a member, as a package; one that is already there stays until the new one is whole.

    Returns ``info`` with the hash of the weights. Raises DataInvalid if there is not one class a logit; DiskFull, with
    the old package intact.
    """
    for network in networks:
        if len(info.classes) != network.architecture.n_classes:
            raise DataInvalid(
                f"Expected {network.architecture.n_classes} classes, one a logit; found {len(info.classes)}."
            )
    new = _fresh_folder(folder)
    try:
        weights = safetensors.torch.save(_tensors(networks))
        atomic_write(new / WEIGHTS, lambda file: file.write(weights))
        digest = hashlib.sha256(weights).hexdigest()
        info = dataclasses.replace(info, weights_sha256=digest, medvision_version=medvision.__version__)
        write_json(new / INFO, {**essence(info), "fingerprint": record_fingerprint(info)})
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return info


def copy_package(source: Path, folder: Path) -> PackageInfo:
    """Copy a package byte by byte, so that its digest stays; one that is already there stays until the copy is whole.

    Raises CheckpointCorrupt as load_package does.
    """
    info, _ = load_package(source)
    new = _fresh_folder(folder)
    try:
        for name in (WEIGHTS, INFO):
            atomic_write(new / name, partial(_write, (present(source) / name).read_bytes()))
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return info


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def load_package(folder: Path) -> tuple[PackageInfo, tuple[Network, ...]]:
    """Return what a package holds; the networks, one a member, are on the CPU and in evaluation mode.

    Raises CheckpointCorrupt: a file is missing, damaged, a link, or not one of a package's.
    """
    folder = present(folder)
    check_files(folder)
    info = read_info(folder)
    weights = (folder / WEIGHTS).read_bytes()
    check_weights(folder, info, hashlib.sha256(weights).hexdigest())
    try:
        tensors = safetensors.torch.load(weights)
        networks = tuple(_build(member, number, tensors) for number, member in enumerate(info.members))
    except (ValidationError, MedvisionError, RuntimeError, SafetensorError) as error:
        # Whole, but of another version of timm or medvision.
        raise corrupt(
            folder, f"made by medvision {info.medvision_version}, it does not fit this one ({error})"
        ) from None
    return info, networks


def _build(member: Member, number: int, tensors: dict[str, Tensor]) -> Network:
    architecture = TypeAdapter(Architecture).validate_python(member.architecture)
    made = member.preprocessing
    with torch.random.fork_rng(devices=[]):  # the random weights that are replaced at once cost the caller no draw
        network = build_network(architecture, mean=made.mean, std=made.std, pretrained=False, window=made.window)
    prefix = f"{number}."
    network.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    )
    return network.eval()


def _tensors(networks: Sequence[Network]) -> dict[str, Tensor]:
    # safetensors takes neither a GPU's tensors as they are nor those in channels_last.
    return {
        f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def _fresh_folder(folder: Path) -> Path:
    """Return an empty folder beside the package, after tidying up what a killed save left."""
    new, old = beside(folder, "new"), beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)
    shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def _replace(folder: Path, new: Path) -> None:
    # A folder that is not empty can't be renamed over: between the two renames the old one stands beside.
    old = beside(folder, "old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    sync_directory(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
