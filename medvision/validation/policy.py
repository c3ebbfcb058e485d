"""The policy: minimums that a model must reach before it may be registered, read from ``config/validation.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvision.config import nearest, read_yaml
from medvision.errors import ConfigInvalid
from medvision.files import fingerprint, project_root

Minimum = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class _Rules(BaseModel):
    # Strict: `accuracy: yes` or a quoted number is a slip of the pen, not a minimum.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClassRules(_Rules):
    """Minimums of one class that replace those of every class."""

    sensitivity: Minimum | None = None
    specificity: Minimum | None = None


class Policy(_Rules):
    """Minimums of the figures; sensitivity and specificity are those of every class. None is no rule."""

    accuracy: Minimum = 0.85
    sensitivity: Minimum = 0.85
    balanced_accuracy: Minimum | None = None
    specificity: Minimum | None = None
    auroc: Minimum | None = None
    classes: dict[str, ClassRules] = {}

    def minimum(self, figure: str, class_name: str) -> float | None:
        """Return the minimum of ``sensitivity`` or ``specificity`` for a class: its own, else that of every class."""
        own = getattr(self.classes.get(class_name), figure, None)
        return getattr(self, figure) if own is None else own


def load_policy(path: Path | None = None) -> Policy:
    """Load a policy, by default ``config/validation.yaml`` of the project.

    Raises ConfigInvalid for a file that is missing or unreadable, an unknown rule (the nearest known one is named), or
    a minimum outside (0, 1].
    """
    path = path or project_root() / "config" / "validation.yaml"
    try:
        return Policy.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigInvalid("\n".join(f"{path}: {_explain(item)}" for item in error.errors())) from None


def policy_fingerprint(policy: Policy) -> str:
    """Return the fingerprint of a policy's rules, whatever the order and the comments of its file."""
    return fingerprint(policy.model_dump())


def check_class_names(policy: Policy, classes: Sequence[str]) -> None:
    """Raise ConfigInvalid, naming the nearest class, if the policy has rules for a class that the model lacks."""
    for name in policy.classes:
        if name not in classes:
            raise ConfigInvalid(
                f"The policy has rules for class {name!r}, which the model does not know. "
                f"{nearest(name, list(classes))}"
            )


def _explain(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}; found {error['input']!r}. Minimums are numbers in (0, 1]."
    known = ClassRules if len(place) > 1 else Policy
    return f"{key}: unknown rule. {nearest(place[-1], list(known.model_fields))}"
