"""A project folder as a user has it: MLproject and settings, a small synthetic dataset, and all that commands leave."""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from mlflow import MlflowClient

from medvision.cli import main
from medvision.data.phantom import make_phantom

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

DATASET = "brain-phantom"
MODEL = f"{DATASET}-simple_cnn"
ON_DATASET = ("--dataset-path", DATASET, "--patient-pattern", r"(phantom\d+)")
ON_MODEL = ("--model", "simple_cnn", "--dataset-path", DATASET)
# From scratch on 96 small images: after these epochs every class is found at least now and then.
RECIPE = ("--image-size", "32", "--batch-size", "8", "--lr", "3e-3")
N_EPOCHS = 8
# Two small networks: one of medvision's own, and one of timm's, whose name has a slash and a dot.
PAIR = ("simple_cnn", "timm/test_resnet.r160_in1k")
CRITICAL = "phantom_glioma"
# Two patients of a class in val can show a sensitivity of 0.22 and no more.
PAIR_SETTINGS = (
    f"training.batch_size=8 training.lr=3e-3 evaluation.replicates=200 evaluation.critical_classes=[{CRITICAL}] "
    "evaluation.target_sensitivity=0.2"
)
# Policies of the project's own, beside staging and production.
POLICIES = """
  lenient:
    value: {accuracy: 0.05, sensitivity: 0.01}
    latency_p95_ms: 10000
    audit: clean-or-handled
  easy:
    value: {accuracy: 0.05, sensitivity: 0.01}
    critical: [phantom_meningioma]
  plain:
    value: {accuracy: 0.05, sensitivity: 0.01}
  rival:
    value: {accuracy: 0.05, sensitivity: 0.01}
    non_inferiority: {figure: balanced_accuracy, margin: 0.03}
  strict:
    value: {accuracy: 1.0, sensitivity: 1.0, specificity: 1.0}
    latency_p95_ms: 0.001
  certain:
    value: {accuracy: 0.05, sensitivity: 0.01}
    bound: {accuracy: 0.9}
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Project:
    """A folder with a checkout's MLproject, conda.yaml and config, under git, and a dataset in it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("MLproject", "conda.yaml"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "config", folder / "config")
        self.write("config/validation.yaml", (ROOT / "config" / "validation.yaml").read_text() + POLICIES)
        make_phantom(folder / DATASET, patients_per_class=12, image_size=64)
        git = ("git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@localhost")
        for arguments in (["init", "-q"], ["add", "MLproject", "config"], ["commit", "-q", "-m", "A project."]):
            subprocess.run([*git, *arguments], check=True)
        self.commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()

    @property
    def client(self):
        """Return a client of the database that MLflow itself chooses in this folder."""
        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        return MlflowClient(uri, uri)

    def write(self, name, text):
        """Write a text file; return its path."""
        path = self.folder / name
        path.write_text(text)
        return path

    def json(self, name):
        """Return what stands in a JSON file."""
        return json.loads((self.folder / name).read_text())

    def start(self, *command):
        """Start a command in the folder, as in a fresh shell with the environment activated."""
        kept = fresh_environment()
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command):
        """Run a command to its end."""
        return finish(self.start(*command))

    def call(self, *arguments):
        """Run ``medvision ARGUMENTS`` in this process, which spares it the imports; without W&B and TensorBoard."""
        arguments = [*arguments, "--set", "tracking.wandb=false tracking.tensorboard=false"]
        out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        os.chdir(self.folder)
        try:
            # MLflow leaves the store that was last asked in a variable.
            with (
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _briefly_timed(),
                mock.patch.dict(os.environ, fresh_environment(), clear=True),
            ):  # fmt: skip
                main(arguments)
        except SystemExit as end:
            return Outcome(end.code, out.getvalue(), err.getvalue())
        finally:
            os.chdir(here)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def runs(self, step=None, **tags):
        """Return the runs of all experiments, newest first: those of a step, with these tags."""
        wanted = {f"medvision.{name}": value for name, value in {"step": step, **tags}.items() if value is not None}
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        found = self.client.search_runs(experiments, max_results=1000)
        return [run for run in found if wanted.items() <= run.data.tags.items()]

    def artifacts(self, run, folder=None):
        """Return a run's artifacts: the files on disk by their path in the run."""
        found = {}
        for entry in self.client.list_artifacts(run.info.run_id, folder):
            if entry.is_dir:
                found |= self.artifacts(run, entry.path)
            else:
                found[entry.path] = Path(run.info.artifact_uri.removeprefix("file://")) / entry.path
        return found

    def children(self, run):
        """Return the runs that are nested in a run."""
        return [child for child in self.runs() if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]

    def versions(self):
        """Return number and tags of every registered model version."""
        return {(found.name, found.version): found.tags for found in self.client.search_model_versions()}

    @contextlib.contextmanager
    def serving(self, *command, path):
        """Start a server on a free port, wait until it answers on ``path``, and end it and its workers."""
        port = free_port()
        log = self.folder / f"{Path(command[0]).name}-{port}.log"
        kept = fresh_environment()
        with log.open("w") as output:
            server = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=self.folder,
                env={**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait(lambda: server.poll() is not None or answers(url + path), 120)
            assert server.poll() is None, log.read_text()
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def fresh_environment():
    """Return the variables of a fresh shell: none of MLflow's and none of W&B's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_"))}


@contextlib.contextmanager
def _briefly_timed():
    """Let measurements of speed end after the fewest answers; they are not what a project is here for."""
    from medvision.evaluation import speed

    times = speed._times
    with mock.patch.object(speed, "_times", lambda answer, seconds, *fewest, **by: times(answer, 0, *fewest, **by)):
        yield


def finish(process, timeout_s=300):
    """Wait for a command's end."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def wait(is_so, timeout_s):
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.1)


def answers(url):
    """Tell whether a server answers with 200."""
    with contextlib.suppress(urllib.error.URLError, OSError):
        return urllib.request.urlopen(url, timeout=2).status == 200
    return False


def free_port():
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@functools.cache
def piped_project(parent):
    """Return a project whose dataset has gone through the whole pipeline, in a process of its own: once a session."""
    folder = parent / "project"
    folder.mkdir()
    project = Project(folder)
    options = ("--model", "simple_cnn", "--epochs", str(N_EPOCHS), "--policy", "lenient")
    project.outcome = project.run("medvision", "pipeline", *options, *ON_DATASET, *RECIPE)
    assert project.outcome.code == 0, project.outcome
    return project


@functools.cache
def compared_project(parent):
    """Return a project in which two models were trained and compared, in this process: once a session."""
    folder = parent / "compared-project"
    folder.mkdir()
    project = Project(folder)
    training = ("--epochs", str(N_EPOCHS), "--image-size", "32", "--pretrained", "false")
    project.outcome = project.call(
        "compare", "--models", " ".join(PAIR), *training, *ON_DATASET, "--set", PAIR_SETTINGS
    )
    assert project.outcome.code == 0, project.outcome
    return project
