"""The ledger of a registered model: who did what to which version, when, why and on what evidence.

One hash chain a model. Each entry carries the hash of the one before and is signed by the gate, so that an entry which
is edited, deleted, moved or added by another hand is named. A tail that is cut off leaves a chain whole: it is found
because the aliases of the registry are not those that the ledger tells of (``verification``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from medvision.errors import LedgerBroken
from medvision.files import fingerprint
from medvision.validation.keys import key_id

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTIONS = ("promote", "rollback")
MOVES = (*PROMOTIONS, "archive")
_FIRST = "0" * 64
_SEALS = ("hash", "signature")


@dataclass(frozen=True)
class Entry:
    """One act: ``version`` and ``replaced`` are numbers of versions, ``alias`` is the one that was set or taken away.

    ``package_digest``, ``verdict_sha256``, ``policy`` and ``test_fingerprint`` are the evidence: the package, the
    signed envelope of its verdict, under which policy and on which test set; ``code_sha256`` is the code that loads the
    package. Empty where there is none.
    """

    name: str
    sequence: int
    time: str
    who: str
    action: str
    version: int
    alias: str = ""
    replaced: int | None = None
    package_digest: str = ""
    verdict_sha256: str = ""
    policy: str = ""
    test_fingerprint: str = ""
    code_sha256: str = ""
    meaning: str = ""
    reason: str = ""
    previous: str = _FIRST
    key_id: str = ""
    hash: str = ""
    signature: str = ""


def seal(entry: Entry, last: Entry | None, key: Ed25519PrivateKey) -> Entry:
    """Return an entry as the next one after the ``last``: dated, chained and signed."""
    entry = replace(
        entry,
        sequence=last.sequence + 1 if last else 1,
        time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        previous=last.hash if last else _FIRST,
        key_id=key_id(key.public_key()),
    )
    digest = _hash(entry)
    return replace(entry, hash=digest, signature=key.sign(bytes.fromhex(digest)).hex())


def render(entry: Entry) -> str:
    """Return the text of an entry."""
    return json.dumps(asdict(entry), sort_keys=True, ensure_ascii=False)


def parse(text: str) -> Entry | None:
    """Return the entry of a text; None unless the text is exactly what was written of one."""
    try:
        values: dict[str, Any] = json.loads(text)
        entry = Entry(**values)
        is_typed = all(_is_typed(field.type, values[field.name]) for field in fields(Entry))
        return entry if is_typed and render(entry) == text else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def read_chain(name: str, texts: Mapping[int, str]) -> list[Entry]:
    """Return the entries of a model by their texts; LedgerBroken names the first that is no entry, or missing."""
    entries = []
    for number in range(1, max(texts, default=0) + 1):
        if number not in texts:
            raise _broken(name, number, "is missing")
        entry = parse(texts[number])
        if entry is None or (entry.name, entry.sequence) != (name, number):
            raise _broken(name, number, "was edited or moved")
        entries.append(entry)
    return entries


def check_chain(entries: Sequence[Entry], trusted: Mapping[str, Ed25519PublicKey]) -> None:
    """Raise LedgerBroken, naming the first bad entry, unless each is as a trusted key has signed it, in its place."""
    previous = _FIRST
    for number, entry in enumerate(entries, start=1):
        if entry.sequence != number or entry.previous != previous:
            raise _broken(entry.name, number, "was deleted or moved")
        if entry.hash != _hash(entry):
            raise _broken(entry.name, number, "was edited")
        if entry.key_id not in trusted:
            raise LedgerBroken(
                f"Entry {number} of the ledger of {entry.name} is signed by key {entry.key_id[:16]}, which is not "
                "trusted here. If it is the gate's, put the public key that `medvision keys show` prints on the gate's "
                "machine into keys/trusted/NAME.pub of the state folder here."
            )
        if not _is_signed(entry, trusted[entry.key_id]):
            raise _broken(entry.name, number, "is not signed by the key that it names")
        previous = entry.hash


def holders(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the versions that hold the aliases champion and challenger, as the ledger tells."""
    held: dict[str, int] = {}
    for entry in entries:
        if entry.action in MOVES:
            held = {alias: version for alias, version in held.items() if version != entry.version}
            held.pop(entry.alias, None)
        if entry.action in PROMOTIONS:
            held[entry.alias] = entry.version
    return held


