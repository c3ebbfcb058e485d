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
from urllib.parse import urlsplit

import sqlalchemy
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag
from mlflow.entities.model_registry.model_version_stages import STAGE_PRODUCTION, STAGE_STAGING, get_canonical_stage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_CONFLICT,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.store.db.db_types import SQLITE
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.search_utils import SearchModelUtils
from mlflow.utils.validation import _validate_model_version
from sqlalchemy.orm import Session, sessionmaker

from medvision.errors import (
    ConfigInvalid,
    GateFailed,
    MedvisionError,
    PromotionConflict,
    TrackingUnavailable,
    TryAgainLater,
)
from medvision.registry.ledger import CHALLENGER, CHAMPION, PROMOTIONS, was_champion
from medvision.registry.model_files import find_model, model_id
from medvision.registry.registrar import Registrar
from medvision.registry.requests import LEDGER_TAG, TAG, parse_request
from medvision.registry.reserved import check_alias, check_alias_is_plain, check_given, check_not_prompt, check_tags
from medvision.registry.rows import ALIASES, lock_model, make_ledger_table, read_entries, read_holders, read_texts

SCHEME = "medvision+"
_STAGES = {STAGE_STAGING: CHALLENGER, STAGE_PRODUCTION: CHAMPION}
# Whoever waits for a lock longer has lost.
_BUSY_TIMEOUT_MS = 5000
# SQLite says it in words, PostgreSQL by a code: no order of the transactions, a deadlock, a lock that is not to be had.
_LOCKED, _LOCK_STATES = re.compile("locked|busy"), ("40001", "40P01", "55P03")
# The largest that the database can hold.
_LAST_NUMBER = 2**31 - 1

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
    # The one at which a client may well try again: nothing was refused.
    if isinstance(error, TryAgainLater):
        return int(TEMPORARILY_UNAVAILABLE)
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
        check_tags([tag.key for tag in tags or ()])
        return super().create_registered_model(name, tags, description, deployment_job_id)

    @_answering
    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a registered model, unless there is a ledger under either name: it would be left behind."""
        with self._writing(name) as session:
            _check_renaming(session, name, new_name)
            return super().rename_registered_model(name, new_name)

    @_answering
    def delete_registered_model(self, name: str) -> None:
        """Delete a registered model, unless its ledger tells of promotions or approvals."""
        with self._writing(name) as session:
            _check_deletion(session, name)
            super().delete_registered_model(name)

    @_answering
    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a registered model; reserved ones are refused."""
        check_tags([tag.key])
        check_not_prompt(tag.key)
        super().set_registered_model_tag(name, tag)

    @_answering
    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a registered model; reserved ones are refused."""
        check_tags([key])
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
        semantic = check_given([(tag.key, tag.value) for tag in tags or ()])
        source, place, run_id = self._resolve(source, run_id, model_id)
        proof = self._registrar.prove(name, source)
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
            # No reason: nobody has said why.
            self._registrar.archive(name, number, meaning=f"Stage {get_canonical_stage(stage)} was set.")
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
        check_tags([tag.key])
        check_not_prompt(tag.key)
        super().set_model_version_tag(name, version, tag)

    @_answering
    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag of a version; reserved ones are refused."""
        check_tags([key])
        super().delete_model_version_tag(name, version, key)

    @_answering
    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Give a version an alias; champion and challenger are promotions."""
        check_alias(alias)
        check_alias_is_plain(alias)
        if alias in ALIASES:
            self._registrar.promote(name, _number(version), alias, reason=f"Alias {alias} was set.")
        else:
            super().set_registered_model_alias(name, alias, version)

    @_answering
    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias; without champion or challenger, their version is archived."""
        check_alias(alias)
        if alias not in ALIASES:
            super().delete_registered_model_alias(name, alias)
            return
        with self._reading() as session:
            self._get_registered_model(session, name)
            holder = read_holders(session, name).get(alias)
        if holder is not None:
            self._registrar.archive(name, holder, meaning=f"Alias {alias} was deleted.")

    def _resolve(self, source: str, run_id: str | None, id_: str | None) -> tuple[str, str, str | None]:
        """Return the source of a version, where its files are, and its run.

        MLflow would look a logged model up by a tracking URI that is global to the process.
        """
        found = model_id(source) or id_
        if found is None:
            return source, self._place(source), run_id
        model = find_model(found, self._registrar.tracking_uri)
        # The UI may name the place of a logged model's files.
        if model_id(source) is None and source != model.artifact_location:
            return source, self._place(source), run_id
        return f"models:/{found}", model.artifact_location, run_id or model.source_run_id

    def _place(self, source: str) -> str:
        """Return where the files of a source are; ConfigInvalid if it names another version, and there is none."""
        if urlsplit(source).scheme != "models":
            return source
        try:
            parsed = _parse_model_uri(source)
            return str(self.get_model_version_download_uri(parsed.name, parsed.version))
        except (MlflowException, TypeError, ValueError) as error:
            raise ConfigInvalid(
                f"Expected a source such as models:/m-... or models:/NAME/1; found {source!r}: {error}"
            ) from None

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
            except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError) as error:
                session.rollback()
                raise _explain(name, error) from None
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


def _explain(name: str, error: sqlalchemy.exc.DBAPIError) -> MedvisionError:
    """Return what it means that the database has refused to write: somebody else was quicker, or it is not well."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    is_lock = state in _LOCK_STATES or _LOCKED.search(str(error.orig)) is not None
    if isinstance(error, sqlalchemy.exc.IntegrityError) or is_lock:
        return PromotionConflict(
            f"The registry was changed by somebody else at the same time. Look at what has become of {name}, "
            f"with medvision history {name}, and try again."
        )
    return TrackingUnavailable(
        f"The registry's database could not write: {error.orig}. Nothing was changed. Once it is well, try again."
    )


def _number(version: str) -> int:
    number = int(_validate_model_version(version))
    if number > _LAST_NUMBER:
        raise ConfigInvalid(f"Expected the number of a version, {_LAST_NUMBER} at most; found {number}.")
    return number


def _asked_for_ledger(filter_string: str | None) -> str | None:
    """Return the name of the model whose ledger a search asks for."""
    if LEDGER_TAG not in (filter_string or ""):
        return None
    parts = SearchModelUtils.parse_search_filter(filter_string)
    if not any(part["type"] == "tag" and part["key"] == LEDGER_TAG for part in parts):
        return None
    return next((str(part["value"]) for part in parts if part["key"] == "name" and part["comparator"] == "="), None)


def _check_renaming(session: Session, name: str, new_name: str) -> None:
    for each in (name, new_name):
        if read_texts(session, each):
            raise GateFailed(
                f"{name} can't be renamed to {new_name}. Rule: history. Required: two names without a ledger, which "
                f"is kept by name. Found: a ledger of {each}. Next: medvision register, under the name {new_name}"
            )


def _check_deletion(session: Session, name: str) -> None:
    if any(entry.action in (*PROMOTIONS, "approve") for entry in read_entries(session, name)):
        raise GateFailed(
            f"{name} can't be deleted. Rule: history. Required: a model that was never promoted, nor approved. Found: "
            f"promotions or approvals in its ledger. Next: medvision archive {name}/VERSION, which takes a version out "
            "of use and keeps the proof"
        )
