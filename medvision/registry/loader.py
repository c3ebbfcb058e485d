"""Whether a logged model is loaded by medvision's own code: what MLflow runs is no part of the package's digest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import marshal
import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import yaml

import medvision
from medvision.files import sha256_file
from medvision.registry.model_files import ModelFiles

# Named by its path: the registry must not import serving, which stands above it.
CODE = Path(medvision.__file__).parent / "serving" / "pyfunc_model.py"
# Serving needs these beside medvision itself, which is installed where it serves. A name stays: a former champion,
# which may come back, asks for it.
_REQUIREMENTS = (
    "cryptography", "mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "timm", "torch",
)  # fmt: skip

# What MLflow writes of a model from code, and nothing beside it: `data`, `model_config` or `predict_fn` would have it
# load from elsewhere, or do something else.
_FIXED: dict[str, Any] = {
    "code": None,
    "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    "loader_module": "mlflow.pyfunc.loaders.code_model",
    "streamable": False,
}
_KEYS = {*_FIXED, "artifacts", "cloudpickle_version", "model_code_path", "python_version"}
_ARTIFACTS = {"package": "artifacts/package"}
_COMPILED = "__pycache__"
# Python's number of its bytecode, and flags: 0 where it is compared with its source by time and size.
_HEADER, _MAX_COMPILED = 8, 1_000_000
_VERSION = r"\d[\w.+!]*"
_PINNED = re.compile(rf"({'|'.join(_REQUIREMENTS)})=={_VERSION}")
_TOOL = re.compile(rf"(python|pip|setuptools|wheel)((=|==|<=){_VERSION})?")


def own_code() -> str:
    """Return the hash of the code that loads a package, as medvision has it here."""
    return sha256_file(CODE)


def requirements() -> list[str]:
    """Return the packages that a model is served with, in the versions that are installed here."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS]


def check_loader(files: ModelFiles, known: Container[str] = ()) -> str | None:
    """Return what of MLmodel, its code or its environment is not as ``register`` wrote it; None if nothing.

    ``known``: hashes of code that counts beside that of medvision as it is here.
    """
    return _check_description(files) or _check_environment(files) or _check_code(files, known)


def _check_description(files: ModelFiles) -> str | None:
    try:
        flavors = yaml.safe_load(files.text("MLmodel") or "")["flavors"]
        flavor: dict[str, Any] = flavors["python_function"]
        artifacts = {name: artifact["path"] for name, artifact in flavor["artifacts"].items()}
        code = Path(flavor["model_code_path"]).name
        others = sorted({str(key) for key in (*flavors, *flavor)} - {"python_function", *_KEYS})
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, AttributeError):
        return "MLmodel describes no model of medvision's"
    if others:
        return f"MLmodel says something of {others[0][:40]}, which medvision does not write"
    changed = [key for key, value in _FIXED.items() if key not in flavor or flavor[key] != value]
    changed += ["artifacts"] if artifacts != _ARTIFACTS else []
    changed += ["model_code_path"] if code != CODE.name else []
    # Not what it says, which may be as long as somebody likes.
    return f"another {changed[0]} in MLmodel" if changed else None


def _check_environment(files: ModelFiles) -> str | None:
    """Return which file would have MLflow install more than medvision asks for, where it makes an environment."""
    lines = (files.text("requirements.txt") or "").splitlines()
    if not lines or not all(_PINNED.fullmatch(line) for line in lines):
        return "other packages in requirements.txt"
    try:
        conda = yaml.safe_load(files.text("conda.yaml") or "")
        *tools, pip = conda.pop("dependencies")
        same = (conda, pip) == ({"channels": ["conda-forge"], "name": "mlflow-env"}, {"pip": lines})
        if not (same and all(_TOOL.fullmatch(tool) for tool in tools)):
            return "other packages in conda.yaml"
        env = yaml.safe_load(files.text("python_env.yaml") or "")
        tools = [f"python={env.pop('python')}", *env.pop("build_dependencies")]
        if env != {"dependencies": ["-r requirements.txt"]} or not all(_TOOL.fullmatch(tool) for tool in tools):
            return "other packages in python_env.yaml"
    except (yaml.YAMLError, RecursionError, KeyError, ValueError, TypeError, AttributeError):
        return "conda.yaml and python_env.yaml are not as MLflow writes them"
    return None


def _check_code(files: ModelFiles, known: Container[str]) -> str | None:
    code = files.path(CODE.name)
    found = sha256_file(code) if code and code.is_file() else "none"
    if code is None or not (found == own_code() or found in known):
        return f"other code, {found[:12]}"
    others = [name for name in files.names(_COMPILED) if not _is_compiled(code, files.path(f"{_COMPILED}/{name}"))]
    return f"other code in {_COMPILED}, which Python would run in its place: remove that folder" if others else None


def _is_compiled(code: Path, path: Path | None) -> bool:
    """Tell whether a file is what Python keeps of a module's code when it loads it, which it then runs unseen."""
    if path is None or path.name != Path(importlib.util.cache_from_source(str(code))).name:
        return False
    content = path.read_bytes()
    if content[:_HEADER] != importlib.util.MAGIC_NUMBER + bytes(4) or len(content) > _MAX_COMPILED:
        return False
    try:
        found = marshal.loads(content[16:])
    except (EOFError, ValueError, TypeError):
        return False
    return bool(found == compile(code.read_bytes(), str(code), "exec", dont_inherit=True))
