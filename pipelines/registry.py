"""The registry of the project, and the version of a model that a command names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from medvision.config import Config
    from medvision.registry.ledger import Entry

OneVersion = Annotated[str, typer.Argument(metavar="NAME/VERSION", help="NAME/3, NAME/1.2.0 or NAME@challenger.")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Registered model, for example brain-mri-resnet18.")]
Reason = Annotated[str, typer.Option(help="Why; the ledger keeps it.")]


@dataclass(frozen=True)
class Named:
    """A version of a registered model."""

    name: str
    number: int


def open_registry(config: Config) -> MlflowClient:
    """Return a client of the project's registry, with the gate before it."""
    from medvision.tracking.mlflow_sink import configure_client, make_database, registry_uri, tracking_uri

    configure_client()
    uri = tracking_uri(config)
    make_database(uri)

    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri(config))


def find_version(client: MlflowClient, text: str) -> Named:
    """Return the version that NAME/NUMBER, NAME/MAJOR.MINOR.PATCH or NAME@ALIAS is; ConfigInvalid if there is none."""
    from mlflow.exceptions import MlflowException

    from medvision.errors import ConfigInvalid
    from medvision.registry.answers import translated
    from medvision.registry.names import parse_version_name

    named = parse_version_name(text)
    with translated(client):
        try:
            if named.number is not None:
                found = client.get_model_version(named.name, str(named.number))
            else:
                found = client.get_model_version_by_alias(named.name, named.alias)
        except MlflowException as error:
            # MLflow's stores have two codes for an alias that nobody has.
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise ConfigInvalid(
                f"There is no version {text} in the registry. Run, for those that there are: "
                f"medvision history {named.name}"
            ) from None
    return Named(named.name, int(found.version))


def describe(entry: Entry) -> str:
    """Return an entry of the ledger as one line for people."""
    where = f" to {entry.alias}" if entry.alias and entry.action in ("promote", "rollback") else ""
    instead = f", replacing version {entry.replaced}" if entry.replaced is not None else ""
    evidence = f" [{entry.policy}, package {entry.package_digest[:12]}]" if entry.policy else ""
    said = "".join(f": {text}" for text in (entry.meaning, entry.reason) if text)
    line = (
        f"{entry.sequence:>4}  {entry.time[:19]}Z  {entry.who}  {entry.action} version {entry.version}"
        f"{where}{instead}{evidence}{said}"
    )
    # What an older gate has let in must not look like another line.
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
