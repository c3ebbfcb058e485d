"""W&B as a sink: the same curves and tags; offline unless a key is set. It prints nothing and never stops a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import wandb

from medvision.tracking.journal import Event, Journal

# What people look for among the files of a W&B run, and the folders of reports.
_CHECKPOINT = "best_model.pth"
_REPORTS = ("evaluation", "comparison", "validation")
# W&B is a service elsewhere: what shows images or rows of patients stays away from it.
_OF_PATIENTS = ("worst_mistakes.png", "evaluation_report.html", "predictions.parquet")


class WandbSink:
    """Delivers one journal to one W&B run, whose id is the run's key."""

    name = "wandb"

    def __init__(self, journal: Journal, root: Path) -> None:
        self._journal = journal
        self._root = root
        self._run: Any = None

    def deliver(self, kind: str, events: list[Event]) -> None:
        """Log events of one kind; what W&B has no place for is left out."""
        self._run = self._run or self._init()
        for event in events:
            content = event.content
            if kind == "metrics":
                self._log_metrics(content["values"], content["step"])
            elif kind == "params":
                self._run.config.update(content["values"], allow_val_change=True)
            elif kind == "tags":
                self._run.summary.update(content["values"])
            elif kind == "artifact":
                self._keep(self._journal.folder / content["file"], content["folder"])
            elif kind == "end":
                self._finish(content["status"])

    def close(self) -> None:
        """Do nothing: the end of the run has finished it."""

    def _init(self) -> Any:
        start = self._journal.events()[0].content
        is_online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
        (self._root / "wandb").mkdir(exist_ok=True)
        run = wandb.init(
            project=start["experiment"],
            name=start["run_name"],
            id=self._journal.run_key,
            group=start["parent_run_key"],
            dir=str(self._root),
            config={"mlflow_run_key": self._journal.run_key},
            resume="allow" if is_online else None,
            settings=_settings(is_online),
        )
        # W&B's own step must grow from call to call, and hardware figures have another one than epochs.
        run.define_metric("*", step_metric="epoch")
        run.define_metric("system/*", step_metric="system/age_s")
        return run

    def _keep(self, file: Path, folder: str) -> None:
        """Put a checkpoint, or a report that shows no patient, among the run's files."""
        if file.name == _CHECKPOINT:
            shutil.copyfile(file, Path(self._run.dir) / _CHECKPOINT)
        elif folder in _REPORTS and file.is_file() and file.name not in _OF_PATIENTS:
            (Path(self._run.dir) / folder).mkdir(exist_ok=True)
            shutil.copyfile(file, Path(self._run.dir) / folder / file.name)

    def _log_metrics(self, values: dict[str, float], step: int) -> None:
        axes = {"system/age_s" if name.startswith("system/") else "epoch": step for name in values}
        self._run.log({**values, **axes})

    def _finish(self, status: str) -> None:
        ids = self._journal.bookmark("mlflow").read()
        self._run.config.update({"mlflow_run_id": ids.get("run_id")}, allow_val_change=True)
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)
        self._run = None


def _settings(is_online: bool) -> wandb.Settings:
    return wandb.Settings(
        mode="online" if is_online else "offline",
        silent=True,
        console="off",
        # Several runs of a pipeline are open at once.
        reinit="create_new",
        # Our own hardware figures are the same in all sinks.
        x_disable_stats=True,
        finish_timeout=30,
    )
