"""The API keys of the prediction service: make one, list them, revoke one; actions of ``medvision keys``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.serving.api_keys import ApiKey


@dataclass(frozen=True)
class NewApiKey:
    """A key that was made, with its text ``key``: this once."""

    id: str
    name: str
    role: str
    per_minute: int
    key: str


@dataclass(frozen=True)
class ApiKeyList:
    """All API keys, revoked ones too; of none of them the text."""

    keys: tuple[ApiKey, ...]


def create_api_key(state: Path, name: str, role: str, per_minute: int) -> NewApiKey:
    """Make an API key and show it."""
    from medvision.serving.api_keys import api_keys_path, create_key

    key, text = create_key(api_keys_path(state), name, role, per_minute)
    say(f"{text}\nThis is shown once, and kept nowhere. Send it as: Authorization: Bearer KEY")
    say(f"To revoke it, run: medvision keys revoke {key.id}")
    return NewApiKey(key.id, key.name, key.role, key.per_minute, text)


def list_api_keys(state: Path) -> ApiKeyList:
    """Show the API keys."""
    from medvision.serving.api_keys import api_keys_path, list_keys

    keys = list_keys(api_keys_path(state))
    for key in keys:
        ended = f"revoked {key.revoked_at}" if key.revoked_at else "valid"
        say(f"{key.id}  {key.role:<7}  {key.per_minute:>6}/min  {key.created_at}  {ended}  {key.name}")
    if not keys:
        say("There is no API key. To make one, run: medvision keys create NAME")
    return ApiKeyList(keys)


def revoke_api_key(state: Path, id_: str) -> ApiKey:
    """Revoke an API key; a server that runs refuses it from then on."""
    from medvision.serving.api_keys import api_keys_path, revoke_key

    key = revoke_key(api_keys_path(state), id_)
    say(f"{key.id}, {key.name}, is revoked since {key.revoked_at}. Servers that run refuse it.")
    return key
