"""The rows that the gate reads and writes in MLflow's registry, and its own table beside them, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModel,
    SqlRegisteredModelAlias,
)
from mlflow.utils.time import get_current_time_millis
from sqlalchemy import Column, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import Session

from medvision.errors import ConfigInvalid, GateFailed
from medvision.registry.ledger import CHALLENGER, CHAMPION, Entry, parse, read_chain, render, seal
from medvision.validation.keys import has_key, key_id, load_signing_key, make_key

ALIASES = (CHAMPION, CHALLENGER)
STAGES = {CHAMPION: "Production", CHALLENGER: "Staging"}
ARCHIVED = "Archived"

# Apart from MLflow's metadata: its migrations must not see it.
_LEDGER = Table(
    "medvision_ledger",
    MetaData(),
    Column("name", String(256), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
)


def make_ledger_table(engine: sqlalchemy.Engine) -> None:
    """Make the ledger's table unless it is there, also while another process does."""
    try:
        _LEDGER.create(engine, checkfirst=True)
    except sqlalchemy.exc.DBAPIError:
        if not sqlalchemy.inspect(engine).has_table(_LEDGER.name):
            raise


def read_texts(session: Session, name: str) -> dict[int, str]:
    """Return the ledger of a model as it stands in the database, unchecked."""
    query = sqlalchemy.select(_LEDGER.c.sequence, _LEDGER.c.entry).where(_LEDGER.c.name == name)
    return {int(sequence): str(text) for sequence, text in session.execute(query.order_by(_LEDGER.c.sequence))}


def read_entries(session: Session, name: str) -> list[Entry]:
    """Return the ledger of a model; LedgerBroken if an entry is missing or can't be read."""
    return read_chain(name, read_texts(session, name))


def append(session: Session, entry: Entry, state: Path, trusted: Mapping[str, Ed25519PublicKey]) -> Entry:
    """Write the next entry of a model's ledger, signed with the gate's key, which is made if there is none.

    Raises GateFailed where the last entry is of a key that is not trusted here: this is another project's registry;
    ConfigInvalid where the gate's own key is not trusted: its entry would break the ledger.
    """
    own = key_id(load_signing_key(state).public_key()) if has_key(state) else None
    if own is not None and own not in trusted:
        raise ConfigInvalid(
            f"The gate's own key {own[:16]} is not trusted in {state}: an entry that is signed with it would break the "
            f"ledger of {entry.name}. Run: medvision keys init, which writes the public key anew"
        )
    last = _last(session, entry.name)
    if last is not None and last.key_id and last.key_id not in trusted:
        raise GateFailed(
            f"The ledger of {entry.name} is signed by key {last.key_id[:16]}, which is not trusted in {state}: this is "
            "the registry of another project. Work in the project's own folder, or put the public key that `medvision "
            "keys show` prints there into keys/trusted/NAME.pub of the state folder here."
        )
    return append_anyway(session, entry, state)


def append_anyway(session: Session, entry: Entry, state: Path) -> Entry:
    """Write the next entry with the gate's key, whoever else has signed the ledger: a withdrawal can't wait."""
    if not has_key(state):
        make_key(state)
    sealed = seal(entry, _last(session, entry.name), load_signing_key(state))
    session.execute(_LEDGER.insert().values(name=sealed.name, sequence=sealed.sequence, entry=render(sealed)))
    return sealed


def read_aliases(session: Session, name: str) -> dict[str, int]:
    """Return all aliases of a model."""
    rows = session.query(SqlRegisteredModelAlias).filter(SqlRegisteredModelAlias.name == name)
    return {str(row.alias): int(row.version) for row in rows}


def read_holders(session: Session, name: str) -> dict[str, int]:
    """Return the versions that hold the aliases champion and challenger."""
    return {alias: version for alias, version in read_aliases(session, name).items() if alias in ALIASES}


def lock_model(session: Session, name: str) -> None:
    """Let no other transaction change this model meanwhile; SQLite locks the whole database already."""
    session.query(SqlRegisteredModel).filter(SqlRegisteredModel.name == name).with_for_update().first()


def move_alias(session: Session, row: SqlModelVersion, alias: str) -> None:
    """Give a version an alias, champion or challenger, and its stage; who loses it is archived."""
    replaced = read_aliases(session, str(row.name)).get(alias)
    drop_aliases(session, row)
    set_alias(session, row, alias)
    set_stage(row, STAGES[alias])
    if replaced not in (None, row.version):
        former = session.get(SqlModelVersion, {"workspace": row.workspace, "name": row.name, "version": replaced})
        # It may be gone: deleted past the gate.
        if former is not None and former.current_stage != STAGE_DELETED_INTERNAL:
            set_stage(former, ARCHIVED)
    session.flush()


def set_alias(session: Session, row: SqlModelVersion, alias: str) -> None:
    """Give a version an alias."""
    session.merge(SqlRegisteredModelAlias(workspace=row.workspace, name=row.name, alias=alias, version=row.version))


def drop_aliases(session: Session, row: SqlModelVersion) -> list[str]:
    """Take the aliases champion and challenger from a version; return those that it had."""
    had = session.query(SqlRegisteredModelAlias).filter(
        SqlRegisteredModelAlias.name == row.name,
        SqlRegisteredModelAlias.version == row.version,
        SqlRegisteredModelAlias.alias.in_(ALIASES),
    )
    aliases = []
    for alias in had.all():
        aliases.append(str(alias.alias))
        session.delete(alias)
    session.flush()
    return aliases


def set_stage(row: SqlModelVersion, stage: str) -> None:
    """Set the stage of a version."""
    now = get_current_time_millis()
    row.current_stage = stage  # type: ignore[assignment]
    row.last_updated_time = now
    row.registered_model.last_updated_time = now


def has_tags(session: Session, row: SqlModelVersion, tags: Mapping[str, str | None]) -> bool:
    """Tell whether a version has these tags, and none of those that are None."""
    rows = session.query(SqlModelVersionTag).filter(
        SqlModelVersionTag.name == row.name, SqlModelVersionTag.version == row.version
    )
    found = {str(tag.key): str(tag.value) for tag in rows}
    return all(found.get(key) == value for key, value in tags.items())


def write_tags(session: Session, row: SqlModelVersion, tags: Mapping[str, str | None]) -> None:
    """Set tags of a version; one that is None is deleted."""
    for key, value in tags.items():
        place = {"workspace": row.workspace, "key": key, "name": row.name, "version": row.version}
        if value is not None:
            session.merge(SqlModelVersionTag(**place, value=value))
            continue
        present = session.get(SqlModelVersionTag, place)
        if present is not None:
            session.delete(present)
    session.flush()


def _last(session: Session, name: str) -> Entry | None:
    """Return the last entry; what can't be read is followed all the same: withdrawing a model must be possible."""
    query = sqlalchemy.select(_LEDGER.c.sequence, _LEDGER.c.entry).where(_LEDGER.c.name == name)
    row = session.execute(query.order_by(_LEDGER.c.sequence.desc()).limit(1)).first()
    if row is None:
        return None
    number = int(row.sequence)
    found = parse(str(row.entry)) or Entry(name=name, sequence=number, time="", who="", action="", version=0)
    return replace(found, sequence=number)
