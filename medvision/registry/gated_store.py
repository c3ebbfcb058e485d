"""MLflow's model registry in a database, with the gate before every door by which a model could get into use.

MLflow finds it by the scheme of the registry's URI (``medvision+sqlite:///...``), in a client and in its server alike,
so that UI, REST and Python all come through here. Doors that lead nowhere near a promotion are MLflow's own.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag
from mlflow.entities.model_registry.model_version_stages import STAGE_PRODUCTION, STAGE_STAGING, get_canonical_stage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_CONFLICT
from mlflow.store.db.db_types import SQLITE
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.search_utils import SearchModelUtils
from mlflow.utils.validation import _validate_model_version
from sqlalchemy.orm import Session, sessionmaker

from medvision.errors import ConfigInvalid, GateFailed, MedvisionError, PromotionConflict
from medvision.registry.ledger import CHALLENGER, CHAMPION, PROMOTIONS, was_champion
from medvision.registry.model_files import find_model, model_id
from medvision.registry.registrar import Registrar
from medvision.registry.requests import LEDGER_TAG, TAG, parse_request
from medvision.registry.rows import ALIASES, lock_model, make_ledger_table, read_entries, read_holders, read_texts

SCHEME = "medvision+"
_VERSION_ALIAS = re.compile(r"v\d+-\d+-\d+", re.IGNORECASE)
# Written by the gate alone, beside all of medvision's.
_RESERVED = ("version", "test_accuracy", "test_balanced_accuracy")
_STAGES = {STAGE_STAGING: CHALLENGER, STAGE_PRODUCTION: CHAMPION}
# Whoever waits for a lock longer has lost.
_BUSY_TIMEOUT_MS = 5000

Method = TypeVar("Method", bound=Callable[..., Any])


def _answering(method: Method) -> Method:
    """Turn medvision's errors into MLflow's, with codes at which no client tries again for minutes."""

    @functools.wraps(method)
    def answer(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except MedvisionError as error:
            raise MlflowException(str(error), error_code=_code(error)) from None

    return answer  # type: ignore[return-value]


def _code(error: MedvisionError) -> int:
    if error.http_status == 409:
        return int(RESOURCE_CONFLICT)
    return int(INVALID_PARAMETER_VALUE if isinstance(error, ConfigInvalid) else PERMISSION_DENIED)


class GatedStore(SqlAlchemyStore):
    """MLflow's registry store on ``medvision+sqlite:///...`` or ``medvision+postgresql://...``."""

    def __init__(
        self, store_uri: str | None = None, tracking_uri: str | None = None, read_db_uri: str | None = None
    ) -> None:
        # Of the thread: MLflow's own methods, called within a transaction of the gate's, take part in it.
        self._thread = threading.local()
        super().__init__(_plain(store_uri), read_db_uri=_plain(read_db_uri))
        self._mlflow_session, self.ManagedSessionMaker = self.ManagedSessionMaker, self._session
        make_ledger_table(self.engine)
        self._registrar = Registrar(self._reading, self._writing, self._get_sql_model_version, _plain(tracking_uri))

    @_answering
    def create_registered_model(
        self,
        name: str,
        tags: Sequence[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Create a registered model."""
        _check_tags(tag.key for tag in tags or ())
        return super().create_registered_model(name, tags, description, deployment_job_id)

    @_answering
    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a registered model, unless its ledger tells of promotions, which are told of the name."""
        with self._writing(name) as session:
            _check_unpromoted(session, name, "renamed")
            return super().rename_registered_model(name, new_name)

    @_answering
    def delete_registered_model(self, name: str) -> None:
        """Delete a registered model, unless its ledger tells of promotions."""
        with self._writing(name) as session:
            _check_unpromoted(session, name, "deleted")
            super().delete_registered_model(name)

    @_answering
    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a registered model; reserved ones are refused."""
        _check_tags([tag.key])
        super().set_registered_model_tag(name, tag)

    @_answering
    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a registered model; reserved ones are refused."""
        _check_tags([key])
        super().delete_registered_model_tag(name, key)

    @_answering
    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Search registered models; one that is asked for its ledger has the entries as tags, "000001" first."""
        name = _asked_for_ledger(filter_string)
        if name is None:
            return super().search_registered_models(filter_string, max_results, order_by, page_token)
        with self._reading() as session:
            self._get_registered_model(session, name)
            texts = read_texts(session, name)
        tags = [RegisteredModelTag(f"{sequence:06d}", text) for sequence, text in texts.items()]
        return PagedList([RegisteredModel(name, tags=tags)], None)

    @_answering
    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Sequence[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create a version, with what the gate knows of it, the alias of its semantic version, and its ledger entry."""
        semantic = next((tag.value for tag in tags or () if tag.key == "version"), None)
        _check_tags(tag.key for tag in tags or () if tag.key != "version")
        source, place, run_id = self._resolve(source, run_id, model_id)
        proof = self._registrar.prove(source)
        with self._writing(name) as session:
            if semantic is not None:
                self._registrar.check_semantic(session, name, semantic)
            made = super().create_model_version(name, place, run_id, tags, run_link, description)
            row = self._get_sql_model_version(session, name, made.version)
            row.source = source
            self._registrar.register(session, row, semantic, proof)
            return self.get_model_version(name, made.version)

    @_answering
    def copy_model_version(self, src_mv: ModelVersion, dst_name: str) -> ModelVersion:
        """Refuse a copy: what was proven of a version was proven under its name."""
        raise GateFailed(
            f"{src_mv.name} version {src_mv.version} can't be copied to {dst_name}. Rule: copies. Required: a version "
            f"made of a logged model. Found: a copy. Next: medvision register, under the name {dst_name}"
        )

    @_answering
    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Promote a version to the alias that a stage stands for; archive it at any other stage."""
        number, alias = _number(version), _STAGES.get(get_canonical_stage(stage))
        if alias is None:
            self._registrar.archive(name, number, reason=f"Stage {get_canonical_stage(stage)} was set.")
        else:
            self._registrar.promote(name, number, alias, reason=f"Stage {get_canonical_stage(stage)} was set.")
        return self.get_model_version(name, version)

    @_answering
    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version, unless it is in use or has ever been champion."""
        number = _number(version)
        with self._writing(name) as session:
            held = [alias for alias, holder in read_holders(session, name).items() if holder == number]
            if held or was_champion(read_entries(session, name), number):
                raise GateFailed(
                    f"{name} version {number} can't be deleted. Rule: history. Required: a version that is not in use "
                    f"and never was champion. Found: {f'the {held[0]}' if held else 'a former champion'}. "
                    f"Next: medvision archive {name}/{number}, which takes it out of use and keeps the proof"
                )
            super().delete_model_version(name, version)

    @_answering
    def set_model_version_tag(self, name: str, version: str, tag: ModelVersionTag) -> None:
        """Set a tag of a version; ``medvision.request`` asks the gate for something, others of its own are refused."""
        if tag.key == TAG:
            self._registrar.answer(name, _number(version), parse_request(tag.value))
            return
        _check_tags([tag.key])
        super().set_model_version_tag(name, version, tag)

    @_answering
    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag of a version; reserved ones are refused."""
        _check_tags([key])
        super().delete_model_version_tag(name, version, key)

    @_answering
    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Give a version an alias; champion and challenger are promotions."""
        _check_alias(alias)
        if alias in ALIASES:
            self._registrar.promote(name, _number(version), alias, reason=f"Alias {alias} was set.")
        else:
            super().set_registered_model_alias(name, alias, version)

    @_answering
    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias; without champion or challenger, their version is archived."""
        _check_alias(alias)
        if alias not in ALIASES:
            super().delete_registered_model_alias(name, alias)
            return
        with self._reading() as session:
            self._get_registered_model(session, name)
            holder = read_holders(session, name).get(alias)
        if holder is not None:
            self._registrar.archive(name, holder, reason=f"Alias {alias} was deleted.")

    def _resolve(self, source: str, run_id: str | None, id_: str | None) -> tuple[str, str, str | None]:
        """Return the source of a version, where its files are, and its run.

        MLflow would look a logged model up by a tracking URI that is global to the process.
        """
        found = model_id(source) or id_
        if found is None:
            return source, source, run_id
        model = find_model(found, self._registrar.tracking_uri)
        # The UI may name the place of a logged model's files.
        if model_id(source) is None and source != model.artifact_location:
            return source, source, run_id
        return f"models:/{found}", model.artifact_location, run_id or model.source_run_id

    @contextlib.contextmanager
    def _session(self, read_only: bool = True) -> Iterator[Session]:
        """Yield the session of the gate's transaction within one, else one of MLflow's."""
        current = getattr(self._thread, "session", None)
        if current is not None:
            yield current
        else:
            with self._mlflow_session(read_only=read_only) as session:
                yield session

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Session]:
        # Not from a replica, which may be behind, and not by MLflow's session, which makes any error an INTERNAL_ERROR.
        with sessionmaker(bind=self.engine)() as session:
            yield session

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Session]:
        """Yield a session whose changes are made all or none, and one model at a time; PromotionConflict if not now."""
        with sessionmaker(bind=self.engine)() as session:
            try:
                self._begin(session)
                lock_model(session, name)
                self._thread.session = session
                yield session
                session.commit()
            except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError):
                session.rollback()
                raise PromotionConflict(
                    f"The registry was changed by somebody else at the same time. Look at what has become of {name}, "
                    f"with medvision history {name}, and try again."
                ) from None
            except BaseException:
                session.rollback()
                raise
            finally:
                self._thread.session = None

    def _begin(self, session: Session) -> None:
        if self.db_type != SQLITE:
            return
        for statement in ("PRAGMA foreign_keys = ON", f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}"):
            session.execute(sqlalchemy.text(statement))
        # At once: a transaction that begins by reading could lose its place to another writer.
        session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))


def _plain(uri: str | None) -> str | None:
    return None if uri is None else uri.removeprefix(SCHEME)


def _number(version: str) -> int:
    return int(_validate_model_version(version))


def _asked_for_ledger(filter_string: str | None) -> str | None:
    """Return the name of the model whose ledger a search asks for."""
    if LEDGER_TAG not in (filter_string or ""):
        return None
    parts = SearchModelUtils.parse_search_filter(filter_string)
    if not any(part["type"] == "tag" and part["key"] == LEDGER_TAG for part in parts):
        return None
    return next((str(part["value"]) for part in parts if part["key"] == "name" and part["comparator"] == "="), None)


def _check_tags(keys: Any) -> None:
    """Refuse tags that only the gate writes, in whatever case."""
    for key in keys:
        if str(key).casefold().startswith("medvision.") or str(key).casefold() in _RESERVED:
            raise GateFailed(
                f"Tag {key} is the gate's own. Rule: reserved tags. Required: a tag that does not begin with "
                f"medvision. and is none of {', '.join(_RESERVED)}. Found: {key}. Next: medvision validate, then "
                "medvision register; the semantic version is given at registration, and stays"
            )


def _check_alias(alias: str) -> None:
    """Refuse the aliases of semantic versions, and what could be taken for champion or challenger."""
    if _VERSION_ALIAS.fullmatch(str(alias)):
        raise GateFailed(
            f"Alias {alias} can't be set or deleted. Rule: versions. Required: an alias that is no semantic version. "
            f"Found: {alias}, which is given once, at registration. Next: medvision register --version"
        )
    if str(alias).casefold() in ALIASES and alias not in ALIASES:
        raise ConfigInvalid(f"Alias {alias} could be taken for {alias.casefold()}: write it so, or choose another.")


def _check_unpromoted(session: Session, name: str, done: str) -> None:
    if any(entry.action in PROMOTIONS for entry in read_entries(session, name)):
        raise GateFailed(
            f"{name} can't be {done}. Rule: history. Required: a model that was never promoted. Found: promotions in "
            f"its ledger. Next: medvision archive {name}/VERSION, which takes a version out of use and keeps the proof"
        )
