"""Register a model package as a version of a registered model, with a semantic version of its own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvision.errors import ConfigInvalid, GateFailed, VersionConflict
from medvision.records import Evaluation, Verdict
from medvision.registry.answers import reaching
from medvision.registry.description import describe_version, own_text
from medvision.registry.gate import ENVELOPE, VERDICTS
from medvision.registry.names import SEMANTIC, version_alias
from medvision.registry.requests import LEDGER_TAG, TAG, is_reserved, render_request
from medvision.tracking.mlflow_sink import without_credentials
from medvision.validation.gate import evaluation_fingerprint
from medvision.validation.policy import Policy

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

# The gate sets them, and nobody else can.
_DIGEST_TAG, _VERDICT_TAG = "medvision.package_digest", "medvision.verdict"


@dataclass(frozen=True)
class Registration:
    """A version in the registry; ``verdict`` is passed, failed, insufficient_evidence, or none."""

    name: str
    number: int
    version: str
    alias: str
    uri: str
    verdict: str


@dataclass(frozen=True)
class Candidate:
    """A package that is to be registered, with its evaluation and the verdict on it, where there are any.

    ``files`` are added to its logged model, by their place there: the signed verdict and the reports. ``pages`` are
    what the UI can show of the run ``run_id``, path by title.
    """

    name: str
    digest: str
    verdict: Verdict | None
    evaluation: Evaluation | None
    files: Mapping[str, Path]
    run_id: str | None = None
    pages: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return what the verdict says; none if there is none."""
        return self.verdict.state if self.verdict else "none"


def check_verdict(
    verdict: Verdict, *, package_digest: str, evaluation: Evaluation, policy: Policy, test_fingerprint: str | None
) -> None:
    """Raise GateFailed unless a signed verdict is passed, and is about what is at hand: nothing older, nothing else.

    ``test_fingerprint`` is that of the test set that was locked, None if none was.
    """
    again = "Run: medvision evaluate, then medvision validate."
    if verdict.package_digest != package_digest:
        raise GateFailed(
            f"The verdict is about package {verdict.package_digest[:12]}, but the package at hand is "
            f"{package_digest[:12]}. {again}"
        )
    if verdict.test_fingerprint != test_fingerprint:
        raise GateFailed(f"The verdict is about another test set than the one that was locked. {again}")
    if verdict.evaluation_fingerprint != evaluation_fingerprint(evaluation):
        raise GateFailed(f"The evaluation has changed since it was judged. {again}")
    if verdict.policy_fingerprint != policy.fingerprint:
        raise GateFailed(
            f"The rules of policy {policy.name} have changed since the verdict of {verdict.made_at}. "
            "Run: medvision validate"
        )
    if not verdict.passed:
        open_rules = "; ".join(outcome.message for outcome in verdict.outcomes if not outcome.passed)
        raise GateFailed(f"{verdict.model} did not pass its medical validation and is not registered: {open_rules}")


def check_semantic(version: str | None) -> None:
    """Raise ConfigInvalid unless ``version`` is a semantic version, or None."""
    if version is not None and not SEMANTIC.fullmatch(version):
        raise ConfigInvalid(f"--version expects MAJOR.MINOR.PATCH, for example 1.0.0; found {version!r}.")


