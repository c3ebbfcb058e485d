"""Records a run: a recorder writes to the run's journal and to nothing else, and couriers deliver it meanwhile.

A run that is opened is ended, whatever happens to it: FINISHED, FAILED or KILLED. What the tracking server could not
take stays in the outbox, where ``medvision sync`` finds it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvision.config import Config, flatten
from medvision.files import project_root
from medvision.tracking import environment, hardware, mlflow_sink
from medvision.tracking.delivery import Courier, Delivery, Sink, discard_files
from medvision.tracking.journal import Journal, outbox
from medvision.tracking.mlflow_sink import MlflowSink
from medvision.tracking.sync import sync

_LOG = logging.getLogger(__name__)

_HARDWARE_PERIOD_S = 10.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Recorder:
    """Records one run, from any process or thread: it holds nothing but the path of the run's folder."""

    folder: Path

    @property
    def run_key(self) -> str:
        """Return the run's own key: with it the run can be continued, and found in MLflow and W&B."""
        return self.folder.name

    def params(self, values: dict[str, Any]) -> None:
        """Record settings, each key once; sections become dotted names, such as ``training.epochs``."""
        self._append("params", values={_safe(name): value for name, value in flatten(values).items()})

    def tags(self, values: dict[str, Any]) -> None:
        """Record tags; a later value replaces an earlier one."""
        self._append("tags", values={_safe(name): value for name, value in values.items()})

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record figures of one step; a (name, step) that is already recorded is left as it is."""
        self._append("metrics", values={_safe(name): float(value) for name, value in values.items()}, step=int(step))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or a folder of files, as it is now, into ``folder`` of the run's artifacts."""
        self._append("artifact", file=Journal(self.folder).keep(path), folder=folder)

    def dataset(self, name: str, *, digest: str, source: str, profile: dict[str, Any], context: str) -> None:
        """Record the data that the run uses: its fingerprint, where it is, its counts, and what for (train, test)."""
        self._append("dataset", name=name, digest=digest, source=source, profile=profile, context=context)

    def model(
        self, name: str, *, package_dir: Path, code_path: Path, pip_requirements: list[str], metadata: dict[str, Any]
    ) -> None:
        """Record a model package as an MLflow model, which answers base64 images.

        Parameters
        ----------
        package_dir: the model package, which the code finds as ``context.artifacts["package"]``.
        code_path: Python file that ends in ``mlflow.models.set_model(...)``; it is run once here.
        """
        journal = Journal(self.folder)
        with journal.new_place("model") as place:
            mlflow_sink.save_model(
                place,
                package_dir=package_dir,
                code_path=code_path,
                pip_requirements=pip_requirements,
                metadata=metadata,
            )
        journal.append("model", name=name, file=journal.relative(place))

    def flush(self, timeout_s: float) -> bool:
        """Wait until MLflow has all that was recorded before this call; tell whether it has."""
        journal = Journal(self.folder)
        size_bytes, deadline = journal.size_bytes(), time.monotonic() + timeout_s
        while journal.bookmark(mlflow_sink.NAME).delivered_bytes < size_bytes:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def run_id(self) -> str | None:
        """Return the id that MLflow gave to the run; None until it has."""
        return self._mlflow_id("run_id")

    def model_id(self) -> str | None:
        """Return the id that MLflow gave to the last model that was recorded; None until it has."""
        return self._mlflow_id("model_id")

    def _mlflow_id(self, key: str) -> str | None:
        return Journal(self.folder).bookmark(mlflow_sink.NAME).read().get(key)

    def _append(self, kind: str, **content: Any) -> None:
        Journal(self.folder).append(kind, **content)


@contextlib.contextmanager
def open_run(
    config: Config, *, step: str, name: str | None = None, run_key: str | None = None, parent: Recorder | None = None
) -> Iterator[Recorder]:
    """Open a run, deliver it while it lasts, and end it: FINISHED, or FAILED or KILLED by what is raised.

    Parameters
    ----------
    step: the pipeline's step, such as ``train``.
    name: what people see; the step's name if None.
    run_key: key of an earlier run, which is continued.
    parent: the run in which this one is nested.

    The outermost run waits at its end, at most ``tracking.drain_s``, for what is not delivered yet; a nested one leaves
    that to it.

    Raises
    ------
    TryAgainLater: the run to be continued belongs to a process that is alive.
    """
    journal = Journal(outbox(config.paths.state) / (run_key or uuid.uuid4().hex))
    recorder = Recorder(journal.folder)
    with journal.owned():
        mlflow_sink.prepare()
        mlflow_sink.make_database(mlflow_sink.tracking_uri(config))
        _start(journal, config, step=step, name=name or step, parent=parent, is_new=run_key is None)
        with _delivered(journal, config, is_nested=parent is not None):
            try:
                with _hardware_sampled(recorder):
                    yield recorder
            except BaseException as error:
                journal.append("end", status=_status(error))
                raise
            journal.append("end", status="FINISHED")


