"""The sections of a model card: those of Mitchell et al. (Model Cards for Model Reporting, FAT* 2019).

What the model cards of the Coalition for Health AI ask for beside them stands in the section where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

from medvision.config import CardConfig
from medvision.data.lineage import SideSize
from medvision.documents.card_data import describe_data, describe_training_data
from medvision.documents.card_figures import describe_figures, model_table, value
from medvision.documents.pages import Block, Bullets, Cell, Code, Facts, Gap, Grid, Inline, Text
from medvision.models.licences import UNKNOWN, StartingWeights
from medvision.records import Audit, Conformal, Details, Evaluation, PackageInfo, Verdict, record_fingerprint

_NO_THRESHOLD = (
    "No operating point was chosen: the class of the highest score is called. Set evaluation.critical_classes"
)


@dataclass(frozen=True)
class CardRecords:
    """All that a card is made of; what there is no record of is None or empty.

    ``version`` is the semantic version, None where it is not chosen yet. ``made_on`` is a date, as it is shown.
    """

    package: PackageInfo
    statements: CardConfig
    made_on: str
    version: str | None = None
    evaluation: Evaluation | None = None
    details: Details | None = None
    verdict: Verdict | None = None
    audit: Audit | None = None
    sizes: tuple[SideSize, ...] = ()
    weights: tuple[StartingWeights, ...] = ()


def describe_sections(records: CardRecords) -> list[tuple[str, list[Block]]]:
    """Return the title and the blocks of each section, in order."""
    said = _Statements(records.statements)
    return [
        ("Model details", _details(records, said)),
        ("Intended use", [said.facts("intended_use", "intended_users", "population", "out_of_scope")]),
        ("Factors", _factors(records, said)),
        ("Metrics", _metrics(records)),
        (
            "Evaluation data",
            [*describe_data(records.evaluation, records.details), said.facts("data_source", "reference_standard")],
        ),
        (
            "Training data",
            [*describe_training_data(records.package, records.audit, records.sizes), said.facts("data_licence")],
        ),
        ("Quantitative analyses", describe_figures(records.evaluation, records.details)),
        ("Ethical considerations", [said.facts("ethics", "ethics_approval", "risks")]),
        ("Caveats and recommendations", _caveats(records, said)),
        ("Licences and provenance", _provenance(records, said)),
    ]


@dataclass(frozen=True)
class _Statements:
    """What people have said in the settings, or that they have not."""

    card: CardConfig

    def facts(self, *names: str) -> Facts:
        return Facts(tuple((_spoken(name), self.cell(name)) for name in names))

    def cell(self, name: str) -> Inline:
        text: str | None = getattr(self.card, name)
        return text or Gap(f"not stated; set card.{name}")


def _spoken(name: str) -> str:
    return {"population": "Patients and images", "out_of_scope": "Out of scope"}.get(
        name, name.replace("_", " ").capitalize()
    )


def _details(records: CardRecords, said: _Statements) -> list[Block]:
    info = records.package
    joined = (
        "one network" if len(info.members) == 1 else f"{len(info.members)} networks, joined: {info.combination.rule}"
    )
    facts: tuple[tuple[str, Cell], ...] = (
        ("Developer", said.cell("developer")),
        ("Contact", said.cell("contact")),
        ("Version", records.version or "given at registration; this card is of the package that is named below"),
        ("What it is", f"a classifier of single images into {len(info.classes)} classes: {joined}"),
        ("What it answers", f"a probability of each class: {', '.join(info.classes)}"),
        ("Made with", f"medvision {info.medvision_version or 'of an unknown version'}"),
        ("Model package", Code(record_fingerprint(info))),
    )
    return [Facts(facts), model_table(info), *_thresholds(info)]


def _thresholds(info: PackageInfo) -> list[Block]:
    points = _operating_points(info) if info.operating_points else Text(Gap(_NO_THRESHOLD))
    return [points, _prediction_sets(info.classes, info.conformal)] if info.conformal else [points]


def _operating_points(info: PackageInfo) -> Grid:
    rows = tuple(
        (
            point.class_name,
            f"{point.threshold:.4f}",
            f"{point.target_sensitivity:.2f}",
            value(point.sensitivity),
            value(point.specificity),
        )
        for point in info.operating_points
    )
    header = ("class", "called from a score of", "target sensitivity", "sensitivity on val", "specificity on val")
    return Grid("Operating points, chosen on val and frozen", header, rows)


def _prediction_sets(classes: tuple[str, ...], sets: Conformal) -> Grid:
    rows = tuple(
        (name, f"{threshold:.4f}", str(n))
        for name, threshold, n in zip(classes, sets.thresholds, sets.n_calibration, strict=True)
    )
    note = (
        f"A class is in the set of an image from this score on; the sets of {sets.coverage:.0%} of each class "
        "then hold the truth. From 0 on, where val has too few cases: the class is in every set."
    )
    return Grid("Prediction sets", ("class", "in the set from a score of", "cases it was fitted on"), rows, note=note)


def _factors(records: CardRecords, said: _Statements) -> list[Block]:
    details = records.details
    columns = sorted({group.column for group in details.subgroups}) if details else []
    found: Inline = (
        f"Figures are told apart by {', '.join(columns)}, under Quantitative analyses."
        if columns
        else Gap("No subgroups were assessed; set evaluation.subgroups and run: medvision evaluate --detailed")
    )
    robust: Inline = (
        f"Worse images (noise, blur, exposure and others) were tried on {details.robustness.n} test images."
        if details and details.robustness
        else Gap("Robustness was not measured; run: medvision evaluate --robustness-test")
    )
    return [
        Bullets(
            (
                found,
                robust,
                "Age, sex, ethnicity, site and scanner are not among the records: nothing here tells how the model "
                "does by them.",
            )
        )
    ]


def _metrics(records: CardRecords) -> list[Block]:
    evaluation = records.evaluation
    if evaluation is None:
        return [Text(Gap("The model was not evaluated; run: medvision evaluate"))]
    unit = "images, since patients are unknown" if evaluation.n_patients is None else "patients, not images"
    plan = evaluation.plan
    return [
        Bullets(
            (
                "Sensitivity and specificity of each class against all others, AUROC and AUPRC (discrimination), ECE, "
                "Brier score, slope and intercept (calibration), net benefit (in the evaluation report).",
                f"Intervals are two-sided, of 95 %, and count {unit}; bootstrap of {plan.replicates:,} draws, seed "
                f"{plan.seed}.",
                "The epoch, the temperature, thresholds and prediction sets were chosen on val; the test split was "
                "used for none of them.",
            )
        )
    ]


def _caveats(records: CardRecords, said: _Statements) -> list[Block]:
    verdict, blocks = records.verdict, [said.facts("monitoring")]
    rules: list[Block] = []
    if verdict is not None:
        words = {"passed": "met", "failed": "not met", "insufficient_evidence": "too few cases"}
        rows = tuple((words[each.state], each.message, each.remedy) for each in verdict.outcomes)
        title = f"Rules of policy {verdict.policy}"
        rules = [
            Grid(
                title,
                ("rule is", "what was asked and found", "what would mend it"),
                rows,
                texts=("what was asked and found", "what would mend it"),
            )
        ]
    return [
        *blocks,
        *rules,
        Bullets(
            (
                "All figures are of one dataset. They tell nothing of other sites, scanners and populations, nor of "
                "mistakes in the reference standard.",
                "An image that is of none of the classes, or of another kind than those that it was trained on, gets "
                "an answer all the same.",
                "The card supports a judgement and takes none away: it is no approval for clinical use.",
            )
        ),
    ]


def _provenance(records: CardRecords, said: _Statements) -> list[Block]:
    info, evaluation, verdict = records.package, records.evaluation, records.verdict
    rows: list[tuple[Cell, ...]] = [(each.model, each.source, _known(each.licence)) for each in records.weights]
    weights: Block = (
        Grid(
            "Weights that training started from",
            ("network", "weights", "licence"),
            tuple(rows),
            texts=("weights", "licence"),
        )
        if rows
        else Text(Gap("Which weights the training started from is not known, nor is their licence"))
    )
    prints = [
        ("model package", record_fingerprint(info)),
        ("weights, SHA-256", info.weights_sha256),
        ("manifest", info.manifest_fingerprint),
        ("split", info.split_fingerprint),
        ("training run", info.run_key),
        ("predictions, SHA-256", evaluation.predictions_sha256 if evaluation else ""),
        ("test set", verdict.test_fingerprint if verdict else ""),
        ("policy", verdict.policy_fingerprint if verdict else ""),
    ]
    known = tuple((name, Code(text)) for name, text in prints if text)
    return [
        said.facts("weights_licence", "data_licence", "funding"),
        weights,
        Grid("Fingerprints", ("record", "fingerprint"), known, texts=("fingerprint",)),
    ]


def _known(licence: str) -> Inline:
    return Gap("unknown; find out before the model is passed on") if licence == UNKNOWN else licence
