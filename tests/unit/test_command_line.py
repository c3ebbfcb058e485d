"""The border of the command line: exit codes, one clear message, and no heavy import for a question."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

RUN = "from medvision.cli import main; main()"


@pytest.fixture
def medvision(tmp_path):
    """Run a command in an empty project, without a server and without W&B."""
    (tmp_path / "MLproject").write_text("name: test\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "WANDB_"))}

    def run(*arguments, script=RUN):
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def broken(tmp_path):
    """Return a dataset of two classes with an empty file among its images."""
    for i in range(6):
        path = tmp_path / "broken" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    (tmp_path / "broken" / "a" / "empty.png").touch()
    return tmp_path / "broken"


def test_help_is_quick(medvision):
    """--help takes less than 0.5 s of processor time, in the best of 5 runs, and names every step."""
    script = "import resource\ntry:\n    from medvision.cli import main; main()\nfinally:\n    import sys\n"
    script += (
        "    used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, file=sys.stderr)"
    )
    shown = [medvision("--help", script=script) for _ in range(5)]
    assert min(float(result.stderr) for result in shown) < 0.5
    for step in ("normalize", "audit", "train", "evaluate", "validate", "register", "serve", "ui", "pipeline"):
        assert step in shown[0].stdout
    assert {result.returncode for result in shown} == {0}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["pipeline", "--help"]])
def test_help_loads_nothing_heavy(medvision, arguments):
    """Help loads neither torch nor MLflow."""
    script = (
        "import sys\ntry:\n    from medvision.cli import main; main()\nfinally:\n"
        "    heavy = {'torch', 'mlflow', 'lightning', 'timm', 'albumentations', 'wandb', 'pandas', 'sklearn'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = medvision(*arguments, script=script)
    assert result.returncode == 0 and result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["train", "--learnig-rate", "1"], ["trian"], ["train", "--epochs", "many"], ["train", "--epochs", "0"]],
)
def test_usage_errors(medvision, arguments):
    """An unknown option or step, or a value of the wrong type, exits with 2 and no traceback."""
    result = medvision(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and result.stderr


def test_config_errors(medvision):
    """An unknown setting exits with 2, naming the nearest, without a traceback."""
    result = medvision("audit", "--set", "training.epoch=3")
    assert result.returncode == 2
    assert "training.epochs" in result.stderr and "Traceback" not in result.stderr


def test_empty_options_are_not_given(medvision):
    """An option with an empty value, as MLflow passes what was not given, is as if it was left out."""
    given = medvision("audit", "--dataset-path", "", "--patient-pattern", "", "--on-leak", "")
    left_out = medvision("audit")
    assert given.returncode == left_out.returncode == 2
    assert given.stderr == left_out.stderr and "--dataset-path" in given.stderr


def test_invalid_data(medvision, broken):
    """An unreadable image exits with 5 and one message that names file and reason, without a traceback."""
    result = medvision("audit", "--dataset-path", broken, "--set", "tracking.wandb=false")
    assert result.returncode == 5, result.stderr
    assert f"{broken}/a/empty.png: not a readable image" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_json(medvision, tmp_path):
    """With --json standard output is JSON and nothing else: what people read goes to standard error."""
    result = medvision("phantom", "--json", "--folder", tmp_path / "made", "--patients", "3")
    assert result.returncode == 0, result.stderr
    assert isinstance(json.loads(result.stdout), dict) and "Synthetic" in result.stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number, exit_code):
    """Ctrl-C and SIGTERM exit with 130 and 143, without a traceback."""
    script = (
        "import time, medvision.cli as cli\n"
        "def wait(arguments):\n    print('ready', flush=True); time.sleep(60)\n"
        "cli.app = wait; cli.main([])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == exit_code and "Traceback" not in errors


def test_exit_codes():
    """Every error of the tree has one of the documented exit codes, each status an HTTP error."""
    from medvision import errors

    def tree(kind):
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    codes = {kind.__name__: kind.exit_code for kind in tree(errors.MedvisionError)[1:]}
    assert set(codes.values()) <= {2, 3, 4, 5, 75}
    assert codes["GateFailed"] == 3 and codes["DecodeRejected"] == 5 and codes["DiskFull"] == 75
    assert all(400 <= kind.http_status < 600 for kind in tree(errors.MedvisionError))
