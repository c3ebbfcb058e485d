"""The console command: every step of ``pipelines``, with one border where errors become messages and exit codes.

``medvision STEP``, ``python -m pipelines.STEP`` and ``mlflow run . -e STEP`` all come through ``main``. Importing this
module loads neither torch nor MLflow.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from medvision.errors import DiskFull, MedvisionError
from medvision.files import is_disk_full
from pipelines.adapt import adapt
from pipelines.approve import approve
from pipelines.archive import archive
from pipelines.audit import audit
from pipelines.audit_log import audit_log
from pipelines.compare import compare
from pipelines.console import leave_stdout_to_json
from pipelines.demo import demo
from pipelines.ensemble import ensemble
from pipelines.evaluate import evaluate
from pipelines.evidence import evidence
from pipelines.history import history
from pipelines.keys import keys
from pipelines.normalize import normalize
from pipelines.phantom import phantom
from pipelines.pipeline import pipeline
from pipelines.predict import predict
from pipelines.promote import promote
from pipelines.register import register
from pipelines.rollback import rollback
from pipelines.serve_api import serve
from pipelines.serve_mlflow import serve_mlflow
from pipelines.sync import sync
from pipelines.test import test
from pipelines.train import train
from pipelines.ui import ui
from pipelines.validate import validate
from pipelines.verify import verify

STEPS = (
    adapt, normalize, audit, train, ensemble, test, evaluate, compare, validate, verify, register, approve, promote,
    rollback, archive, history, evidence, serve, serve_mlflow, predict, audit_log,
    ui, pipeline, sync, keys, phantom, demo,
)  # fmt: skip

app = typer.Typer(
    help="From a folder of medical images to a validated, registered, served model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 2 usage, 3 gate failed, 4 conflict, 5 data, 75 try later, 130/143 signals."""
    signal.signal(signal.SIGINT, _exit_by_signal)
    signal.signal(signal.SIGTERM, _exit_by_signal)
    # Where another job has a core, OpenMP's threads spin while they wait for one another: an image took 90 to 1,500 ms
    # in place of 15. This is GNU's own value for too few cores, and costs little where there are enough.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app(_from_mlflow(sys.argv[1:] if arguments is None else arguments))
    except MedvisionError as error:
        _fail(error, error.exit_code)
    except (OSError, RuntimeError) as error:
        if not is_disk_full(error):
            raise
        _fail(error, DiskFull.exit_code)
    sys.exit(0)


def main_step(step: Callable[..., Any]) -> NoReturn:
    """Run one step with the arguments of the command line, as ``python -m pipelines.STEP`` does."""
    main([command_name(step), *sys.argv[1:]])


def command_name(step: Callable[..., Any]) -> str:
    """Return the name of a step as it is typed: audit-log is the function ``audit_log``."""
    return step.__name__.replace("_", "-")


def _fail(error: Exception, exit_code: int) -> NoReturn:
    print(f"medvision: {error}", file=sys.stderr)
    sys.exit(exit_code)


def _exit_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    # Once: a second Ctrl-C must not interrupt the recording of the first.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _from_mlflow(arguments: list[str]) -> list[str]:
    """Turn an entry point's parameters into options: MLflow gives each of them a value, flags and empty ones too."""
    flags = _flags(arguments[0]) if arguments else set()
    kept: list[str] = []
    for argument in arguments:
        option = kept[-1] if kept and kept[-1].startswith("--") else None
        if option in flags and argument in ("true", "false", ""):
            kept[-1:] = [option] if argument == "true" else []
        elif argument == "" and option:
            kept.pop()
        else:
            kept.append(argument)
    return kept


def _flags(step: str) -> set[str]:
    command = typer.main.get_command(app).commands.get(step)  # type: ignore[attr-defined]
    return (
        {name for option in command.params if getattr(option, "is_flag", False) for name in option.opts}
        if command
        else set()
    )


def _command(step: Callable[..., Any]) -> Callable[..., None]:
    """Add the options that every step has, and print its record as JSON where that was asked for."""

    @functools.wraps(step)
    def run(json_: bool, verbose: bool, **options: Any) -> None:
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("medvision").setLevel(logging.INFO)
        for chatty in ("mlflow", "lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(chatty).setLevel(logging.INFO if verbose else logging.WARNING)
        leave_stdout_to_json(json_)
        record = step(**options)
        if json_:
            from medvision.records import as_dict

            print(json.dumps(as_dict(record) if record is not None else {}, default=str))

    # Of the annotations only those of the options are evaluated: return types are imported for type checkers alone.
    own = [
        parameter.replace(annotation=eval(parameter.annotation, step.__globals__))
        for parameter in inspect.signature(step).parameters.values()
    ]
    common = [
        _option("json_", typer.Option("--json", help="Print the step's record as JSON.")),
        _option("verbose", typer.Option("--verbose", "-v", help="Also print what the libraries say.")),
    ]
    run.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *common)}
    return run


def _option(name: str, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])


for _step in STEPS:
    app.command(command_name(_step))(_command(_step))
