"""Register a model that has passed its validation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.card import write_model_card
from pipelines.console import say
from pipelines.html import REPORT_FILE
from pipelines.models import (
    DETAILS_FILE,
    ENVELOPE_FILE,
    EVALUATION_FILE,
    PACKAGE,
    VERDICT_FILE,
    outputs_dir,
    results_dir,
    trained_package,
)
from pipelines.options import ConfigFile, Dataset, DatasetPath, Model, Policies, Set, Version, configure
from pipelines.runs import model_of_run
from pipelines.validate import load_case
from pipelines.verdict import load_signed_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvision.config import Config
    from medvision.records import Evaluation, PackageInfo, Verdict
    from medvision.registry.registration import Candidate, RegisteredVersion, Registration, Registry
    from medvision.tracking.recorder import Recorder

Description = Annotated[str | None, typer.Option(help="What there is to say of this version, beside its figures.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tags", help="KEY=VALUE, several separated by commas or blanks; repeatable.")
]
RunId = Annotated[
    str | None, typer.Option("--run-id", help="Register what this MLflow run trained, in place of --model.")
]
Unvalidated = Annotated[
    bool, typer.Option("--unvalidated", help="Store it without a passed verdict; it can't be promoted, and not serve.")
]


def register(
    model: Model = None,
    version: Version = None,
    description: Description = None,
    tags: Tags = None,
    run_id: RunId = None,
    unvalidated: Unvalidated = False,
    policies: Policies = None,
    dataset_path: DatasetPath = None,
    dataset: Dataset = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Registration:
    """Register a model that has passed its validation."""
    from medvision.registry.registration import check_semantic, check_tags
    from medvision.tracking.mlflow_sink import prepare
    from medvision.tracking.recorder import open_run

    settings = configure(config, dataset, set_, model=model, dataset_path=dataset_path)
    named = parse_tags(tags or [])
    check_semantic(version)
    check_tags(named)
    if run_id:
        prepare()
        settings = model_of_run(settings, run_id)
    with open_run(settings, step="register", name=f"register {settings.training.model}") as recorder:
        return run_register(
            settings,
            recorder,
            version=version,
            policies=policies,
            text=description or "",
            tags=named,
            unvalidated=unvalidated,
        )


def run_register(
    config: Config,
    recorder: Recorder,
    *,
    version: str | None = None,
    policies: Path | None = None,
    text: str = "",
    tags: dict[str, str] | None = None,
    unvalidated: bool = False,
) -> Registration:
    """Do the step inside a run; GateFailed without a signed and passed verdict on what is at hand, unless told."""
    from medvision.records import record_fingerprint
    from medvision.registry.logged_model import find_logged_model, holds
    from medvision.registry.registration import Candidate, Registry
    from medvision.tracking.mlflow_sink import registry_uri, tracking_uri

    package = trained_package(config)
    info, evaluation, verdict = _gather_unvalidated(config) if unvalidated else _gather(config, policies)
    digest, registry = record_fingerprint(info), Registry(tracking_uri(config), registry_uri(config))
    with tempfile.TemporaryDirectory() as folder:
        files = _gather_files(info, evaluation, verdict, config, Path(folder), version)
        pages = _record_pages(files, recorder)
        recorder.flush(config.tracking.drain_s)
        candidate = Candidate(info.name, digest, verdict, evaluation, files, recorder.run_id(), pages)
        registered = registry.find(candidate) if version is None else None
        if registered and holds(config, registered.source, digest):
            registration = _attach(candidate, registered, registry, config, text, tags or {})
        else:
            model_id = find_logged_model(config, recorder, package, info, digest)
            registration = registry.register(candidate, model_id, version=version, text=text, tags=tags)
            say(f"Registered {registration.name} {registration.version} as version {registration.number}")
    recorder.tags({"medvision.registered": registration.uri, "medvision.version": registration.version})
    _say_what_next(registration)
    return registration


def parse_tags(texts: Sequence[str]) -> dict[str, str]:
    """Return tags by name, of texts such as ``production=ready,site=A`` or ``production=ready site=A``."""
    from medvision.errors import ConfigInvalid

    tags = {}
    for assignment in " ".join(texts).replace(",", " ").split():
        name, sign, value = assignment.partition("=")
        if not (name and sign and value):
            raise ConfigInvalid(f"--tags expects KEY=VALUE, for example production=ready; found {assignment!r}.")
        tags[name] = value
    return tags


def _gather(config: Config, policies: Path | None) -> tuple[PackageInfo, Evaluation, Verdict]:
    """Return what is registered, once its verdict holds for what is at hand."""
    from medvision.errors import GateFailed
    from medvision.registry.registration import check_verdict
    from medvision.validation.integrity import check_metrics
    from medvision.validation.policy import load_policy
    from medvision.validation.test_ledger import locked_test_set

    verdict, case = load_signed_verdict(config), load_case(config)
    check_verdict(
        verdict,
        package_digest=case.digest,
        evaluation=case.evaluation,
        policy=load_policy(verdict.policy, policies),
        test_fingerprint=locked_test_set(config.dataset_dir),
    )
    edited = check_metrics(case.stated, case.evaluation)
    if edited is not None:
        raise GateFailed(f"{edited.message}. {edited.remedy}.")
    return case.info, case.evaluation, verdict


def _gather_unvalidated(config: Config) -> tuple[PackageInfo, Evaluation | None, Verdict | None]:
    """Return what is registered, with the evaluation and the verdict on this very package, if any."""
    from medvision.errors import DataInvalid, VerdictUntrusted
    from medvision.models.package import load_package
    from medvision.records import Evaluation, load_record, record_fingerprint

    info, _ = load_package(outputs_dir(config) / PACKAGE)
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    try:
        evaluation = load_record(Evaluation, results_dir(config) / EVALUATION_FILE)
        verdict = load_signed_verdict(config)
    except (DataInvalid, VerdictUntrusted) as error:
        say(f"!! {error}")
    digest = record_fingerprint(info)
    return (
        info,
        evaluation if evaluation and evaluation.package_digest == digest else None,
        verdict if verdict and verdict.package_digest == digest else None,
    )


def _gather_files(
    info: PackageInfo,
    evaluation: Evaluation | None,
    verdict: Verdict | None,
    config: Config,
    scratch: Path,
    version: str | None,
) -> dict[str, Path]:
    """Return what goes with the model, by its place among the model's files; none shows more than may be shared."""
    from medvision.registry.registration import envelope_place

    folder = results_dir(config)
    report = folder / REPORT_FILE if config.tracking.share_images else folder / "shareable" / REPORT_FILE
    paths = [*write_model_card(scratch, config, info, evaluation, verdict, version=version)]
    paths += [folder / EVALUATION_FILE, folder / DETAILS_FILE, report] if evaluation is not None else []
    paths += [folder / VERDICT_FILE] if verdict is not None else []
    files = {f"reports/{path.name}": path for path in paths if path.is_file()}
    if verdict is not None:
        files[envelope_place(verdict)] = folder / ENVELOPE_FILE
    return files


