"""Checklists of the field, held against the files of an evidence archive: supported, missing, or for people to write.

The lists are data (``templates/checklists``): numbers as published, texts in our words, and for each item the facts
that support it. A fact is there if its file is, and has something in the field that is asked for. Nothing is judged
beyond that: whether an item is answered well is for a person to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from medvision.documents.pages import TEMPLATES

State = Literal["supported", "missing", "yours"]

CHECKLISTS = ("claim", "tripod_ai", "stard_ai", "gmlp")
_FOLDER = TEMPLATES / "checklists"


@dataclass(frozen=True)
class Fact:
    """Something that a file can show; ``person``: only a person can say it."""

    says: str
    file: str
    get: str
    field: str | None = None
    show: str | None = None
    person: bool = False


@dataclass(frozen=True)
class Support:
    """A file of the archive that supports an item, and the place that a person opens."""

    says: str
    file: str
    show: str


@dataclass(frozen=True)
class Lack:
    """What is missing for an item, and what to do about it."""

    says: str
    get: str
    person: bool


@dataclass(frozen=True)
class Answer:
    """An item of a checklist: its state, the files that support it, what is missing, and what people must write."""

    id: str
    section: str
    text: str
    state: State
    where: tuple[Support, ...]
    missing: tuple[Lack, ...]
    write: str


@dataclass(frozen=True)
class Checklist:
    """A published checklist with an answer to each of its items."""

    name: str
    title: str
    what: str
    source: str
    answers: tuple[Answer, ...]

    def count(self, state: State) -> int:
        """Return how many items are in a state."""
        return sum(answer.state == state for answer in self.answers)


def answer_checklists(files: Mapping[str, bytes]) -> tuple[Checklist, ...]:
    """Hold every checklist against the files of an archive, by their path in it."""
    facts = {name: Fact(**values) for name, values in _read("facts").items()}
    records = _Records(files)
    return tuple(_answer(name, _read(name), facts, records) for name in CHECKLISTS)


def _read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def _answer(name: str, listed: dict[str, Any], facts: Mapping[str, Fact], records: _Records) -> Checklist:
    answers = tuple(
        _answer_item(section["title"], item, [facts[fact] for fact in item.get("facts", ())], records)
        for section in listed["sections"]
        for item in section["items"]
    )
    return Checklist(name, listed["title"], listed["what"], listed["source"], answers)


def _answer_item(section: str, item: dict[str, Any], facts: list[Fact], records: _Records) -> Answer:
    where = {fact: records.find(fact) for fact in facts}
    missing = tuple(Lack(fact.says, fact.get, fact.person) for fact in facts if where[fact] is None)
    write = item.get("write", "")
    is_yours = bool(write) or any(lack.person for lack in missing)
    return Answer(
        id=item["id"],
        section=section,
        text=item["text"],
        state="yours" if is_yours else "missing" if missing else "supported",
        where=tuple(support for support in where.values() if support),
        missing=missing,
        write=write,
    )


class _Records:
    """The JSON files of an archive, read once."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._read: dict[str, Any] = {}

    def find(self, fact: Fact) -> Support | None:
        """Return where a fact stands; None if it does not."""
        # A folder stands for the files in it.
        file = next((name for name in sorted(self._files) if name == fact.file or _is_in(name, fact.file)), None)
        if file is None or (fact.field is not None and _is_empty(self._field(file, fact.field))):
            return None
        show = fact.show if fact.show and fact.show.partition("#")[0] in self._files else file
        return Support(fact.says, file, show)

    def _field(self, file: str, dotted: str) -> Any:
        if file not in self._read:
            self._read[file] = json.loads(self._files[file])
        value = self._read[file]
        for part in dotted.split("."):
            if isinstance(value, list):
                value = value[int(part)] if int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return value


def _is_in(name: str, folder: str) -> bool:
    return folder.endswith("/") and name.startswith(folder)


def _is_empty(value: Any) -> bool:
    # 0 is something that was found: a test set that nobody has looked at.
    return value is None or (isinstance(value, (str, list, dict)) and not value)
