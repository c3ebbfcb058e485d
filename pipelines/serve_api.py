"""Serve the champion of a registered model: images in, audited answers out, and a page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import open_registry
from pipelines.serve_mlflow import Host, Port

ServedModel = Annotated[str, typer.Argument(help="NAME@champion, which is followed; or NAME/3, which stays.")]
Certificate = Annotated[Path | None, typer.Option(help="Certificate chain, PEM; HTTPS then.")]
PrivateKey = Annotated[Path | None, typer.Option(help="Its private key, PEM.")]
Engine = Annotated[str, typer.Option(help="onnx, torch or openvino.")]
Canary = Annotated[float, typer.Option(min=0, max=100, help="Share of the cases that the challenger answers, percent.")]
Shadow = Annotated[bool, typer.Option("--shadow", help="The challenger answers silently, into the audit log.")]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Ask for no API key; on this machine alone.")]


def serve(
    model: ServedModel,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    tls_cert: Certificate = None,
    tls_key: PrivateKey = None,
    engine: Engine = "onnx",
    canary: Canary = 0,
    shadow: Shadow = False,
    no_auth: NoAuth = False,
    config: ConfigFile = None,
    set_: Set = None,
) -> None:
    """Serve the champion of a registered model: every answer is in the audit log before it leaves."""
    from medvision.models.devices import choose_device
    from medvision.serving.app import build_app
    from medvision.serving.opening import Wish, open_service
    from medvision.serving.server import run_server
    from medvision.tracking.mlflow_sink import prepare, tracking_uri

    settings = configure(config, None, set_)
    _check_files(tls_cert, tls_key)
    prepare()
    client, uri = open_registry(settings), tracking_uri(settings)
    wish = Wish(model, engine, host, canary, shadow, not no_auth)
    with open_service(settings, client, uri, wish, choose_device(settings.performance)) as service:
        champion = service.roster.present.champion
        assert champion is not None
        scheme = "https" if tls_cert else "http"
        say(f"{champion.found.name} {champion.version} answers on {scheme}://{host}:{port} (stop with Ctrl-C)")
        _warn(champion.never_ruled_out, canary > 0 and service.roster.present.challenger is None)
        say(f"The API is described on {scheme}://{host}:{port}/docs; {_keys(no_auth)}")
        app = build_app(service, is_encrypted=tls_cert is not None)
        run_server(
            app, service.admission, host=host, port=port, drain_s=settings.serving.drain_s, certificate=tls_cert,
            key=tls_key,
        )  # fmt: skip
    say("Stopped: what was under way was answered, and the audit log is whole.")


def _warn(never_ruled_out: tuple[str, ...], lacks_challenger: bool) -> None:
    if never_ruled_out:
        names = ", ".join(never_ruled_out)
        say(f"!! Val had too few cases to rule out {names}: most answers will ask for a second reader.")
    if lacks_challenger:
        say("There is no challenger for --canary. Run: medvision promote NAME/VERSION --to challenger")


def _keys(no_auth: bool) -> str:
    return "no API key is asked for" if no_auth else "an API key is asked for: Authorization: Bearer KEY"


def _check_files(certificate: Path | None, key: Path | None) -> None:
    from medvision.errors import ConfigInvalid

    if (certificate is None) != (key is None):
        raise ConfigInvalid("--tls-cert and --tls-key belong together: expected both, found one.")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise ConfigInvalid(f"There is no file {path}.")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(serve)
