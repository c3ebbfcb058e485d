"""Requests for which MLflow's API has no words, as the value of one reserved tag that is never stored."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medvision.errors import ConfigInvalid

TAG = "medvision.request"
LEDGER_TAG = "medvision.ledger"
# Written by the gate alone, beside all of medvision's.
RESERVED = ("version", "test_accuracy", "test_balanced_accuracy")

Action = Literal["promote", "rollback", "archive", "approve", "attest"]
Alias = Literal["challenger", "champion"]


@dataclass(frozen=True)
class Unsaid:
    """The asker does not say which version is to be replaced: whichever it is."""


UNSAID = Unsaid()

# Control characters, invisible signs, and breaks of lines and paragraphs.
_CONTROLS = ("Cc", "Cf", "Zl", "Zp")


def is_reserved(key: str) -> bool:
    """Tell whether a tag is the gate's own, or could be read as one that is: in other letters, or between blanks."""
    return folded(key).startswith("medvision.") or folded(key) in RESERVED


def folded(text: str) -> str:
    """Return a text as it would be read: in small letters, without variants of letters, without blanks around it."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


class Request(BaseModel):
    """What is asked of the gate; ``replacing`` is the holder of the alias that the asker saw, None for none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    action: Action
    to: Alias = "champion"
    replacing: int | Unsaid | None = UNSAID
    # A sentence or two; the ledger keeps it for ever.
    meaning: str = Field("", max_length=2000)
    reason: str = Field("", max_length=2000)

    @field_validator("meaning", "reason")
    @classmethod
    def _is_one_line(cls, text: str) -> str:
        # A line break, or a sign that turns text round, could forge a line of the history.
        if any(unicodedata.category(sign) in _CONTROLS for sign in text):
            raise ValueError("expected one line without control characters")
        return text


def parse_request(text: str) -> Request:
    """Return the request in a tag's value; ConfigInvalid if it is none."""
    try:
        return Request.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        problem = f"{place}: {first['msg']}"
    except (ValueError, RecursionError):
        problem = "it is not JSON"
    raise ConfigInvalid(
        f'{TAG} expects JSON such as {{"action": "promote", "to": "challenger", "reason": "..."}}; found {problem}.'
    )


def render_request(action: Action, **parts: Any) -> str:
    """Return the value of the tag that asks for something."""
    return json.dumps({"action": action, **parts}, ensure_ascii=False)