def champions(entries: Iterable[Entry]) -> list[int]:
    """Return the versions that a rollback can reach, the present champion last; what was withdrawn is not in it."""
    line: list[int] = []
    for entry in entries:
        if entry.action == "archive":
            line = [version for version in line if version != entry.version]
        elif entry.action == "rollback":
            line = line[: line.index(entry.version) + 1] if entry.version in line else [entry.version]
        elif entry.action == "promote" and entry.alias == CHAMPION:
            line = [*(version for version in line if version != entry.version), entry.version]
    return line


def rollback_target(entries: Sequence[Entry]) -> int | None:
    """Return the last champion before the present one, or before the one that was withdrawn; None without one."""
    line, present = champions(entries), holders(entries).get(CHAMPION)
    before = [version for version in line if version != present]
    return before[-1] if before else None


def was_champion(entries: Sequence[Entry], version: int) -> bool:
    """Tell whether a version ever was champion."""
    return any(entry.action in PROMOTIONS and entry.alias == CHAMPION and entry.version == version for entry in entries)


def who_was_champion(entries: Iterable[Entry], at: datetime) -> int | None:
    """Return the version that was champion at a time (aware of its zone); None if there was none."""
    return holders(entry for entry in entries if datetime.fromisoformat(entry.time) <= at).get(CHAMPION)


def approvals(entries: Iterable[Entry], version: int, package_digest: str, verdict_sha256: str) -> list[Entry]:
    """Return the approvals of a version since it was last withdrawn, the first of each user.

    Only those of this very package on this very verdict count: what was seen is what was approved.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        if (entry.action, entry.version) == ("archive", version):
            found.clear()
        elif (entry.action, entry.version, entry.package_digest, entry.verdict_sha256) == (
            "approve", version, package_digest, verdict_sha256,
        ):  # fmt: skip
            found.setdefault(entry.who, entry)
    return list(found.values())


def champion_to_beat(entries: Iterable[Entry]) -> Entry | None:
    """Return the promotion of the champion that the next one is compared with: the present one, or the last one.

    None before the first, and after one that was withdrawn for a reason, which then stands in the ledger.
    """
    found: Entry | None = None
    for entry in entries:
        if entry.action in PROMOTIONS and entry.alias == CHAMPION:
            found = entry
        elif entry.action == "archive" and entry.reason.strip() and found and found.version == entry.version:
            found = None
    return found


def last_promotion(entries: Sequence[Entry], version: int) -> Entry | None:
    """Return the last promotion of a version to champion, or None."""
    made = [entry for entry in entries if entry.action in PROMOTIONS and entry.version == version]
    return next((entry for entry in reversed(made) if entry.alias == CHAMPION), None)


def first_test_set(entries: Iterable[Entry]) -> str | None:
    """Return the fingerprint of the test set of a model's first promotion; None before it."""
    return next((entry.test_fingerprint for entry in entries if entry.action == "promote"), None)


def _hash(entry: Entry) -> str:
    return fingerprint({name: value for name, value in asdict(entry).items() if name not in _SEALS})


def _is_signed(entry: Entry, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(entry.signature), bytes.fromhex(entry.hash))
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_typed(kind: object, value: Any) -> bool:
    if kind == "str":
        return isinstance(value, str)
    return (kind == "int | None" and value is None) or (isinstance(value, int) and not isinstance(value, bool))


def _broken(name: str, number: int, what: str) -> LedgerBroken:
    return LedgerBroken(
        f"Entry {number} of the ledger of {name} {what}: what was promoted is no longer proven. "
        "Restore the registry's database from a backup."
    )
