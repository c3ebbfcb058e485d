"""Answer image files with a registered model: its scores, and the decisions that were frozen with it."""

from __future__ import annotations

import csv
import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medvision.config import Config
    from medvision.errors import DecodeRejected
    from medvision.registry.packages import FoundModel
    from medvision.serving.batches import Answer
    from medvision.serving.predictor import Predictor

_LOG = logging.getLogger("medvision.predict")

RegisteredModel = Annotated[str, typer.Argument(help="NAME/3, NAME/1.2.0, NAME@champion, or a models:/ URI.")]
Paths = Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")]
Out = Annotated[
    Path | None, typer.Option(help="File for the answers: .csv, .json or .parquet; CSV is printed if none.")
]

_SUFFIXES = (".csv", ".json", ".parquet")
_BATCH = 64


@dataclass(frozen=True)
class Answered:
    """How many files were answered, and by which model."""

    model: str
    version: str
    package_digest: str
    n: int
    out: str | None


def predict(
    model: RegisteredModel, paths: Paths, out: Out = None, config: ConfigFile = None, set_: Set = None
) -> Answered:
    """Answer image files and folders with a registered model that is validated."""
    settings = configure(config, None, set_)
    return run_predict(settings, model, paths, out)


def run_predict(config: Config, model: str, paths: Sequence[Path], out: Path | None = None) -> Answered:
    """Answer every file that can be read; DataInvalid, once all others are answered and written, if any can't be."""
    from medvision.errors import DataInvalid, DecodeRejected
    from medvision.registry.gate import VERDICTS
    from medvision.registry.packages import look_up, open_package
    from medvision.serving.trust import require_verdict
    from medvision.tracking.mlflow_sink import prepare, tracking_uri

    _check_out(out)
    files = list_files(paths)
    prepare()
    uri = tracking_uri(config)
    found = look_up(uri, model, again="predict")
    with open_package(uri, found) as (package, beside):
        # Nothing that lies beside the package is run here.
        predictor = _load(package, config)
        require_verdict(found.name, predictor.digest, beside.path(VERDICTS), state=config.paths.state)
    answers = list(_answer(predictor, files, config))
    rows = [_row(path, answer, predictor, found) for path, answer in zip(files, answers, strict=True)]
    _write(rows, predictor, out)
    failed = [str(path) for path, answer in zip(files, answers, strict=True) if isinstance(answer, DecodeRejected)]
    _LOG.info("%s: %d of %d files answered.", found.uri, len(files) - len(failed), len(files))
    if failed:
        raise DataInvalid(
            f"{len(failed)} of {len(files)} files are no readable images, the first is {failed[0]}: their rows say "
            "why. All others were answered."
        )
    return Answered(found.name, found.number, predictor.digest, len(files), None if out is None else str(out))


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named, and those in the folders that are, sorted in each; each once.

    Raises ConfigInvalid for what is not there, and if there is nothing to answer.
    """
    from medvision.data.sources import walk_files
    from medvision.errors import ConfigInvalid

    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise ConfigInvalid(f"There is no file or folder {path}.")
        files.update(dict.fromkeys(sorted(walk_files(path)) if path.is_dir() else [path]))
    if not files:
        raise ConfigInvalid(f"There is no image in {', '.join(map(str, paths))}.")
    return list(files)


def _check_out(out: Path | None) -> None:
    from medvision.errors import ConfigInvalid

    if out is not None and out.suffix.lower() not in _SUFFIXES:
        raise ConfigInvalid(f"--out expects a file that ends in {', '.join(_SUFFIXES)}; found {str(out)!r}.")


def _load(package: Path, config: Config) -> Predictor:
    from medvision.models.devices import choose_device
    from medvision.serving.predictor import Predictor

    return Predictor(package, device=choose_device(config.performance), batch_size=_BATCH)


def _answer(predictor: Predictor, files: Sequence[Path], config: Config) -> Iterator[Answer | DecodeRejected]:
    from medvision.data.parallel import with_progress
    from medvision.serving.batches import answer_files

    workers = max(1, os.cpu_count() or 1 if config.performance.workers is None else config.performance.workers)
    answers = answer_files(predictor, files, batch_size=_BATCH, workers=workers)
    return with_progress(answers, len(files), "Predicting")


def _row(path: Path, answer: Answer | DecodeRejected, predictor: Predictor, found: FoundModel) -> dict[str, Any]:
    """Return a row; of a file that could not be read, it has the error and nothing else."""
    from medvision.errors import DecodeRejected

    origin = {"model": found.name, "version": found.version or found.number, "package_digest": predictor.digest}
    if isinstance(answer, DecodeRejected):
        return {"path": str(path), "error": str(answer), **origin}
    prediction, distance = answer.prediction, answer.domain_distance
    decision = predictor.decide(prediction)
    row: dict[str, Any] = {"path": str(path), "label": prediction.label, "confidence": prediction.confidence}
    row |= {f"probability_{name}": value for name, value in prediction.probabilities.items()}
    if distance is not None:
        row |= {"domain_distance": distance, "indeterminate": distance > 1}
    if decision.prediction_set is not None:
        row |= {"prediction_set": list(decision.prediction_set), "abstained": decision.is_abstention}
    return row | {f"called_{name}": is_called for name, is_called in decision.calls.items()} | origin


def _columns(predictor: Predictor) -> list[tuple[str, str]]:
    """Return the columns of the table, each with its type."""
    info = predictor.info
    return [
        ("path", "text"),
        ("label", "text"),
        ("confidence", "number"),
        *((f"probability_{name}", "number") for name in info.classes),
        *([] if info.domain is None else [("domain_distance", "number"), ("indeterminate", "flag")]),
        *([] if info.conformal is None else [("prediction_set", "texts"), ("abstained", "flag")]),
        *((f"called_{point.class_name}", "flag") for point in info.operating_points),
        ("error", "text"),
        ("model", "text"),
        ("version", "text"),
        ("package_digest", "text"),
    ]


def _write(rows: list[dict[str, Any]], predictor: Predictor, out: Path | None) -> None:
    from medvision.files import write_json, write_text

    columns = _columns(predictor)
    table = [{name: row.get(name) for name, _ in columns} for row in rows]
    if out is None:
        say(_csv(table).rstrip("\n"))
    elif out.suffix.lower() == ".csv":
        write_text(out, _csv(table))
    elif out.suffix.lower() == ".json":
        write_json(out, table)
    else:
        _write_parquet(out, table, columns)


def _csv(table: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()})
    return text.getvalue()


def _write_parquet(out: Path, table: list[dict[str, Any]], columns: list[tuple[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medvision.files import atomic_write

    types = {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_(), "texts": pa.list_(pa.string())}
    schema = pa.schema([(name, types[kind]) for name, kind in columns])
    atomic_write(out, lambda file: pq.write_table(pa.Table.from_pylist(table, schema), file))


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(predict)
