"""The records that a model's life is made of, from data to verdict.

Each stage takes the record of the former stage and adds one. A record is frozen, is saved as JSON, and carries the
fingerprints of what it was made from: "which images taught the model that gave this answer?" is a chain of hashes.
Tables (manifest, split, predictions) are Parquet files and live with the code that makes them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from medvision.errors import DataInvalid
from medvision.files import fingerprint, read_json, write_json

SPLITS = ("train", "val", "test")

RecordType = TypeVar("RecordType")


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found: how often, what it does to the figures, and what was done about it.

    ``severity``: leak, warning or note. ``effect``: what it does to the figures, where the message does not say so.
    """

    name: str
    severity: str
    count: int
    total: int
    message: str
    action: str
    examples: tuple[str, ...] = ()
    effect: str = ""


@dataclass(frozen=True)
class Shortcut:
    """How well one trait alone tells the classes: balanced accuracy out of fold, with its 95 % interval by groups.

    ``chance``: what guessing reaches. ``is_far_above_chance``: whether the lower end of the interval is, too.
    """

    trait: str
    accuracy: float
    low: float
    high: float
    chance: float
    is_far_above_chance: bool


@dataclass(frozen=True)
class DeepAudit:
    """What a look at every image found; ``settings`` is the fingerprint of those that it was made with.

    ``embeddings``: what images were compared by, for people.
    """

    manifest_fingerprint: str
    settings: str
    embeddings: str
    shortcuts: tuple[Shortcut, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Audit:
    """What is wrong with a dataset, and what was done about it; ``is_deep``: every image was looked at for it."""

    dataset: str
    manifest_fingerprint: str
    split_fingerprint: str
    n_images: int
    n_patients: int | None
    split_counts: dict[str, dict[str, int]]
    n_dropped: int
    findings: tuple[Finding, ...]
    is_deep: bool = False


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel over all pixels of the train split, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_images: int
    n_pixels: int
    split_fingerprint: str


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a model's input: decoded, converted to ``channels``, resized to a square.

    Normalization happens inside the network, with these values. ``window``: what CT values are seen through, a preset
    or "CENTER,WIDTH"; "" for the file's own.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure with its two-sided 95 % confidence interval.

    ``bound`` is its one-sided 95 % bound on the side that harms: the lower one, or, of an error such as ECE, the upper
    one. A figure that is not defined, as the PPV of a class that was never predicted, has None in all of them.
    ``successes`` of ``n`` cases, where it is a proportion.
    """

    value: float | None
    low: float | None
    high: float | None
    bound: float | None
    n: int
    method: str
    successes: int | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold from which on a class is called, chosen on val and frozen before the test split is looked at.

    A case is called when its score is at least ``threshold``. ``sensitivity`` and ``specificity`` are those on val; the
    bound of the sensitivity, in which patients count alike, reaches ``target_sensitivity``.
    """

    class_name: str
    threshold: float
    target_sensitivity: float
    sensitivity: Figure
    specificity: Figure


@dataclass(frozen=True)
class Conformal:
    """Thresholds of class-conditional prediction sets, fitted on val (split LAC; Sadinle et al., JASA 2019).

    A class is in a case's set when its score is at least the class's threshold; 0 where val has too few cases of the
    class for the coverage: it is in every set then. ``n_calibration``: val patients, or cases if patients are unknown.
    """

    coverage: float
    thresholds: tuple[float, ...]
    n_calibration: tuple[int, ...]


@dataclass(frozen=True)
class DomainView:
    """What train images are like in one view: mean and scale of its d numbers, and k directions in which they vary.

    ``centre`` (d,), ``scale`` (d,), ``directions`` (k, d) and ``variances`` (k,) are float16, little-endian, in base64:
    a tenth of what they take as numbers of JSON. ``residual``: variance in all other directions. ``limits``: squared
    distances within and off the directions that 99 % of train images stay below while they are not learnt from.
    """

    name: str
    centre: str
    scale: str
    directions: str
    variances: str
    residual: float
    limits: tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """What images a package was made for: how unlike train an image may be, fitted on train and on val.

    A new patient's image is within ``threshold`` with probability ``coverage``, which is below the usual 99.5 % where
    ``n_calibration`` val patients, or cases if patients are unknown, are too few: the threshold is the largest of them
    then. ``descriptor``: version of what images are described by. ``n_train``: images that were learnt from.
    """

    views: tuple[DomainView, ...]
    threshold: float
    coverage: float
    n_train: int
    n_calibration: int
    descriptor: int


@dataclass(frozen=True)
class OperatingPointFigures:
    """What an operating point that was frozen on val does on the test split.

    ``ppv`` and ``npv`` are those at ``prevalence``, the share of the class where the model will be used, and not at its
    share of the test split.
    """

    class_name: str
    threshold: float
    sensitivity: Figure
    specificity: Figure
    prevalence: float
    ppv: Figure
    npv: Figure


@dataclass(frozen=True)
class ConformalFigures:
    """What prediction sets do on the test split; each figure counts images.

    ``per_class``: the share of each class whose set holds it. ``empty``, ``single`` and ``several``: the share of the
    sets of no class, of one, and of more.
    """

    coverage: float
    per_class: tuple[Figure, ...]
    mean_set_size: float
    empty: Figure
    single: Figure
    several: Figure


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases of like score: the mean of their scores, and the share of them that is what the score speaks for."""

    mean_score: float
    observed: Figure


@dataclass(frozen=True)
class Reliability:
    """The bins of the reliability diagram by rising score, of the predicted class and of each class."""

    top_label: tuple[ReliabilityBin, ...]
    per_class: tuple[tuple[ReliabilityBin, ...], ...]


@dataclass(frozen=True)
class Selection:
    """What comes of answering only where the highest score is at least ``threshold``.

    ``coverage`` is the share of cases answered, ``accuracy`` that of the answered ones: 1 - the selective risk.
    """

    threshold: float
    coverage: Figure
    accuracy: Figure


@dataclass(frozen=True)
class Abstention:
    """What comes of answering only where the prediction set holds one class: of all cases, and of each true class.

    ``accuracy`` is that of the answered cases.
    """

    abstained: Figure
    accuracy: Figure
    abstained_per_class: tuple[Figure, ...]
    accuracy_per_class: tuple[Figure, ...]


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of calling a class from each threshold probability on, with a 95 % band (Vickers and Elkin 2006).

    In true positives per case. ``treat_all`` is that of calling every case; that of calling none is 0 throughout.
    """

    class_name: str
    thresholds: tuple[float, ...]
    net_benefit: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    treat_all: tuple[float, ...]


@dataclass(frozen=True)
class Member:
    """One network of a model package: what it is, how its input is made, and how it was trained.

    Its probabilities are the softmax of its logits over ``temperature``.
    """

    model: str
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    temperature: float
    run_key: str
    best_epoch: int
    best_val_accuracy: float


@dataclass(frozen=True)
class Combination:
    """How the probabilities of the members become those of the package.

    ``rule``: soft (mean, by ``weights`` of the members), hard (share of the votes, by ``weights``, with the
    mean probability for one vote more, which decides between equals), or stacking (multinomial logistic regression on
    the members' log probabilities, ``coefficients`` (k, members * k)). Those are sharpened by ``temperature`` at last.
    A package of one network is a soft vote of one.
    """

    rule: Literal["soft", "hard", "stacking"] = "soft"
    weights: tuple[float, ...] = (1.0,)
    coefficients: tuple[tuple[float, ...], ...] = ()
    intercepts: tuple[float, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True)
class PackageInfo:
    """All that a prediction needs beside the weights, and where the weights come from.

    What was fitted on val stands in ``combination``, ``operating_points``, ``conformal`` and ``domain``. ``run_key`` is
    the run that made the package; ``formats`` are the kinds of files that it has learnt from.
    """

    name: str
    dataset: str
    classes: tuple[str, ...]
    members: tuple[Member, ...]
    combination: Combination
    operating_points: tuple[OperatingPoint, ...]
    conformal: Conformal | None
    manifest_fingerprint: str
    split_fingerprint: str
    run_key: str
    weights_sha256: str = ""
    medvision_version: str = ""
    domain: Domain | None = None
    formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class OverallFigures:
    """The figures of all classes together; AUROC and AUPRC are one-vs-rest, of two classes those of the second."""

    accuracy: Figure
    balanced_accuracy: Figure
    macro_f1: Figure
    weighted_f1: Figure
    auroc: Figure
    auprc: Figure
    ece: Figure
    classwise_ece: Figure
    brier: Figure
    nll: Figure


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class against all others; ``n`` cases of ``n_patients`` patients (None: unknown)."""

    name: str
    n: int
    n_patients: int | None
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    npv: Figure
    f1: Figure
    auroc: Figure
    auprc: Figure
    calibration_slope: Figure
    calibration_intercept: Figure


@dataclass(frozen=True)
class Plan:
    """How intervals are computed: replicates of the bootstrap, and the seed that makes them the same each time."""

    replicates: int = 2000
    seed: int = 42


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model package on one test split; the same predictions and plan give the same record."""

    model: str
    dataset: str
    package_digest: str
    split_fingerprint: str
    predictions_sha256: str
    classes: tuple[str, ...]
    n: int
    n_patients: int | None
    plan: Plan
    overall: OverallFigures
    per_class: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Diversity:
    """How two members of an ensemble differ: Q statistic (None: undefined), disagreement, and both wrong."""

    a: str
    b: str
    q_statistic: float | None
    disagreement: float
    double_fault: float


@dataclass(frozen=True)
class PairComparison:
    """Differences of two models, a less b, on the same cases; p values by figure or test, raw and after Holm."""

    a: str
    b: str
    differences: dict[str, Figure]
    p_values: dict[str, float]
    adjusted_p_values: dict[str, float]


@dataclass(frozen=True)
class FoldFigures:
    """One fold of a cross-validation: its images, its best epoch, and its figures on the images it was tested on."""

    n_train: int
    n_val: int
    n_test: int
    best_epoch: int
    accuracy: float
    balanced_accuracy: float
    auroc: float


@dataclass(frozen=True)
class CrossValidation:
    """The folds, mean and standard deviation of their figures, and the figures of all tested images together."""

    folds: tuple[FoldFigures, ...]
    means: dict[str, float]
    deviations: dict[str, float]
    pooled: Evaluation


@dataclass(frozen=True)
class Subgroup:
    """The figures of the images of one value of a column, and how much they differ from those of all others.

    ``state``: assessed, or insufficient evidence, where there are too few patients.
    """

    column: str
    value: str
    n: int
    n_patients: int | None
    state: Literal["assessed", "insufficient evidence"]
    overall: OverallFigures | None
    per_class: tuple[ClassFigures, ...]
    gaps: dict[str, Figure]


@dataclass(frozen=True)
class Corrupted:
    """How figures fall under one kind and severity of corruption; a fall is positive where the figure got worse."""

    kind: str
    severity: int
    values: dict[str, float]
    falls: dict[str, Figure]


@dataclass(frozen=True)
class Robustness:
    """Figures on a sample of ``n`` test images as they are, and under each corruption."""

    n: int
    plain: dict[str, float]
    corrupted: tuple[Corrupted, ...]


@dataclass(frozen=True)
class Latency:
    """Milliseconds from one uint8 image to its probabilities: percentiles of ``n`` answers, each by so many threads."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int
    threads: int


@dataclass(frozen=True)
class Speed:
    """How fast a package answers on named hardware; throughput is that at the best batch.

    ``peak_memory_bytes``: weights, and what a batch of 64 adds to the memory of the process.
    """

    latency: Latency
    batch_size: int
    throughput_images_s: float
    peak_memory_bytes: int
    size_bytes: int
    n_parameters: int
    hardware: str


State = Literal["passed", "failed", "insufficient_evidence"]
Grade = Literal["excellent", "good", "needs improvement"]


@dataclass(frozen=True)
class QuickTest:
    """What a quick look at the test split says."""

    model: str
    package_digest: str
    accuracy: Figure
    confusion: tuple[tuple[int, ...], ...]
    looks: int


@dataclass(frozen=True)
class Details:
    """What an evaluation tells beside its figures; what was not asked for, or does not apply, is None or empty.

    ``uncalibrated``: ECE, Brier and NLL of the scores before the package's temperature. ``aurc`` is the area under the
    risk-coverage curve, ``excess_aurc`` what it has over that of the best order. ``looks``: how often this test set has
    been used. ``disagreement_auroc``: how well the disagreement of the members tells wrong from right predictions.
    ``indeterminate``: the share of test images outside the package's domain.
    """

    package_digest: str
    predictions_sha256: str
    looks: int
    uncalibrated: dict[str, float]
    operating_points: tuple[OperatingPointFigures, ...]
    conformal: ConformalFigures | None
    abstention: Abstention | None
    selections: tuple[Selection, ...]
    aurc: float
    excess_aurc: float
    subgroups: tuple[Subgroup, ...] = ()
    diversity: tuple[Diversity, ...] = ()
    robustness: Robustness | None = None
    cross_validation: CrossValidation | None = None
    speed: Speed | None = None
    disagreement_auroc: float | None = None
    indeterminate: Figure | None = None


@dataclass(frozen=True)
class ComparedModel:
    """One of the models of a comparison."""

    name: str
    evaluation: Evaluation
    speed: Speed


@dataclass(frozen=True)
class Comparison:
    """Models on the same cases, the best balanced accuracy first, and every pair of them."""

    models: tuple[ComparedModel, ...]
    pairs: tuple[PairComparison, ...]


@dataclass(frozen=True)
class RuleOutcome:
    """One rule, held against what was found: with its 95 % interval, the reason, and what would mend it.

    ``required``, ``found``, ``low`` and ``high`` are None where the rule is not about a number, or nothing was found.
    """

    rule: str
    state: State
    required: float | None
    found: float | None
    low: float | None
    high: float | None
    message: str
    remedy: str

    @property
    def passed(self) -> bool:
        """Tell whether the rule is met."""
        return self.state == "passed"


@dataclass(frozen=True)
class Verdict:
    """Whether a model package meets a policy, with every reason; the record that is signed.

    It names all that it was made from, so that it is told from one of another package, test set, policy or table of
    predictions. ``figures`` are the key ones. ``looks`` is how often steps had opened the test set, for ``models_seen``
    packages; ``ledger_head`` is the entry of its ledger at that time. ``champion_digest`` is the package that it was
    compared with, if any.
    """

    model: str
    dataset: str
    state: State
    grade: Grade
    policy: str
    package_digest: str
    split_fingerprint: str
    test_fingerprint: str
    policy_fingerprint: str
    evaluation_fingerprint: str
    predictions_sha256: str
    champion_digest: str | None
    n: int
    n_patients: int | None
    figures: dict[str, float | None]
    looks: int
    models_seen: int
    ledger_head: str
    made_at: str
    outcomes: tuple[RuleOutcome, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every rule is met."""
        return self.state == "passed"


class Recorder(Protocol):
    """What training and evaluation need of tracking: they record, and never know where it goes."""

    def params(self, values: dict[str, Any]) -> None:
        """Record settings; each key once."""

    def tags(self, values: dict[str, Any]) -> None:
        """Record tags; a later value replaces an earlier one."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record figures of one step; a (name, step) that is already recorded is left as it is."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or a folder of files, as it is now."""


class Silence:
    """A recorder that keeps nothing: for what is trained beside the run that counts."""

    def params(self, values: dict[str, Any]) -> None:
        """Keep nothing."""

    def tags(self, values: dict[str, Any]) -> None:
        """Keep nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Keep nothing."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep nothing."""


def as_dict(record: Any) -> dict[str, Any]:
    """Return a record as JSON-like values."""
    return dataclasses.asdict(record)


def essence(record: Any) -> dict[str, Any]:
    """Return a record as JSON-like values, without what is at its default, which therefore never changes.

    A record that was made before a field existed says what it said then, and keeps its fingerprint: a later medvision
    does not void the verdicts of an earlier one.
    """
    return {
        field.name: _plain(getattr(record, field.name))
        for field in dataclasses.fields(record)
        if field.default is dataclasses.MISSING or getattr(record, field.name) != field.default
    }


def record_fingerprint(record: Any) -> str:
    """Return the fingerprint of what a record says."""
    return fingerprint(essence(record))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return essence(value)
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def save_record(record: Any, path: Path) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, as_dict(record))


def load_record(kind: type[RecordType], path: Path) -> RecordType:
    """Read a record and check its types; DataInvalid if it is missing, damaged, or of another shape."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataInvalid(
            f"{path} is not a {kind.__name__} of this version ({place}: {first['msg']}). "
            "Run the step that makes it again."
        ) from None
