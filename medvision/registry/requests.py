"""Requests for which MLflow's API has no words, as the value of one reserved tag that is never stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvision.errors import ConfigInvalid

TAG = "medvision.request"
LEDGER_TAG = "medvision.ledger"

Action = Literal["promote", "rollback", "archive", "approve", "attest"]
Alias = Literal["challenger", "champion"]


@dataclass(frozen=True)
class Unsaid:
    """The asker does not say which version is to be replaced: whichever it is."""


UNSAID = Unsaid()


class Request(BaseModel):
    """What is asked of the gate; ``replacing`` is the holder of the alias that the asker saw, None for none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    action: Action
    to: Alias = "champion"
    replacing: int | Unsaid | None = UNSAID
    # A sentence or two; the ledger keeps it for ever.
    meaning: str = Field("", max_length=2000)
    reason: str = Field("", max_length=2000)


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