def envelope_place(verdict: Verdict) -> str:
    """Return where a signed verdict lies among the files of its model: one a policy."""
    return f"{VERDICTS}/{verdict.policy}{ENVELOPE}"


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise ConfigInvalid for a tag that the gate itself sets."""
    for name in tags:
        if is_reserved(name):
            raise ConfigInvalid(f"--tags {name}: it is set by the registry itself. Use another name.")


@dataclass(frozen=True)
class Registry:
    """Where runs are recorded, and where versions are registered; both answer with TrackingUnavailable if away."""

    tracking_uri: str
    registry_uri: str

    def register(
        self,
        candidate: Candidate,
        model_id: str,
        *,
        version: str | None = None,
        text: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Registration:
        """Register a logged model under the candidate's name, with its files.

        Parameters
        ----------
        version: semantic version; the next minor one, from 1.0.0, if None.
        text: what the user has to say of it.

        Raises
        ------
        ConfigInvalid: ``version`` is no semantic version.
        VersionConflict: it is taken.
        GateFailed: the registry refuses.
        """
        check_semantic(version)
        with self._client() as client:
            _require_gate(client, self.registry_uri)
            chosen = _choose(version, _taken(client, candidate.name), candidate.name)
            model = client.get_logged_model(model_id)
            _add_files(client, model_id, candidate.files)
            created = _create(
                client,
                candidate.name,
                chosen,
                source=f"models:/{model_id}",
                run_id=model.source_run_id,
                model_id=model_id,
                # It is there at once.
                await_creation_for=0,
                tags={"version": chosen, **(tags or {})},
                description=_describe(client, candidate, model, text),
            )
        return _registration(created, chosen, candidate.state)

    def find(self, candidate: Candidate) -> RegisteredVersion | None:
        """Return the newest version that was made of this package; None if there is none."""
        with self._client() as client:
            found = client.search_model_versions(
                f"name = '{candidate.name}' AND tags.`{_DIGEST_TAG}` = '{candidate.digest}'", max_results=1000
            )
        newest = max(found, key=lambda version: int(version.version), default=None)
        if newest is None:
            return None
        state = newest.tags.get(_VERDICT_TAG, "none")
        registration = _registration(newest, newest.tags.get("version", ""), state)
        return RegisteredVersion(registration, newest.source or "", newest.description or "")

    def attach(
        self,
        candidate: Candidate,
        registered: RegisteredVersion,
        *,
        text: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Registration:
        """Add the candidate's files to a version that is registered already, and let the gate read the verdict.

        Raises GateFailed: the registry refuses.
        """
        with self._client() as client:
            _require_gate(client, self.registry_uri)
            model = client.get_logged_model(registered.source.removeprefix("models:/"))
            _add_files(client, model.model_id, candidate.files)
            name, number = registered.registration.name, str(registered.registration.number)
            client.set_model_version_tag(name, number, TAG, render_request("attest"))
            for tag, value in (tags or {}).items():
                client.set_model_version_tag(name, number, tag, value)
            description = _describe(client, candidate, model, text or own_text(registered.description))
            version = client.update_model_version(name, number, description)
        return _registration(version, registered.registration.version, candidate.state)

    @contextlib.contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        from mlflow import MlflowClient

        with reaching(self.tracking_uri, again="register"):
            yield MlflowClient(self.tracking_uri, self.registry_uri)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version that is registered already, and the logged model that it was made of."""

    registration: Registration
    source: str
    description: str


def _require_gate(client: MlflowClient, place: str) -> None:
    """Raise ConfigInvalid for a registry without the gate, which would keep any version, and a request as a mere tag.

    Asked for the ledger of a model that is not there, a gate says so; a plain registry finds nothing.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.search_registered_models(f"name = 'no such model' AND tag.`{LEDGER_TAG}` = 'all'")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if not found:
        raise ConfigInvalid(
            f"The registry at {without_credentials(place)} has no gate: nothing is registered there. Start the server "
            "with: medvision ui"
        )


def _taken(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the semantic versions of a registered model, with their numbers; make the model if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return {found.tags["version"]: found.version for found in versions if "version" in found.tags}


def _choose(version: str | None, taken: dict[str, str], name: str) -> str:
    if version is None:
        # Whoever writes past the gate may call a version as he likes.
        released = [v for v in taken if SEMANTIC.fullmatch(v)]
        newest = max((tuple(int(part) for part in v.split(".")) for v in released), default=None)
        return f"{newest[0]}.{newest[1] + 1}.0" if newest else "1.0.0"
    if version in taken:
        raise VersionConflict(
            f"{name} {version} is registered already, as number {taken[version]}. Choose another --version."
        )
    return version


def _create(client: MlflowClient, name: str, version: str, **options: Any) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        return client.create_model_version(name, **options)
    except MlflowException as error:
        if error.error_code != "RESOURCE_CONFLICT":
            raise
        # Somebody else was quicker.
        raise VersionConflict(f"{name} {version} could not be registered: {error.message}") from None


def _add_files(client: MlflowClient, model_id: str, files: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for place, path in files.items():
            target = Path(folder, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if files:
            client.log_model_artifacts(model_id, folder)


def _describe(client: MlflowClient, candidate: Candidate, model: LoggedModel, text: str) -> str:
    # Relative, so that the links are right wherever the UI is. It has an address for a file of a run, and none for one
    # of a logged model.
    links = {}
    if candidate.run_id is not None:
        experiment_id = client.get_run(candidate.run_id).info.experiment_id
        run = f"#/experiments/{experiment_id}/runs/{candidate.run_id}/artifacts"
        links = {title: f"{run}/{path}" for title, path in candidate.pages.items()}
    links["All files"] = f"#/experiments/{model.experiment_id}/models/{model.model_id}/artifacts"
    return describe_version(text, candidate.verdict, candidate.evaluation, links)


def _registration(created: ModelVersion, version: str, verdict: str) -> Registration:
    return Registration(
        name=created.name,
        number=int(created.version),
        version=version,
        alias=version_alias(version),
        uri=f"models:/{created.name}/{created.version}",
        verdict=verdict,
    )
