"""Settings: YAML files, a dataset's own file and dotted overrides, checked once and frozen.

Later sources win: built-in defaults, the config file, ``config/datasets/<dataset>.yaml``, options and ``--set``.
An unknown key is an error that names the nearest known one. No value is ever executed.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from medvision.errors import ConfigInvalid
from medvision.files import project_root
from medvision.windows import parse_window

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Strategy = Literal["head", "partial", "full"]
Optimizer = Literal["adamw", "adam", "adamax", "sgd"]

# That of a URL, before its last @ or among its parameters.
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):.*(?=@)|([?&]password)=[^&]*")

_MAX_DEPTH = 20
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ColumnsConfig(_Section):
    """Columns of the dataset's table; what is not given is found by its name."""

    image: str | None = Field(None, description="File name or path of the image, with or without suffix and folder.")
    label: str | None = None
    patient: str | None = None
    split: str | None = Field(None, description="train, val or test, in any usual spelling.")
    subgroups: tuple[str, ...] = Field((), description="Sex, age, site, scanner ...: what figures are told apart by.")


class DatasetConfig(_Section):
    """Which images, and how they are split."""

    name: str | None = Field(None, description="Name of the dataset; the folder's name if not given.")
    path: Path | None = Field(None, description="Folder of class folders, or of images with a table of labels.")
    labels: Path | None = Field(None, description="CSV, TSV or Parquet with a row an image; found if not given.")
    columns: ColumnsConfig = ColumnsConfig()
    label_pattern: str | None = Field(
        None, description="Regular expression on the file name, or the path if it holds a /; its group is the label."
    )
    label_tag: str | None = Field(None, description="DICOM keyword whose value is the label.")
    patient_pattern: str | None = Field(
        None,
        description="Regular expression on the file name, or the path if it holds a /; its groups, joined, name the "
        "patient.",
    )
    window: str = Field(
        "",
        description="What CT values are seen through: brain, lung, bone, soft_tissue, or CENTER,WIDTH in HU; "
        "the file's own if not given.",
    )
    on_leak: Literal["drop", "regroup", "fail"] = "drop"
    max_rejected_fraction: float = Field(0.0, ge=0, le=1)
    val_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.15, gt=0, lt=1)
    seed: int = Field(42, ge=0)

    @field_validator("patient_pattern")
    @classmethod
    def _has_groups(cls, pattern: str | None) -> str | None:
        if pattern is not None and _count_groups(pattern) == 0:
            raise ValueError("needs at least one group in parentheses, which names the patient")
        return pattern

    @field_validator("window")
    @classmethod
    def _is_window(cls, window: str) -> str:
        if window:
            parse_window(window)
        return window

    @field_validator("label_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None and _count_groups(pattern) != 1:
            raise ValueError("needs one group in parentheses, which is the label")
        return pattern

    @field_validator("label_tag")
    @classmethod
    def _is_the_only_one(cls, tag: str | None, info: ValidationInfo) -> str | None:
        if tag is not None and info.data.get("label_pattern") is not None:
            raise ValueError("give dataset.label_pattern or dataset.label_tag, not both")
        return tag


def _count_groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None


class TransformConfig(_Section):
    """What happens to an image before, and only in training after, it is cached."""

    image_size: int | None = Field(None, ge=16, le=1024, description="Side in pixels; the model's own if not given.")
    grayscale: bool = Field(False, description="One input channel, with an adapted first convolution.")
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    vertical_flip: float = Field(0.0, ge=0, le=1)
    rotation: float = Field(10.0, ge=0, le=180, description="Largest angle, degrees.")
    shift: float = Field(0.05, ge=0, le=0.5, description="Largest shift, fraction of the side.")
    scale: float = Field(0.1, ge=0, lt=1, description="Largest change of scale, fraction.")
    brightness: float = Field(0.1, ge=0, le=1)
    contrast: float = Field(0.1, ge=0, le=1)


class TrainingConfig(_Section):
    """Model and recipe. What is not given comes from the model's entry in the catalog."""

    model: str = "resnet18"
    pretrained: bool | Path = Field(
        True, description="true: from the hub; a file of weights, or a folder of them; false: none."
    )
    strategy: Strategy | None = None
    unfreeze_stages: int = Field(1, ge=1, description="Last stages that are trained with strategy 'partial'.")
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1, description="Batches per optimizer step.")
    optimizer: Optimizer | None = None
    lr: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    cycles: int = Field(1, ge=1, description="Cosine cycles of the learning rate; each leaves a member of an ensemble.")
    gradient_clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 for none.")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    imbalance: Literal["none", "weights", "sampler"] = "weights"
    views: int = Field(2, ge=1, description="Augmented views embedded per train image with a frozen backbone.")
    monitor: Literal["val_accuracy", "val_balanced_accuracy", "val_loss"] = "val_accuracy"
    patience: int = Field(15, ge=1)
    min_delta: float = Field(0.0005, ge=0)
    save_every: int = Field(0, ge=0, description="Also keep a checkpoint every so many epochs; 0 for never.")
    seed: int = Field(42, ge=0)

    @field_validator("cycles")
    @classmethod
    def _have_epochs(cls, cycles: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs", cycles)
        if epochs < cycles:
            raise ValueError(
                f"each cycle needs an epoch at least, and training.epochs is {epochs}: use as few cycles, or raise it"
            )
        return cycles


class Recipe(TrainingConfig):
    """A recipe that leaves nothing open."""

    strategy: Strategy
    optimizer: Optimizer
    lr: float


class EvaluationConfig(_Section):
    """What is fitted on val, and what is said of the test split."""

    critical_classes: tuple[str, ...] = Field((), description="Classes that get an operating point of their own.")
    target_sensitivity: float = Field(0.9, gt=0, lt=1, description="Lower bound that an operating point must reach.")
    coverage: float = Field(0.9, gt=0, lt=1, description="Share of each class whose prediction set holds the truth.")
    prevalence: dict[str, float] = Field({}, description="Share of each critical class where the model will be used.")
    subgroups: tuple[str, ...] = Field(
        (),
        description="By what figures are told apart: width, height, channels, given_split, or a subgroup column of the "
        "dataset's table.",
    )
    replicates: int = Field(2000, ge=100, description="Replicates of the bootstrap behind the intervals.")
    folds: int = Field(5, ge=3, description="Folds of the cross-validation.")
    robustness_images: int = Field(200, ge=1, description="Test images, at most, on which robustness is measured.")
    seed: int = Field(42, ge=0)

    @field_validator("prevalence")
    @classmethod
    def _are_shares(cls, prevalence: dict[str, float]) -> dict[str, float]:
        for name, share in prevalence.items():
            if not 0 < share < 1:
                raise ValueError(f"{name}: a prevalence is between 0 and 1")
        return prevalence


class PerformanceConfig(_Section):
    """How the machine is used; figures change with none of these, up to rounding."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = Field(1, ge=1)
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    compile: bool = False
    channels_last: bool = False
    workers: int | None = Field(None, ge=0, description="Processes that read images; all cores if not given.")
    loader_workers: int = Field(0, ge=0, description="Processes that augment images during training.")
    prefetch: int = Field(2, ge=1)
    persistent_workers: bool = True


class TrackingConfig(_Section):
    """Where runs are recorded."""

    uri: str | None = Field(
        None, description="MLflow server; MLFLOW_TRACKING_URI or sqlite in the project if not given."
    )
    experiment: str | None = Field(None, description="MLflow experiment; the dataset's name if not given.")
    wandb: bool = Field(True, description="W&B beside MLflow: offline unless WANDB_API_KEY is set.")
    tensorboard: bool = True
    share_images: bool = Field(
        True, description="Whether reports that show images of patients are recorded; false keeps them in results/."
    )
    drain_s: float = Field(30.0, ge=0, description="How long the end of a run waits for the tracking server.")


class RegistryConfig(_Section):
    """What the registry's gate asks for at a promotion. The gate reads its own settings, whatever a client's are."""

    challenger: tuple[str, ...] = Field(
        ("staging", "production"), min_length=1, description="Policies, one of which a challenger must have passed."
    )
    champion: tuple[str, ...] = Field(
        ("production",), min_length=1, description="Policies, one of which a champion must have passed."
    )
    approvals: int = Field(1, ge=0, description="Users who must have approved a champion.")
    approvers: tuple[str, ...] = Field((), description="Users whose approval counts; whoever has an account if empty.")
    separation_of_duties: bool = Field(
        False, description="Whether who trained or registered a version may not approve."
    )
    test_sets: tuple[str, ...] = Field(
        (), description="Fingerprints of the test sets that count; that of a model's first promotion if empty."
    )


class ServingConfig(_Section):
    """How predictions are served, and what the service may take of a machine."""

    audit_url: str = Field(
        "",
        description="Where the audit log is: sqlite:///PATH or postgresql://USER@HOST/DATABASE; audit.db in the state "
        "folder if not given.",
    )
    max_in_flight: int | None = Field(None, ge=1, description="Requests at a time; by the cores if not given.")
    deadline_s: float = Field(10.0, gt=0, description="How long an answer may take, and how long a body may.")
    drain_s: float = Field(20.0, gt=0, description="How long requests that are under way may go on at the end.")
    watch_s: float = Field(2.0, gt=0, description="How often the registry is asked who is champion.")

    @field_validator("audit_url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        # Settings are recorded with every run.
        if _PASSWORD.search(url):
            raise ValueError("must not hold a password: give it in PGPASSWORD, or in the file that PGPASSFILE names")
        return url


class CardConfig(_Section):
    """What only people can say of a model: it stands in the model card, and what is not said is named as missing."""

    developer: str | None = Field(None, description="Who made the model and answers for it.")
    contact: str | None = Field(None, description="Whom to ask, and to tell of errors.")
    intended_use: str | None = Field(None, description="What for, and where in the care of a patient.")
    intended_users: str | None = Field(None, description="Who reads the answers, with what training.")
    population: str | None = Field(None, description="For which patients and images.")
    out_of_scope: str | None = Field(None, description="What it must not be used for.")
    data_source: str | None = Field(None, description="Where, when, how and with which devices images were collected.")
    reference_standard: str | None = Field(None, description="How the true class was found, by whom.")
    ethics: str | None = Field(None, description="Ethical considerations, fairness among them.")
    ethics_approval: str | None = Field(None, description="Committee and number of the approval, or why none was due.")
    risks: str | None = Field(None, description="Known risks, and what is done about them.")
    monitoring: str | None = Field(None, description="How the model is watched in use, and when it is withdrawn.")
    funding: str | None = Field(None, description="Sources of funding, and commercial interests.")
    data_licence: str | None = Field(None, description="Licence, or terms of use, of the images.")
    weights_licence: str | None = Field(None, description="Licence under which these weights may be used.")

    @field_validator("*")
    @classmethod
    def _says_something(cls, text: str | None) -> str | None:
        return (text and text.strip()) or None


class PathsConfig(_Section):
    """Folders, relative to the project's root."""

    state: Path = Path(".medvision")
    checkpoints: Path = Path("checkpoints")
    results: Path = Path("results")
    tensorboard: Path = Path("runs")

    @field_validator("*")
    @classmethod
    def _from_root(cls, path: Path) -> Path:
        return path if path.is_absolute() else project_root() / path


class Config(_Section):
    """All settings of one run."""

    dataset: DatasetConfig = DatasetConfig()
    transform: TransformConfig = TransformConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    performance: PerformanceConfig = PerformanceConfig()
    tracking: TrackingConfig = TrackingConfig()
    registry: RegistryConfig = RegistryConfig()
    serving: ServingConfig = ServingConfig()
    card: CardConfig = CardConfig()
    paths: PathsConfig = Field(default_factory=PathsConfig)

    @property
    def dataset_name(self) -> str:
        """Return the dataset's name, lower-case and safe for file names and the registry; ConfigInvalid if unknown."""
        if self.dataset.name is None and self.dataset.path is None:
            raise ConfigInvalid(
                "No dataset is named. Give --dataset-path DIR, or --dataset NAME for one in config/datasets/."
            )
        name = self.dataset.name or self.dataset.path.resolve().name  # type: ignore[union-attr]
        name = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigInvalid(f"dataset.name: {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores.")
        return name

    @property
    def dataset_path(self) -> Path:
        """Return the dataset's folder; ConfigInvalid if it is not given or not a folder."""
        if self.dataset.path is None:
            raise ConfigInvalid("The dataset's folder is not given. Give --dataset-path DIR.")
        if not self.dataset.path.is_dir():
            raise ConfigInvalid(f"dataset.path: {self.dataset.path} is not a folder. Give --dataset-path DIR.")
        return self.dataset.path.resolve()

    @property
    def dataset_dir(self) -> Path:
        """Return the folder that holds the records of the dataset."""
        return self.paths.state / "datasets" / self.dataset_name

    @property
    def audit_url(self) -> str:
        """Return where the audit log of predictions is."""
        return self.serving.audit_url or f"sqlite:///{(self.paths.state / 'audit.db').absolute()}"


def load_config(
    file: Path | None = None, *, dataset: str | None = None, overrides: dict[str, Any] | None = None
) -> Config:
    """Load the settings.

    Parameters
    ----------
    file: YAML file; ``config/config.yaml`` of the project if None.
    dataset: name of a file in ``config/datasets``, laid over the config file.
    overrides: dotted keys and values, for example ``{"training.lr": 1e-4}``; they win over the files.

    Raises
    ------
    ConfigInvalid: unknown key (the nearest known key is named), wrong type, value out of range, file unreadable.
    """
    root = project_root()
    default = root / "config" / "config.yaml"
    values = read_yaml(file or default) if file or default.is_file() else {}
    if dataset:
        values = _merge(values, {"dataset": {"name": dataset}})
        values = _merge(values, _read_dataset(root / "config" / "datasets", dataset))
    for key, value in (overrides or {}).items():
        values = _merge(values, _nest(key, value))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigInvalid("\n".join(_explain(item) for item in error.errors())) from None


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """Turn ``["training.lr=1e-4"]`` into ``{"training.lr": 0.0001}``; values are read as YAML."""
    overrides = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key:
            raise ConfigInvalid(f"--set expects KEY=VALUE, for example training.lr=1e-4; found {assignment!r}.")
        overrides[key.strip()] = _parse_scalar(text)
    return overrides


def flatten(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return the values of nested sections by dotted keys, such as ``training.epochs``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def nearest(name: str, known: list[str]) -> str:
    """Return a sentence that names the known name nearest to an unknown one."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def _parse_scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        # YAML 1.1 reads 1e-4 as a string: it wants 1.0e-4.
        try:
            return float(value)
        except ValueError:
            return text
    return value


def _read_dataset(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / f"{name}.yaml").is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise ConfigInvalid(f"No dataset {name!r} in {folder}. {nearest(name, known)}")
    return read_yaml(folder / f"{name}.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of sections; ConfigInvalid if it is unreadable, too large, or uses aliases."""
    # 100 kB: forty times the longest config, and little enough to parse in a second.
    try:
        if path.stat().st_size > 100_000:
            raise ConfigInvalid(f"{path} is larger than 100 kB: that is no config file.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} can't be read: {error}.") from None
    try:
        _check_tokens(path, text)
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigInvalid(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigInvalid(f"{path}: expected sections such as 'training:', found {type(values).__name__}.")
    return values


def _check_tokens(path: Path, text: str) -> None:
    depth = 0
    for token in yaml.scan(text):
        # An alias (*name) lets a few lines stand for gigabytes; a config needs none.
        if isinstance(token, yaml.AliasToken):
            raise ConfigInvalid(f"{path} uses a YAML alias (*name). Write the value out.")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        # The parser calls itself at each level, and needs hours for thousands of them.
        if depth > _MAX_DEPTH:
            raise ConfigInvalid(f"{path} is nested more than {_MAX_DEPTH} levels deep: that is no config file.")


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value


def _explain(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] != "extra_forbidden":
        return _with_found(
            f"{key}: {error['msg'].removeprefix('Value error, ')}", _PASSWORD.sub(r"\1\2:***", repr(error["input"]))
        )
    return f"{key}: unknown setting. {nearest_setting(key)}".strip()


def _with_found(told: str, found: str) -> str:
    """Return what is wrong, with what was found, once: an error of our own says it already."""
    return told if f"found {found}" in told else f"{told}; found {found}."


def nearest_setting(key: str) -> str:
    """Return a sentence that names the setting nearest to an unknown dotted key, or an empty text."""
    known = [f"{section}.{field}" for section, part in Config.model_fields.items() for field in _fields(part)]
    *_, leaf = key.split(".")
    same_leaf = [dotted for dotted in known if dotted.rpartition(".")[2] == leaf]
    section = key.partition(".")[0]
    siblings = [dotted for dotted in known if dotted.partition(".")[0] == section] if "." in key else []
    close = same_leaf or difflib.get_close_matches(key, siblings, n=1, cutoff=0.75)
    if siblings and not close:
        # The section's name alone makes any two of its settings look alike: their own names must be near.
        names = [dotted.rpartition(".")[2] for dotted in siblings]
        near = difflib.get_close_matches(leaf, names, n=1, cutoff=0.5)
        return f"Did you mean '{section}.{near[0]}'?" if near else f"Known: {', '.join(siblings)}."
    close = close or difflib.get_close_matches(key, [*known, *Config.model_fields], n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(Config.model_fields)}."


def _fields(part: Any) -> list[str]:
    return list(part.annotation.model_fields)
