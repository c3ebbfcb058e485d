"""The policies: rules that a model must meet, under a name each, read from ``config/validation.yaml``."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medvision.config import nearest, read_yaml
from medvision.errors import ConfigInvalid
from medvision.files import fingerprint, project_root

Minimum = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# What the paired bootstrap compares.
Overall = Literal["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "auroc", "auprc"]
OfSubgroup = Literal["accuracy", "sensitivity", "specificity"]

DEFAULT_POLICY = "staging"
# Columns of a manifest that name images or patients, and the truth itself: groups of one case, or of one class.
_NO_SUBGROUPS = ("image_id", "path", "frame", "patient_key", "pixel_hash", "group", "label")


class _Section(BaseModel):
    # Strict: `accuracy: yes` or a quoted number is a slip of the pen, not a minimum.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClassMinimums(_Section):
    """Minimums of figures that each class has."""

    sensitivity: Minimum | None = None
    specificity: Minimum | None = None
    ppv: Minimum | None = None
    npv: Minimum | None = None
    f1: Minimum | None = None
    auroc: Minimum | None = None
    auprc: Minimum | None = None


class Minimums(ClassMinimums):
    """Minimums of figures of all classes together, and of each class."""

    accuracy: Minimum | None = None
    balanced_accuracy: Minimum | None = None
    macro_f1: Minimum | None = None
    weighted_f1: Minimum | None = None


class Ceilings(_Section):
    """Maximums of errors, held against their upper bound."""

    ece: Positive | None = None
    classwise_ece: Positive | None = None
    brier: Positive | None = None
    nll: Positive | None = None


class ClassRules(_Section):
    """Minimums of one class that replace those of every class."""

    value: ClassMinimums = ClassMinimums()
    bound: ClassMinimums = ClassMinimums()


class NonInferiority(_Section):
    """The lower bound of candidate minus champion, on the same cases, is above ``-margin``."""

    figure: Overall
    margin: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class SubgroupFloor(_Section):
    """The lower bound of a figure, in every subgroup by these columns that has at least so many cases for it."""

    columns: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    figure: OfSubgroup
    minimum: Minimum
    at_least: int = Field(30, ge=1)

    @field_validator("columns")
    @classmethod
    def _are_of_groups(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        for column in columns:
            if column in _NO_SUBGROUPS:
                raise ValueError(f"column {column!r} names images, patients or classes, and no subgroups")
        return columns


class Rules(_Section):
    """The rules of one policy; what is not named is no rule, but every policy has a floor of two figures."""

    value: Minimums = Minimums()
    bound: Minimums = Minimums()
    ceiling: Ceilings = Ceilings()
    non_inferiority: NonInferiority | None = None
    subgroup_floor: SubgroupFloor | None = None
    latency_p95_ms: Positive | None = None
    audit: Literal["clean", "clean-or-handled"] | None = None
    # YAML has lists, and no tuples.
    critical: Annotated[tuple[str, ...], Field(strict=False)] = ()
    classes: dict[str, ClassRules] = {}

    @model_validator(mode="after")
    def _has_floors(self) -> Rules:
        for figure in ("accuracy", "sensitivity"):
            if getattr(self.value, figure) is None and getattr(self.bound, figure) is None:
                raise ValueError(f"needs a minimum of {figure} under 'value' or 'bound'")
        return self

    def minimum(self, kind: Literal["value", "bound"], figure: str, class_name: str) -> float | None:
        """Return the minimum of a figure for a class: its own, else that of every class the policy is strict about."""
        own = getattr(getattr(self.classes.get(class_name), kind, None), figure, None)
        if own is not None:
            return float(own)
        applies = not self.critical or class_name in self.critical
        return getattr(getattr(self, kind), figure) if applies else None


class Grades(_Section):
    """From where on a model is called good, and excellent."""

    excellent: Minimum = 0.90
    good: Minimum = 0.85

    @model_validator(mode="after")
    def _rise(self) -> Grades:
        if self.good > self.excellent:
            raise ValueError("expects excellent to be at least good")
        return self


class _File(_Section):
    grades: Grades = Grades()
    policies: dict[str, Rules]


@dataclass(frozen=True)
class Policy:
    """A policy by its name."""

    name: str
    rules: Rules
    grades: Grades

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the rules, whatever the order and the comments of their file."""
        return fingerprint([self.rules.model_dump(mode="json", exclude_none=True), self.grades.model_dump(mode="json")])


def load_policy(name: str | None = None, path: Path | None = None) -> Policy:
    """Load a policy by its name, ``staging`` if None; ConfigInvalid as ``load_policies``, or if there is none of it."""
    name, path = name or DEFAULT_POLICY, path or _project_file()
    policies = load_policies(path)
    if name not in policies:
        raise ConfigInvalid(f"{path} has no policy {name!r}. {nearest(name, list(policies))}")
    return policies[name]


def load_policies(path: Path | None = None) -> dict[str, Policy]:
    """Load all policies of a file by name, by default of the project's ``config/validation.yaml``.

    Raises ConfigInvalid for a file that is missing or unreadable, an unknown rule or figure (the nearest known one is
    named), a minimum outside (0, 1], or a policy without a floor of accuracy and of sensitivity.
    """
    path = path or _project_file()
    try:
        file = _File.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigInvalid("\n".join(f"{path}: {_explain(item)}" for item in error.errors())) from None
    return {name: Policy(name, rules, file.grades) for name, rules in file.policies.items()}


def _project_file() -> Path:
    return project_root() / "config" / "validation.yaml"


def check_class_names(policy: Policy, classes: Sequence[str]) -> None:
    """Raise ConfigInvalid, naming the nearest class, if the policy speaks of a class that the model lacks."""
    for name in (*policy.rules.critical, *policy.rules.classes):
        if name not in classes:
            raise ConfigInvalid(
                f"The policy {policy.name!r} has rules for class {name!r}, which the model does not know. "
                f"{nearest(name, list(classes))}"
            )


def _explain(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown rule or figure. {nearest(place[-1], list(_section(place).model_fields))}"
    if error["type"] == "literal_error":
        return f"{key}: unknown {error['input']!r}. {nearest(str(error['input']), _quoted(error['ctx']['expected']))}"
    if error["type"] == "missing":
        return f"{key}: is missing."
    return f"{key}: {error['msg'].removeprefix('Value error, ')}; found {_shortened(error['input'])}."


def _section(place: list[str]) -> type[BaseModel]:
    """Return the section in which the last key of a place was looked for; names of policies and classes are no keys."""
    section: type[BaseModel] = _File
    for key in place[:-1]:
        if key in section.model_fields:
            hints = typing.get_type_hints(section, include_extras=True)
            section = next((kind for kind in _kinds(hints[key]) if isinstance(kind, type)), section)
    return section


def _kinds(annotation: Any) -> list[Any]:
    """Return the sections that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds(part)]


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']+)'", text)


def _shortened(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