def _start(journal: Journal, config: Config, *, name: str, step: str, parent: Recorder | None, is_new: bool) -> None:
    """Record the start; the first run of a process that ``mlflow run`` started continues the launcher's run."""
    is_launched = is_new and parent is None
    tags = {**mlflow_sink.source_tags(), **environment.git_tags(project_root()), "medvision.step": step}
    tags |= {f"system.{key}": value for key, value in hardware.describe().items()}
    if config.tracking.wandb:
        tags["wandb.run_id"] = journal.run_key
    journal.append(
        "start",
        experiment=config.tracking.experiment or config.dataset_name,
        run_name=name,
        mlflow_run_id=os.environ.pop("MLFLOW_RUN_ID", None) if is_launched else None,
        parent_run_key=parent.run_key if parent else None,
        tracking_uri=mlflow_sink.without_credentials(mlflow_sink.tracking_uri(config)),
        tags=tags,
    )
    with journal.new_place("packages.txt") as place:
        place.write_text(environment.packages(), encoding="utf-8")
    journal.append("artifact", file=journal.relative(place), folder="environment")


@contextlib.contextmanager
def _delivered(journal: Journal, config: Config, *, is_nested: bool) -> Iterator[None]:
    """Deliver a run while it lasts; the outermost run also waits, and brings in what others had to leave behind."""
    mlflow = MlflowSink(journal, mlflow_sink.tracking_uri(config))
    couriers = [Courier(journal, sink) for sink in (mlflow, *_optional_sinks(journal, config))]
    for courier in couriers:
        courier.start()
    try:
        yield
    finally:
        deadline = time.monotonic() + config.tracking.drain_s
        for courier in couriers:
            courier.finish(deadline, is_patient=not is_nested)
        n_pending = len(Delivery(journal, mlflow).pending())
        if not n_pending and not any(courier.is_alive() for courier in couriers):
            discard_files(journal)
        if not is_nested:
            _warn_of_pending(n_pending or sync(config, timeout_s=0).pending)


def _warn_of_pending(n_pending: int) -> None:
    if n_pending:
        _LOG.warning("%d events are pending; run `medvision sync` when the tracking server is back.", n_pending)


def _optional_sinks(journal: Journal, config: Config) -> Iterator[Sink]:
    # Imported here, in the main thread, and only where they are wanted: together they cost more than a second.
    if config.tracking.tensorboard:
        from medvision.tracking.tensorboard_sink import TensorboardSink

        yield TensorboardSink(journal, config.paths.tensorboard)
    if config.tracking.wandb:
        # Read at the import: W&B reports its own errors to its makers, also when it is offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            from medvision.tracking.wandb_sink import WandbSink

            yield WandbSink(journal, project_root())
        except Exception as error:
            _LOG.warning("W&B is off for this run: %s: %s", type(error).__name__, error)


@contextlib.contextmanager
def _hardware_sampled(recorder: Recorder) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_sample_hardware, args=(recorder, stop), name="hardware", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sample_hardware(recorder: Recorder, stop: threading.Event) -> None:
    """Record the machine's load at once, then periodically and at the end; the step is the run's age in seconds.

    An age, unlike the number of a sample, goes on where it was when a run is continued.
    """
    started_ms = Journal(recorder.folder).started_ms()
    is_last = False
    while True:
        age_s = (time.time_ns() // 1_000_000 - started_ms) // 1000
        recorder.metrics({f"system/{name}": value for name, value in hardware.sample().items()}, step=age_s)
        if is_last:
            return
        is_last = stop.wait(_HARDWARE_PERIOD_S)


def _status(error: BaseException) -> str:
    # 130 and 143 are how a shell names an end by SIGINT and by SIGTERM.
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code in (130, 143)):
        return "KILLED"
    if isinstance(error, SystemExit) and not error.code:
        return "FINISHED"
    return "FAILED"


def _safe(name: str) -> str:
    # What MLflow allows in a name; class names of a dataset may hold anything.
    return re.sub(r"[^\w./: -]", "_", name)[:250]
