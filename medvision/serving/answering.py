"""From an uploaded file to an answer that can be committed and sent: read, scored, weighed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvision.evaluation.diversity import disagreement, normalized_entropy
from medvision.serving.audit_entry import AuditEntry, Role
from medvision.serving.predictor import Decision, Prediction
from medvision.serving.reading import Forms
from medvision.serving.schemas import Action, AdvancedAnswer, Answer, Level, MemberScores, Uncertainty
from medvision.serving.served import Served

_MEDIUM, _HIGH = 0.3, 0.6
_UNLIKE = (
    "Not answered: the image is unlike those that the model was trained and validated on. Have a person read it, and "
    "check that it is the right kind of image."
)


@dataclass(frozen=True)
class Weighed:
    """What a version says of one image, and how far it can be relied on.

    ``domain_distance``: above 1 the image is unlike those that the model knows; None where the package can't tell.
    """

    served: Served
    prediction: Prediction
    decision: Decision
    members: np.ndarray
    domain_distance: float | None

    @property
    def is_indeterminate(self) -> bool:
        """Tell whether the image is none that the model should answer."""
        return self.domain_distance is not None and not self.domain_distance <= 1

    @property
    def abstention(self) -> str | None:
        """Return why a person has to decide; None where the answer stands."""
        if self.is_indeterminate:
            return "indeterminate"
        return "set" if self.decision.is_abstention else None


@dataclass(frozen=True)
class _Advice:
    """What to do with an answer, as a program and as a person reads it, and how sure it is."""

    level: Level
    entropy: float
    action: Action
    recommendation: str


def weigh(served: Served, image: Forms) -> Weighed:
    """Return what a version says of an image that was read."""
    scores = served.predictor.score([image])
    prediction = served.predictor.name_row(scores.y_score[0])
    distance = served.predictor.domain_distance(image)
    return Weighed(served, prediction, served.predictor.decide(prediction), scores.members[:, :1], distance)


def describe(weighed: Weighed, request_id: str, elapsed_ms: float) -> Answer:
    """Return the answer as it is sent."""
    return Answer(**_answer(weighed, _advise(weighed), request_id, elapsed_ms))


def describe_more(weighed: Weighed, request_id: str, elapsed_ms: float, heat_map: str | None) -> AdvancedAnswer:
    """Return the answer as it is sent, with what a person needs to weigh it; ``heat_map``: a PNG in base64."""
    info, advice = weighed.served.predictor.info, _advise(weighed)
    named = [
        MemberScores(model=member.model, probabilities=dict(zip(info.classes, map(float, row), strict=True)))
        for member, row in zip(info.members, weighed.members[:, 0], strict=True)
    ]
    hidden = weighed.is_indeterminate
    return AdvancedAnswer(
        **_answer(weighed, advice, request_id, elapsed_ms),
        uncertainty=_uncertainty(weighed, advice),
        called={} if hidden else weighed.decision.calls,
        members=[] if hidden else named,
        heat_map_png=heat_map,
    )


def record(
    weighed: Weighed, *, request_id: str, key_id: str, endpoint: str, role: Role, case: str | None, input_sha256: str,
    latency_ms: float,
) -> AuditEntry:  # fmt: skip
    """Return what the audit log keeps of an answer: no image, no name of a file, no case id."""
    served, decision = weighed.served, weighed.decision
    return AuditEntry(
        request_id=request_id,
        key_id=key_id,
        endpoint=endpoint,
        role=role,
        case_hash=case,
        model=served.found.name,
        version=served.version,
        package_digest=served.predictor.digest,
        engine=served.predictor.engine.name,
        input_sha256=input_sha256,
        scores=weighed.prediction.probabilities,
        prediction_set=decision.prediction_set,
        thresholds={point.class_name: point.threshold for point in served.predictor.info.operating_points},
        is_abstention=decision.is_abstention,
        is_indeterminate=weighed.is_indeterminate,
        latency_ms=latency_ms,
    )


def _answer(weighed: Weighed, advice: _Advice, request_id: str, elapsed_ms: float) -> dict[str, object]:
    """Return the parts of an answer; an image that the model should not answer has no label, and no number for one."""
    hidden, prediction = weighed.is_indeterminate, weighed.prediction
    return {
        "request_id": request_id,
        "model": weighed.served.found.name,
        "version": weighed.served.version,
        "status": "indeterminate" if hidden else "answered",
        "prediction": None if hidden else prediction.label,
        "confidence": None if hidden else prediction.confidence,
        "probabilities": None if hidden else prediction.probabilities,
        "action": advice.action,
        "processing_time_ms": round(elapsed_ms, 3),
    }


def _uncertainty(weighed: Weighed, advice: _Advice) -> Uncertainty:
    info, held = weighed.served.predictor.info, weighed.decision.prediction_set
    return Uncertainty(
        level=advice.level,
        # Of two classes the entropy would tell the confidence that is not given.
        entropy=None if weighed.is_indeterminate else advice.entropy,
        disagreement=_disagreement(weighed),
        prediction_set=None if held is None or weighed.is_indeterminate else list(held),
        coverage=info.conformal.coverage if info.conformal else None,
        domain_distance=weighed.domain_distance,
        recommendation=advice.recommendation,
    )


def _disagreement(weighed: Weighed) -> float | None:
    is_told = len(weighed.members) > 1 and not weighed.is_indeterminate
    return float(disagreement(weighed.members)[0]) if is_told else None


def _level(weighed: Weighed, entropy: float) -> Level:
    if weighed.is_indeterminate:
        return "indeterminate"
    if weighed.decision.is_abstention or entropy >= _HIGH:
        return "high"
    return "medium" if entropy >= _MEDIUM else "low"


def _advise(weighed: Weighed) -> _Advice:
    row = np.array([list(weighed.prediction.probabilities.values())])
    entropy = float(normalized_entropy(row)[0])
    level = _level(weighed, entropy)
    if weighed.is_indeterminate:
        return _Advice(level, entropy, "not_answered", _UNLIKE)
    doubt = _doubt(weighed, level)
    if doubt:
        return _Advice(level, entropy, "second_reader", f"Send to a second reader: {doubt}")
    return _Advice(level, entropy, "none", "The answer supports a reader, and does not replace one.")


def _doubt(weighed: Weighed, level: str) -> str:
    held = weighed.decision.prediction_set
    if held is not None and len(held) > 1:
        return f"the model does not rule out {', '.join(held)}."
    if held is not None and not held:
        return "no class is likely enough to be kept."
    if level == "high":
        return "the probabilities are close to one another."
    label = weighed.prediction.label
    if held is not None and label not in held:
        return f"{held[0]} is not ruled out, while {label}, which is more probable, is."
    others = [name for name, is_called in weighed.decision.calls.items() if is_called and name != label]
    if others:
        return f"{', '.join(others)} is above its threshold, though another class is more probable."
    if not weighed.decision.calls.get(label, True):
        return f"{label} is below its threshold, though it is the most probable class."
    return ""
