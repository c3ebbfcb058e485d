"""Open the MLflow UI on the project's runs and models."""

from __future__ import annotations

import os
import sys

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.serve import Host, Port


def ui(port: Port = 5000, host: Host = "127.0.0.1", config: ConfigFile = None, set_: Set = None) -> None:
    """Start the MLflow UI; this machine only by default."""
    from medvision.errors import ConfigInvalid
    from medvision.files import project_root
    from medvision.tracking.mlflow_sink import tracking_uri

    uri = tracking_uri(configure(config, None, set_))
    if uri.startswith("http"):
        raise ConfigInvalid(f"The runs are on a server, which has its own UI: {uri}")
    say(f"MLflow UI on http://{host}:{port} (stop with Ctrl-C)")
    # Job execution, which nobody here uses, would start seven more processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--default-artifact-root", str(project_root() / "mlruns"), "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(ui)
