"""Register a validated model package as a version of a registered model, with a semantic version of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from medvision.errors import ConfigInvalid, GateFailed, TrackingUnavailable, VersionConflict
from medvision.records import Evaluation, Verdict
from medvision.tracking.mlflow_sink import without_credentials
from medvision.validation.gate import evaluation_fingerprint
from medvision.validation.policy import Policy

# https://semver.org, without pre-release and build: a registered model is a release.
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


@dataclass(frozen=True)
class Registration:
    """A version in the registry."""

    name: str
    number: int
    version: str
    alias: str
    uri: str


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
    if version is not None and not _SEMANTIC.fullmatch(version):
        raise ConfigInvalid(f"--version expects MAJOR.MINOR.PATCH, for example 1.0.0; found {version!r}.")


def register_version(
    tracking_uri: str, *, model_id: str, run_id: str, version: str | None, verdict: Verdict, evaluation: Evaluation
) -> Registration:
    """Register a logged model under the verdict's name.

    Parameters
    ----------
    version: semantic version; the next minor one, from 1.0.0, if None.

    Raises
    ------
    ConfigInvalid: ``version`` is no semantic version.
    VersionConflict: it is taken.
    TrackingUnavailable: the registry does not answer.
    """
    from mlflow import MlflowClient

    check_semantic(version)
    client = MlflowClient(tracking_uri, tracking_uri)
    with reaching(tracking_uri):
        taken = _taken(client, verdict.model)
        chosen = _choose(version, taken, verdict.model)
        created = client.create_model_version(
            verdict.model,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags=_tags(chosen, verdict, evaluation),
            description=_describe(chosen, evaluation),
        )
        alias = "v" + chosen.replace(".", "-")
        client.set_registered_model_alias(verdict.model, alias, created.version)
    return Registration(
        verdict.model, int(created.version), chosen, alias, f"models:/{verdict.model}/{created.version}"
    )


@contextlib.contextmanager
def reaching(tracking_uri: str, *, again: str = "register") -> Iterator[None]:
    """Turn the many ways in which a registry does not answer into one error."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 503
        if 400 <= status < 500:
            raise
        raise TrackingUnavailable(
            f"The registry at {without_credentials(tracking_uri)} does not answer. "
            f"Once it is back, run: medvision {again}."
        ) from error


def _taken(client: object, name: str) -> dict[str, str]:
    """Return the semantic versions of a registered model, with their numbers; make the model if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)  # type: ignore[attr-defined]
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'", max_results=10_000)  # type: ignore[attr-defined]
    return {found.tags["version"]: found.version for found in versions if "version" in found.tags}


def _choose(version: str | None, taken: dict[str, str], name: str) -> str:
    if version is None:
        newest = max((tuple(int(part) for part in v.split(".")) for v in taken), default=None)
        return f"{newest[0]}.{newest[1] + 1}.0" if newest else "1.0.0"
    if version in taken:
        raise VersionConflict(
            f"{name} {version} is registered already, as number {taken[version]}. Choose another --version."
        )
    return version


def _tags(version: str, verdict: Verdict, evaluation: Evaluation) -> dict[str, str]:
    return {
        "version": version,
        "medvision.verdict": verdict.state,
        "medvision.policy": verdict.policy,
        "medvision.package_digest": verdict.package_digest,
        "medvision.split_fingerprint": verdict.split_fingerprint,
        "medvision.test_fingerprint": verdict.test_fingerprint,
        "medvision.policy_fingerprint": verdict.policy_fingerprint,
        "test_accuracy": f"{evaluation.overall.accuracy.value:.4f}",
        "test_balanced_accuracy": f"{evaluation.overall.balanced_accuracy.value:.4f}",
    }


def _describe(version: str, evaluation: Evaluation) -> str:
    accuracy = evaluation.overall.accuracy
    lines = [
        f"{evaluation.model} {version} passed medical validation on {evaluation.n:,} images of {evaluation.dataset}.",
        "",
        f"- accuracy {accuracy.value:.3f} (95 % CI {accuracy.low:.3f}-{accuracy.high:.3f})",
    ]
    lines += [
        f"- {figure.name}: sensitivity {figure.sensitivity.value:.3f} "
        f"({figure.sensitivity.low:.3f}-{figure.sensitivity.high:.3f}), specificity {figure.specificity.value:.3f} "
        f"({figure.specificity.low:.3f}-{figure.specificity.high:.3f})"
        for figure in evaluation.per_class
    ]
    return "\n".join(lines)
