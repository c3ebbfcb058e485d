"""MLproject, conda.yaml and the commands are one and the same."""

import re
import shlex

import pytest
import typer.main
import yaml
from medvision_project import DATASET, ROOT

from medvision.cli import app

STEPS = (
    "adapt", "normalize", "audit", "train", "ensemble", "test", "evaluate", "compare", "validate", "verify", "register",
    "approve", "promote", "rollback", "archive", "history", "evidence", "serve", "serve-api", "predict", "audit-log",
    "ui", "pipeline",
)  # fmt: skip
# `serve` is MLflow's own server, as users of MLflow expect; the service has the shorter command.
COMMANDS = {"serve": "serve-mlflow", "serve-api": "serve"}
MODULES = {"serve": "serve_mlflow"}
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS = MLPROJECT["entry_points"]


def options(step):
    """Return the options of a command: parameters by their long name."""
    command = typer.main.get_command(app).commands[COMMANDS.get(step, step)]
    return {name: parameter for parameter in command.params for name in parameter.opts if name.startswith("--")}


def arguments_of(step):
    """Return the names of a command's arguments, in their order."""
    command = typer.main.get_command(app).commands[COMMANDS.get(step, step)]
    return [parameter.name for parameter in command.params if parameter.param_type_name == "argument"]


def test_every_step_is_an_entry_point():
    """MLproject has every step that works on a project, and main."""
    assert set(ENTRY_POINTS) == {*STEPS, "main"}


def test_main_is_the_pipeline():
    """`mlflow run .` is `mlflow run . -e pipeline`."""
    assert ENTRY_POINTS["main"] == ENTRY_POINTS["pipeline"]


@pytest.mark.parametrize("step", STEPS)
def test_entry_point_runs_its_step(step):
    """An entry point runs its own step, and passes each parameter to the argument or option of the same name."""
    program, *words = shlex.split(ENTRY_POINTS[step]["command"])
    assert [program, *words[:2]] == ["python", "-m", f"pipelines.{MODULES.get(step, step.replace('-', '_'))}"]
    arguments = arguments_of(step)
    first = 2 + len(arguments)
    assert words[2:first] == [f"{{{name}}}" for name in arguments]
    passed = dict(zip(words[first::2], words[first + 1 :: 2], strict=True))
    names = set(ENTRY_POINTS[step]["parameters"]) - set(arguments)
    assert passed == {f"--{name.replace('_', '-')}": f"{{{name}}}" for name in names}
    assert passed.keys() <= options(step).keys()


@pytest.mark.parametrize("step", STEPS)
def test_entry_point_has_the_options_of_the_step(step):
    """Whatever a command takes, except how it prints, its entry point takes as a parameter, flags as true or false."""
    own = set(options(step)) - {"--json", "--verbose", "--help"}
    taken = set(ENTRY_POINTS[step]["parameters"]) - set(arguments_of(step))
    assert {f"--{name.replace('_', '-')}" for name in taken} == own


@pytest.mark.parametrize("step", STEPS)
def test_defaults_are_those_of_the_step(step):
    """A parameter's default is the option's, or empty, or what config/config.yaml says."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for name, parameter in ENTRY_POINTS[step]["parameters"].items():
        if name in arguments_of(step):
            continue
        own = options(step)[f"--{name.replace('_', '-')}"].default
        default = parameter.get("default", "")
        configured = config["training"].get(name)
        assert default == "" or str(default).lower() in {str(own).lower(), str(configured)}, name


def test_conda_yaml_pins_what_the_lock_pins():
    """conda.yaml names versions that requirements.lock names."""
    versions = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    pip = next(entry for entry in _conda()["dependencies"] if isinstance(entry, dict))["pip"]
    pins = dict(re.sub(r"\[\w+\]", "", requirement).split("==") for requirement in pip)
    assert pins
    assert {name: version for name, version in pins.items() if version not in versions[name]} == {}


def test_conda_yaml_has_every_dependency():
    """Each dependency of pyproject.toml stands in the pip part of conda.yaml, the only part that uv reads."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    needed = set(re.findall(r'^  "([\w-]+)', section, re.MULTILINE))
    pip = next(entry for entry in _conda()["dependencies"] if isinstance(entry, dict))["pip"]
    assert needed <= {re.match(r"[\w-]+", requirement)[0] for requirement in pip}


def _conda():
    return yaml.safe_load((ROOT / MLPROJECT["conda_env"]).read_text())


def test_a_step_is_a_module_too(project):
    """`python -m pipelines.STEP` is `medvision STEP`."""
    by_module = project.run("python", "-m", "pipelines.register", "--help")
    by_command = project.run("medvision", "register", "--help")
    assert by_module.code == by_command.code == 0
    assert _options_shown(by_module) == _options_shown(by_command)


def _options_shown(outcome):
    shown = re.findall(r"--[a-z][\w-]+", outcome.out)
    assert "--version" in shown
    return shown


@pytest.mark.slow
def test_mlflow_run_is_the_same_step(project):
    """`mlflow run . -e audit` audits in the launcher's own run, which ends FINISHED with our tags."""
    known = {run.info.run_id for run in project.runs()}
    parameters = ("-P", f"dataset_path={DATASET}", "-P", r"patient_pattern=(phantom\d+)")
    quiet = ("-P", "set=tracking.wandb=false tracking.tensorboard=false")
    outcome = project.run("mlflow", "run", ".", "-e", "audit", "--env-manager", "local", *parameters, *quiet)
    assert outcome.code == 0, outcome.err
    (run,) = (run for run in project.runs() if run.info.run_id not in known)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.source.type"] == "PROJECT"
    assert (run.data.tags["medvision.step"], run.data.tags["medvision.dataset"]) == ("audit", DATASET)
