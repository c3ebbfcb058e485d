"""What the audit log keeps of one prediction: enough to say later what was answered, by which model, to which input.

Never an image, a file name or an identifier of a patient: the input is its hash, the case a keyed hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from medvision.files import canonical_json

# What stands in a log is printed by terminals and opened by spreadsheets: no blanks, no controls, no formulas.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A pseudonym has 16 digits, a whole HMAC-SHA256 64.
_CASE_HASH = re.compile(r"[0-9a-f]{16,64}")

Role = Literal["answer", "shadow"]


@dataclass(frozen=True)
class AuditEntry:
    """One prediction: who asked, which model answered, and all that the answer was made of.

    ``key_id``: the API key, by its id. ``role``: "answer", or "shadow" for a challenger's that nobody was shown.
    ``case_hash``: a keyed hash of the case, None where the client has given none. ``version``: semantic, or the number.
    ``input_sha256``: of the bytes that were uploaded. ``scores``: each class, in [0, 1]. ``prediction_set`` and
    ``is_abstention``: None for a model without conformal sets. ``thresholds``: of each operating point.
    ``is_indeterminate``: the input was outside the model's domain.

    Raises ValueError for a hash that is none, as a raw identifier would be, or a request id with other than letters,
    digits and ``._:-``.
    """

    request_id: str
    key_id: str
    endpoint: str
    role: Role
    case_hash: str | None
    model: str
    version: str
    package_digest: str
    engine: str
    input_sha256: str
    scores: dict[str, float]
    prediction_set: tuple[str, ...] | None
    thresholds: dict[str, float]
    is_abstention: bool | None
    is_indeterminate: bool
    latency_ms: float

    def __post_init__(self) -> None:
        """Refuse what must never stand in a log."""
        # The values themselves are not told: errors are logged, too.
        if not _REQUEST_ID.fullmatch(self.request_id):
            raise ValueError("request_id: expected up to 128 letters, digits, dots, colons, dashes or underscores.")
        if not _SHA256.fullmatch(self.input_sha256):
            raise ValueError("input_sha256: expected 64 hexadecimal digits.")
        if self.case_hash is not None and not _CASE_HASH.fullmatch(self.case_hash):
            raise ValueError("case_hash: expected 16 to 64 hexadecimal digits, and never the identifier itself.")


def render_entry(entry: AuditEntry) -> str:
    """Return an entry as canonical JSON; ValueError for a score that is NaN or infinite."""
    return canonical_json(vars(entry))
