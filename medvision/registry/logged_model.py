"""A model package as a logged model of MLflow, which `mlflow models serve` can start."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import medvision
from medvision.config import Config
from medvision.errors import ConfigInvalid, TrackingUnavailable
from medvision.records import PackageInfo
from medvision.tracking.journal import Journal, outbox
from medvision.tracking.recorder import Recorder

# Serving needs these beside medvision itself, which is installed where it serves.
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "timm", "torch")
# Named by its path: the registry must not import serving, which stands above it.
_CODE = Path(medvision.__file__).parent / "serving" / "pyfunc_model.py"


def record_model(recorder: Recorder, package: Path, info: PackageInfo, digest: str) -> None:
    """Record a package as the run's model: base64 images in, label, confidence and all probabilities out."""
    recorder.model(
        info.name,
        package_dir=package,
        code_path=_CODE,
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS],
        metadata={"medvision_package_digest": digest, "medvision_run_key": info.run_key},
    )


def find_logged_model(config: Config, run_key: str) -> tuple[str, str]:
    """Return MLflow's ids of the run and of the model that a training recorded.

    Raises TrackingUnavailable while they are still in the outbox; ConfigInvalid if the outbox never had them.
    """
    folder = outbox(config.paths.state) / run_key
    if not Journal(folder).events_path.is_file():
        raise ConfigInvalid(
            f"The model is of run {run_key[:8]}, which is not one of this project's: it was trained elsewhere. "
            "Register it there, or train here."
        )
    trained = Recorder(folder)
    run_id, model_id = trained.run_id(), trained.model_id()
    if run_id is None or model_id is None:
        raise TrackingUnavailable(
            f"MLflow has not taken the model of run {run_key[:8]} yet. Once the tracking server is back, run: "
            "medvision sync, then medvision register."
        )
    return run_id, model_id
