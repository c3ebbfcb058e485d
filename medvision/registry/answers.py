"""What a registry answers, in medvision's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from medvision.errors import ConfigInvalid, GateFailed, PromotionConflict, TrackingUnavailable
from medvision.tracking.mlflow_sink import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextlib.contextmanager
def reaching(uri: str, *, again: str | None = None) -> Iterator[None]:
    """Turn the many ways in which a registry refuses, or does not answer, into errors of medvision's.

    ``again``: the step to run once it is back; the same command if None.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 503
        message = getattr(error, "message", "") or str(error)
        if status == 409:
            raise PromotionConflict(message) from None
        if status == 403:
            raise GateFailed(message) from None
        if status < 500:
            raise ConfigInvalid(message) from None
        step = f"run: medvision {again}" if again else "run the same command again"
        raise TrackingUnavailable(
            f"The registry at {without_credentials(uri)} does not answer. Once it is back, {step}."
        ) from error


@contextlib.contextmanager
def translated(client: MlflowClient) -> Iterator[None]:
    """Do the same for what a client is asked."""
    with reaching(place(client)):
        yield


def place(client: MlflowClient) -> str:
    """Return the URI of a client's registry, without credentials."""
    return without_credentials(str(client._registry_uri))
