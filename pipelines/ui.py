"""Open the MLflow UI on the project's runs and models, with the registry that says no."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.serve_mlflow import Host, Port

if TYPE_CHECKING:
    from medvision.config import Config

Auth = Annotated[bool, typer.Option("--auth", help="Ask who it is: MLflow's accounts, made in its UI under /signup.")]


def ui(
    port: Port = 5000, host: Host = "127.0.0.1", auth: Auth = False, config: ConfigFile = None, set_: Set = None
) -> None:
    """Start the MLflow UI, with the gate before promotions; this machine only by default."""
    settings = configure(config, None, set_)
    command = _server(settings, host, port)
    if auth:
        command += ["--app-name", "basic-auth"]
        os.environ.update(_accounts(settings))
    say(f"MLflow UI on http://{host}:{port} (stop with Ctrl-C)")
    # Job execution, which nobody here uses, would start seven more processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # In place of this process, so that signals reach the server itself.
    os.execv(sys.executable, command)


def _server(config: Config, host: str, port: int) -> list[str]:
    from medvision.errors import ConfigInvalid
    from medvision.files import project_root
    from medvision.tracking.mlflow_sink import registry_uri, tracking_uri

    uri = tracking_uri(config)
    if uri.startswith("http"):
        raise ConfigInvalid(f"The runs are on a server, which has its own UI: {uri}")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--registry-store-uri", registry_uri(config), "--workers", "1"]
    return [*command, "--default-artifact-root", str(project_root() / "mlruns"), "--host", host, "--port", str(port)]


def _accounts(config: Config) -> dict[str, str]:
    from medvision.registry.accounts import ADMIN, prepare_accounts

    variables, password = prepare_accounts(config.paths.state)
    if password is not None:
        say(f"!! First start with accounts. Sign in as {ADMIN} with the password {password}")
        say("!! It is shown this once. Make an account for each person: /signup in the UI, once signed in.")
    return variables


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(ui)
