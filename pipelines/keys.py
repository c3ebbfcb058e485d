"""The keys that verdicts are signed with: make a pair, or show the public one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from pathlib import Path

Action = Annotated[str, typer.Argument(help="init: make a pair unless there is one; show: print the public key.")]


@dataclass(frozen=True)
class PublicKey:
    """A public key as PEM text, and its SHA-256."""

    pem: str
    fingerprint: str


def keys(action: Action, config: ConfigFile = None, set_: Set = None) -> PublicKey:
    """Make the keys that verdicts are signed with, or show the public one."""
    from medvision.errors import ConfigInvalid

    if action not in {"init", "show"}:
        raise ConfigInvalid(f"keys expects init or show; found {action!r}.")
    state = configure(config, None, set_).paths.state
    if action == "init":
        _init(state)
    return _show(state)


def _init(state: Path) -> None:
    from medvision.validation.keys import PRIVATE_KEY, keys_dir, make_key

    _, is_new = make_key(state)
    private = keys_dir(state) / PRIVATE_KEY
    say(f"Made {private}, readable by you alone." if is_new else f"{private} is there already, and stays.")


def _show(state: Path) -> PublicKey:
    from medvision.validation.keys import key_id, load_signing_key, public_pem

    key = load_signing_key(state).public_key()
    shown = PublicKey(public_pem(key), key_id(key))
    say(f"{shown.pem}SHA-256 {shown.fingerprint}")
    return shown


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(keys)
