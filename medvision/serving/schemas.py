"""What the service answers, as its OpenAPI document has it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Status = Literal["answered", "indeterminate"]
# A tuple, in FastAPI's OpenAPI document, is no valid schema.
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Level = Literal["low", "medium", "high", "indeterminate"]
Action = Literal["none", "second_reader", "not_answered"]


class Answer(BaseModel):
    """The answer for one image; ``indeterminate``: it is unlike the images that the model knows, and has no answer."""

    request_id: str
    model: str
    version: str = Field(description="The version that made this answer.")
    status: Status
    prediction: str | None = Field(description="The most probable class.")
    confidence: float | None = Field(ge=0, le=1, description="Its probability.")
    probabilities: dict[str, float] | None = Field(description="The calibrated probability of each class.")
    action: Action = Field(description="What is to be done before the answer is relied on.")
    processing_time_ms: float = Field(ge=0)


class Uncertainty(BaseModel):
    """How sure an answer is.

    ``entropy`` is that of the probabilities over the logarithm of the classes; ``disagreement`` is the part of it that
    is between the members of an ensemble, None for one network.
    """

    level: Level
    entropy: float | None = Field(ge=0, le=1, description="None where there is no answer.")
    disagreement: float | None = Field(ge=0, le=1)
    prediction_set: list[str] | None = Field(
        description="Classes that are not ruled out; None if the model has no sets."
    )
    coverage: float | None = Field(description="Share of each class whose set holds the truth.")
    domain_distance: float | None = Field(description="Above 1 the image is unlike those that the model knows.")
    recommendation: str = Field(description="What to do, and why, in a sentence.")


class MemberScores(BaseModel):
    """The probabilities that one network of an ensemble gives."""

    model: str
    probabilities: dict[str, float]


class AdvancedAnswer(Answer):
    """The answer for one image, with what a person needs to weigh it."""

    uncertainty: Uncertainty
    called: dict[str, bool] = Field(description="Whether each critical class is called, at its operating point.")
    members: list[MemberScores]
    heat_map_png: str | None = Field(description="Where the model looked, to lay over the image: PNG in base64.")


class FileAnswer(BaseModel):
    """The answer for one file of many, or why there is none."""

    file: str
    answer: Answer | None
    error: str | None


class Summary(BaseModel):
    """What the answers for many files come to."""

    files: int
    answered: int
    indeterminate: int
    second_reader: int
    failed: int
    counts: dict[str, int] = Field(description="Files by their most probable class.")
    mean_confidence: float | None


class BatchAnswer(BaseModel):
    """The answers for many files, in their order."""

    request_id: str
    results: list[FileAnswer]
    summary: Summary
    processing_time_ms: float = Field(ge=0)


class ModelInfo(BaseModel):
    """The version that answers, and what it was found to be able to do."""

    name: str
    version: str
    number: str
    package_digest: str
    engine: str
    classes: list[str]
    formats: list[str] = Field(description="Kinds of image files that are taken.")
    policy: str | None
    verdict: str | None
    grade: str | None
    validated_at: str | None
    n_test_images: int | None
    n_test_patients: int | None
    figures: dict[str, float | None] = Field(description="The key figures of the verdict, by their names.")
    intervals: dict[str, Interval] = Field(description="95 % intervals of those that a rule asked for.")
    latency_p95_ms: float | None = Field(description="95th percentile that the verdict was given on.")
    limits: list[str] = Field(
        description="Rules of the policy that could not be assessed, and what else is to be known."
    )
    canary: str | None = Field(description="The challenger that answers a share of the cases.")


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"]


class Ready(BaseModel):
    """Whether requests are answered, and why not."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]


class Health(Ready):
    """What a person wants to know at a glance."""

    version: str | None
    in_flight: int
    waiting: int
    uptime_s: float


class Usage(BaseModel):
    """What was asked and answered since the service was started."""

    since: str
    requests: int
    predictions: int
    indeterminate: int
    abstentions: int
    by_label: dict[str, int]
    by_version: dict[str, int]
    by_key: dict[str, int]
    mean_confidence: float | None
    latency_ms: dict[str, float | None] = Field(description="p50, p95 and p99 of the last 1,000 predictions.")