def _record_pages(files: dict[str, Path], recorder: Recorder) -> dict[str, str]:
    """Record what people read of a version in the run, where the UI can show it; return their paths by title."""
    from medvision.documents.model_card import CARD_HTML

    pages = {}
    for title, name in (("Evaluation report", REPORT_FILE), ("Model card", CARD_HTML)):
        if path := files.get(f"reports/{name}"):
            recorder.artifact(path, folder="reports")
            pages[title] = f"reports/{name}"
    return pages


def _attach(
    candidate: Candidate,
    registered: RegisteredVersion,
    registry: Registry,
    config: Config,
    text: str,
    tags: dict[str, str],
) -> Registration:
    """Attach a new verdict to the version that its package is, in place of a second version of the same.

    One that is not passed too: it is news of the version, which answers nobody from then on.
    """
    from medvision.registry.logged_model import has_file
    from medvision.registry.registration import envelope_place

    found = registered.registration
    say(f"This package is {found.name} {found.version} already, version {found.number}. For a second one: --version")
    if candidate.verdict is None:
        say("Without a verdict nothing is changed in it.")
        return found
    place = envelope_place(candidate.verdict)
    if has_file(config, registered.source, place, candidate.files[place]) and not (text or tags):
        say("It has this very verdict: there is nothing to do.")
        return found
    attached = registry.attach(candidate, registered, text=text, tags=tags)
    say(f"The verdict under policy {candidate.verdict.policy}, of {candidate.verdict.made_at}, was attached to it.")
    return attached


def _say_what_next(registration: Registration) -> None:
    if registration.verdict == "passed":
        say(f"Promote it: medvision promote {registration.name}/{registration.number} --to challenger")
        say(f'Serve it: mlflow models serve -m "{registration.uri}" --env-manager local -p 5001')
        return
    say(f"!! {registration.name} {registration.version} is NOT VALIDATED: it is stored, and that is all.")
    say("!! It can't be promoted, and answers nobody. Run: medvision validate, then medvision register")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(register)
