"""How people name a version: NAME/3, NAME/1.2.0 or NAME@ALIAS."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medvision.errors import ConfigInvalid

# https://semver.org, without pre-release and build: a registered model is a release.
SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


@dataclass(frozen=True)
class VersionName:
    """A version of a registered model, by its number, or by an alias where ``number`` is None."""

    name: str
    number: int | None
    alias: str


def parse_version_name(text: str) -> VersionName:
    """Return the version that a text names, after ``models:/`` or without; ConfigInvalid if it names none."""
    plain = text.removeprefix("models:/")
    name, mark, which = plain.partition("@" if "@" in plain else "/")
    if name and which and mark == "@":
        return VersionName(name, None, which)
    if name and SEMANTIC.fullmatch(which):
        return VersionName(name, None, version_alias(which))
    if name and re.fullmatch(r"[0-9]{1,9}", which):
        return VersionName(name, int(which), "")
    raise ConfigInvalid(f"Expected NAME/3, NAME/1.2.0 or NAME@champion; found {text!r}.")


def is_run_id(text: str) -> bool:
    """Tell whether a text is the id of a run of MLflow's."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def version_alias(semantic: str) -> str:
    """Return the alias of a semantic version."""
    return "v" + semantic.replace(".", "-")
