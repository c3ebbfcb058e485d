"""TensorBoard as a sink: curves of all metrics, and the figures among the artifacts.

It writes event files with TensorBoard's own record writer: torch's would make every step of the pipeline wait for
torch, and TensorBoard's event writer gives files of one second names that sort as 10 before 9, so that a continued
curve would run backwards.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event as TensorboardEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from medvision.tracking.journal import Event, Journal

_LOG = logging.getLogger(__name__)


class TensorboardSink:
    """Delivers one journal to one folder of TensorBoard's."""

    name = "tensorboard"

    def __init__(self, journal: Journal, runs_dir: Path) -> None:
        self._journal = journal
        self._runs_dir = runs_dir
        self._writer: RecordWriter | None = None

    def deliver(self, kind: str, events: list[Event]) -> None:
        """Write metrics as curves and PNG artifacts as images, to the disk."""
        if kind not in ("metrics", "artifact"):
            return
        self._writer = self._writer or _next_file(run_folder(self._journal, self._runs_dir))
        for event in events:
            values = self._scalars(event) if kind == "metrics" else self._figure(event)
            if values:
                step = event.content.get("step", 0)
                record = TensorboardEvent(wall_time=event.at_ms / 1000, step=step, summary=Summary(value=values))
                self._writer.write(record.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer:
            self._writer.close()

    def _scalars(self, event: Event) -> list[Any]:
        return [Summary.Value(tag=name, simple_value=value) for name, value in event.content["values"].items()]

    def _figure(self, event: Event) -> list[Any]:
        path = self._journal.folder / event.content["file"]
        if path.suffix != ".png":
            return []
        image = Summary.Image(encoded_image_string=path.read_bytes())
        return [Summary.Value(tag=f"{event.content['folder']}/{path.stem}".lstrip("/"), image=image)]


def run_folder(journal: Journal, runs_dir: Path) -> Path:
    """Return where the curves of a run are written."""
    start = journal.events()[0].content
    name = start["run_name"].replace("/", "-")
    return runs_dir / start["experiment"] / f"{name}-{journal.run_key[:8]}"


def _next_file(folder: Path) -> RecordWriter:
    """Begin an event file that TensorBoard, which goes by names, reads after all others in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("events.out.tfevents.*")))
    writer = RecordWriter((folder / f"events.out.tfevents.{int(time.time()):010d}.{number:06d}").open("xb"))
    writer.write(TensorboardEvent(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    return writer


def write_graph(folder: Path, network: Any, example: Any) -> None:
    """Write the graph of a torch network, as it computes ``example``, beside a run's curves.

    A network that torch can't trace is named in the log, and does without.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer, warnings.catch_warnings():
        # Tracing warns of each shape that a network computes with, and of its own end.
        warnings.simplefilter("ignore")
        try:
            writer.add_graph(network, example)
        except RuntimeError as error:
            _LOG.warning("TensorBoard shows no graph of this network: %s", str(error).splitlines()[0])
