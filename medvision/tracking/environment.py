"""Where a run comes from: the commit of the code, and the packages that it ran with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path


def git_tags(folder: Path) -> dict[str, str]:
    """Return a folder's commit and whether tracked files differ from it, as tags; empty outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "diff", "--quiet", "HEAD") is None
    return {"mlflow.source.git.commit": commit, "medvision.git_dirty": str(changed).lower()}


def packages() -> str:
    """Return Python's version and every installed package with its version, one a line."""
    python = f"# Python {platform.python_version()} on {platform.platform()}"
    installed = {f"{dist.metadata['Name']}=={dist.version}" for dist in importlib.metadata.distributions()}
    return "\n".join([python, *sorted(installed, key=str.lower), ""])


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
