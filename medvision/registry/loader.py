"""Whether a logged model is loaded by medvision's own code: what MLflow runs is no part of the package's digest."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import yaml

import medvision
from medvision.files import sha256_file
from medvision.registry.model_files import ModelFiles

# Named by its path: the registry must not import serving, which stands above it.
CODE = Path(medvision.__file__).parent / "serving" / "pyfunc_model.py"
_REQUIRED = {"loader_module": "mlflow.pyfunc.loaders.code_model", "code": None}
_ARTIFACTS = {"package": "artifacts/package"}


def own_code() -> str:
    """Return the hash of the code that loads a package, as medvision has it here."""
    return sha256_file(CODE)


def check_loader(files: ModelFiles, known: Container[str] = ()) -> str | None:
    """Return what of MLmodel or of its code is not as ``register`` wrote it; None if nothing.

    ``known``: hashes of code that counts beside that of medvision as it is here.
    """
    try:
        flavors = yaml.safe_load(files.text("MLmodel") or "")["flavors"]
        flavor: dict[str, Any] = flavors["python_function"]
        artifacts = {name: artifact["path"] for name, artifact in flavor["artifacts"].items()}
        code = files.path(Path(flavor["model_code_path"]).name)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return "MLmodel describes no model of medvision's"
    if set(flavors) != {"python_function"} or artifacts != _ARTIFACTS:
        return f"MLmodel names flavors {', '.join(sorted(flavors))} and artifacts {', '.join(sorted(artifacts))}"
    for key, value in _REQUIRED.items():
        if flavor.get(key) != value:
            return f"MLmodel says {key}: {flavor.get(key)}"
    found = sha256_file(code) if code and code.is_file() else "none"
    return None if found == own_code() or found in known else f"other code, {found[:12]}"
