"""Serve a registered model with MLflow's own server."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

RegisteredModel = Annotated[str, typer.Option("--model", help="NAME/NUMBER, NAME@alias, or a models:/ URI.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Host = Annotated[str, typer.Option(help="Address to listen on; this machine only by default.")]


def serve(
    model: RegisteredModel,
    port: Port = 5001,
    host: Host = "127.0.0.1",
    config: ConfigFile = None,
    set_: Set = None,
) -> None:
    """Serve a registered model: base64 images in, label, confidence and probabilities out."""
    from medvision.tracking.mlflow_sink import tracking_uri

    uri = model if model.startswith("models:/") else f"models:/{model}"
    say(f"Serving {uri} on http://{host}:{port}/invocations (stop with Ctrl-C)")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(configure(config, None, set_))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    # In place of this process, so that signals reach the server itself.
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(serve)
