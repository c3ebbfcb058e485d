"""A model of 350 MB is promoted in time, with every byte of it read."""

import subprocess
import sys
import time

import pytest
import torch
from registry_cases import BIN, NAME, SAID

from medvision.errors import GateFailed
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.package import describe, package_digest, save_package
from medvision.registry.promotion import approve, promote
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys


@pytest.fixture
def large(registry):
    """Return a version of a ConvNeXt-Base with random weights, 350 MB."""
    torch.manual_seed(0)
    architecture = Architecture("timm/convnext_base", "convnext_base", "linear", 2, 3, 224)
    network = build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=False)
    info = describe(
        network, name=NAME, dataset="tiny", classes=("no", "yes"), manifest_fingerprint="a" * 64,
        split_fingerprint="b" * 64, run_key="0" * 32, best_epoch=1, best_val_accuracy=0.9,
    )  # fmt: skip
    folder = registry.folder / "large" / "package"
    save_package(folder, info, [network])
    assert (folder / "weights.safetensors").stat().st_size > 350_000_000
    signed = registry.signed(package_digest=package_digest(folder))
    return registry.register(package=folder, verdicts={"production": signed})


@pytest.mark.slow
def test_350_megabytes(large, registry):
    """A promotion takes at most 5 s, a refusal at most 1 s; a byte that was changed is found."""
    begun = time.monotonic()
    with pytest.raises(GateFailed, match="Rule: approvals"):
        promote(registry.client, NAME, large)
    assert time.monotonic() - begun < 1
    approve(registry.client, NAME, large, **SAID)
    begun = time.monotonic()
    promote(registry.client, NAME, large, to="challenger")
    assert time.monotonic() - begun < 5
    path = registry.files(large) / "artifacts" / "package" / "weights.safetensors"
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(GateFailed, match="Rule: package"):
        promote(registry.client, NAME, large)


def test_the_gate_needs_no_torch():
    """MLflow loads the gate wherever it looks for a registry: that must not cost the seconds of torch."""
    code = "import sys, medvision.registry.gated_store; assert not {'torch', 'lightning', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_an_upgrade_of_the_database(registry):
    """MLflow's own upgrade of its database leaves the ledger alone."""
    registry.crown()
    ended = subprocess.run([BIN / "mlflow", "db", "upgrade", registry.database], capture_output=True, timeout=180)
    assert ended.returncode == 0, ended.stderr
    assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []
