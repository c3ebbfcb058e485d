"""Keys: the pair that verdicts are signed with, and the API keys of the prediction service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.api_keys import ApiKeyList, NewApiKey, create_api_key, list_api_keys, revoke_api_key
from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.serving.api_keys import ApiKey

_ACTIONS = {"init": None, "show": None, "create": "NAME", "list": None, "revoke": "ID"}
_HELP = (
    "init: make the pair that verdicts are signed with, unless there is one; show: print its public key; create NAME, "
    "list, revoke ID: the API keys of the prediction service."
)
Action = Annotated[str, typer.Argument(help=_HELP)]
Subject = Annotated[str | None, typer.Argument(metavar="[NAME|ID]", help="Of the API key to make or to revoke.")]
Role = Annotated[str, typer.Option(help="What a new API key may: predict, read (figures and usage) or admin (both).")]
PerMinute = Annotated[int, typer.Option(min=1, help="How many images a new API key may send in a minute.")]


@dataclass(frozen=True)
class PublicKey:
    """A public key as PEM text, and its SHA-256."""

    pem: str
    fingerprint: str


def keys(
    action: Action, subject: Subject = None, role: Role = "predict", per_minute: PerMinute = 600,
    config: ConfigFile = None, set_: Set = None,
) -> PublicKey | NewApiKey | ApiKeyList | ApiKey:  # fmt: skip
    """Keys: those that verdicts are signed with, and the API keys of the prediction service."""
    _check(action, subject)
    state = configure(config, None, set_).paths.state
    if action == "create":
        return create_api_key(state, str(subject), role, per_minute)
    if action == "list":
        return list_api_keys(state)
    if action == "revoke":
        return revoke_api_key(state, str(subject))
    if action == "init":
        _init(state)
    return _show(state)


def _check(action: str, subject: str | None) -> None:
    from medvision.errors import ConfigInvalid

    if action not in _ACTIONS:
        raise ConfigInvalid(f"keys expects {', '.join(_ACTIONS)}; found {action!r}.")
    expected = _ACTIONS[action]
    if (expected is None) != (subject is None):
        # Without what was given, which may be a whole API key.
        raise ConfigInvalid(f"keys {action} expects {expected or 'nothing'} after it.")


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
