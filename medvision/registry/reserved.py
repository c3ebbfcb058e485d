"""The names of tags and aliases that clients may not set: the gate's own, and what could be read as one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from medvision.errors import ConfigInvalid, GateFailed
from medvision.registry.requests import RESERVED, folded, is_reserved
from medvision.registry.rows import ALIASES

_VERSION_ALIAS = re.compile(r"v\d+-\d+-\d+")
_PLAIN_ALIAS = re.compile(r"[A-Za-z0-9_.-]+")


def check_given(tags: Sequence[tuple[str, str]]) -> str | None:
    """Return the semantic version among the tags of a new version; refuse reserved ones, and two of one name."""
    given = dict(tags)
    if len(given) != len(tags):
        raise ConfigInvalid(f"Expected each tag once; found {', '.join(key for key, _ in tags)}.")
    semantic = given.pop("version", None)
    check_tags(given)
    return semantic


def check_tags(keys: Iterable[str]) -> None:
    """Refuse tags that only the gate writes, and those that look like one: in other letters, or between blanks."""
    for key in keys:
        if str(key) != str(key).strip():
            raise ConfigInvalid(f"Expected a tag that neither begins nor ends with a blank; found {key!r}.")
        if is_reserved(str(key)):
            raise GateFailed(
                f"Tag {key} is the gate's own. Rule: reserved tags. Required: a tag that does not begin with "
                f"medvision. and is none of {', '.join(RESERVED)}. Found: {key}. Next: medvision validate, then "
                "medvision register; the semantic version is given at registration, and stays"
            )


def check_alias(alias: str) -> None:
    """Refuse the aliases of semantic versions, and what could be taken for champion or challenger."""
    if _VERSION_ALIAS.fullmatch(folded(str(alias))):
        raise GateFailed(
            f"Alias {alias} can't be set or deleted. Rule: versions. Required: an alias that is no semantic version. "
            f"Found: {alias}, which is given once, at registration. Next: medvision register --version"
        )
    if folded(str(alias)) in ALIASES and alias not in ALIASES:
        raise ConfigInvalid(f"Alias {alias!r} could be taken for {folded(str(alias))}: write it so, or choose another.")


def check_alias_is_plain(alias: str) -> None:
    """Refuse an alias in letters of other alphabets, or with other signs: it could be taken for one of ours."""
    if not _PLAIN_ALIAS.fullmatch(str(alias)):
        raise ConfigInvalid(f"Expected an alias of letters a to z, digits, dots, dashes, underscores; found {alias!r}.")


def check_not_prompt(key: str) -> None:
    """Refuse the tag that hides a model, or a version, from every list of models."""
    if folded(str(key)) == IS_PROMPT_TAG_KEY:
        raise GateFailed(
            f"Tag {key} can't be set. Rule: visibility. Required: models that every list shows. Found: the tag of "
            "prompts, which MLflow sets when it makes one. Next: mlflow.genai.register_prompt, for a prompt"
        )
