"""Serve a registered model with MLflow's own server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import open_registry

if TYPE_CHECKING:
    from medvision.config import Config

RegisteredModel = Annotated[str, typer.Option("--model", help="NAME/3, NAME/1.2.0, NAME@champion, or a models:/ URI.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Host = Annotated[str, typer.Option(help="Address to listen on; this machine only by default.")]


def serve_mlflow(
    model: RegisteredModel,
    port: Port = 5001,
    host: Host = "127.0.0.1",
    config: ConfigFile = None,
    set_: Set = None,
) -> None:
    """Serve a registered model: base64 images in, label, confidence and probabilities out."""
    from medvision.registry.packages import models_uri

    settings, uri = configure(config, None, set_), models_uri(model)
    check_servable(settings, model)
    say(f"Serving {uri} on http://{host}:{port}/invocations (stop with Ctrl-C)")
    command = serve_command(uri, port=port, host=host)
    # In place of this process, so that signals reach the server itself.
    os.execve(sys.executable, command, serve_environment(settings))


def check_servable(config: Config, model: str) -> None:
    """Raise what the model would refuse to answer for, before MLflow starts a server: GateFailed, CheckpointCorrupt.

    MLflow runs the code that lies beside the package before any check of ours: it is checked here.
    """
    from medvision.models.package_files import verify_digest
    from medvision.registry.gate import VERDICTS
    from medvision.registry.packages import look_up, open_package, promoted_code
    from medvision.serving.trust import require_loader, require_verdict, trusted_keys
    from medvision.tracking.mlflow_sink import tracking_uri

    client, state = open_registry(config), config.paths.state
    found = look_up(tracking_uri(config), model, again="serve-mlflow")
    with open_package(tracking_uri(config), found) as (package, files):
        require_verdict(found.name, verify_digest(package), files.path(VERDICTS), state=state)
        require_loader(found.name, files, promoted_code(client, found, trusted_keys(state)))


def serve_command(uri: str, *, port: int, host: str) -> list[str]:
    """Return the command that serves a model of the registry."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    return [*command, "--host", host, "--port", str(port)]


def serve_environment(config: Config | None = None) -> dict[str, str]:
    """Return the variables that the server needs: the registry, and a path on which MLflow finds its own uvicorn."""
    from medvision.tracking.mlflow_sink import tracking_uri

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri(config or configure()), "PATH": path}


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(serve_mlflow)
