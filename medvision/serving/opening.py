"""A service put together: the model is loaded and tried, the audit log is open, and all that answers runs."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.config import Config
from medvision.data.pseudonyms import load_or_make_key
from medvision.errors import ConfigInvalid
from medvision.registry.ledger import CHAMPION
from medvision.registry.names import parse_version_name
from medvision.registry.packages import look_up
from medvision.serving.admission import Admission
from medvision.serving.api_keys import ApiKeys, api_keys_path, list_keys
from medvision.serving.audit_log import AuditLog
from medvision.serving.decoding import Decoders
from medvision.serving.holders import look_at_holders, look_at_version
from medvision.serving.metrics import ServiceMetrics
from medvision.serving.roster import Holders, Present, Roster
from medvision.serving.served import Served, load_served
from medvision.serving.service import Service
from medvision.serving.trust import trusted_keys
from medvision.serving.workers import Workers

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
_DECODERS = 2


@dataclass(frozen=True)
class Wish:
    """What a person asks of a service: the model, its engine, and who else answers."""

    model: str
    engine: str
    host: str
    canary_percent: float
    is_shadowed: bool
    needs_keys: bool


@contextmanager
def open_service(
    config: Config, client: MlflowClient, tracking_uri: str, wish: Wish, device: torch.device
) -> Iterator[Service]:
    """Yield a service that is ready; at the end the audit log is flushed and its processes are ended.

    Raises
    ------
    ConfigInvalid: no such model, no key, or a service without keys that others could reach. GateFailed: the model may
    not answer. AuditUnavailable: the audit log can't be written.
    """
    _check(config, wish)
    metrics = ServiceMetrics()
    roster = _open_roster(config, client, tracking_uri, wish, device, metrics)
    audit = AuditLog.open(config.audit_url)
    decoders = Decoders(_DECODERS)
    settings = config.serving
    try:
        yield Service(
            roster=roster,
            audit=audit,
            keys=ApiKeys(api_keys_path(config.paths.state)) if wish.needs_keys else None,
            admission=Admission(settings.max_in_flight),
            workers=Workers(os.cpu_count() or 1),
            decoders=decoders,
            reading=ThreadPoolExecutor(_DECODERS, "medvision-reading"),
            case_key=load_or_make_key(config.paths.state),
            deadline_s=settings.deadline_s,
            hosts=frozenset() if wish.needs_keys else frozenset({"localhost", "127.0.0.1", "[::1]", wish.host.lower()}),
            metrics=metrics,
        )
    finally:
        roster.stop()
        audit.close()
        decoders.close()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(config: Config, wish: Wish) -> None:
    if not wish.needs_keys and not is_loopback(wish.host):
        raise ConfigInvalid(
            f"--no-auth expects an address of this machine alone, such as 127.0.0.1; found {wish.host}. Whoever "
            "reaches it could ask. Make a key: medvision keys create NAME --role predict"
        )
    path = api_keys_path(config.paths.state)
    if wish.needs_keys and not any(key.revoked_at is None for key in list_keys(path)):
        raise ConfigInvalid(
            "Nobody could ask: expected an API key at least, found none. Run: medvision keys create NAME --role "
            "predict, or, on this machine alone, serve with --no-auth"
        )


def _open_roster(
    config: Config, client: MlflowClient, tracking_uri: str, wish: Wish, device: torch.device, metrics: ServiceMetrics
) -> Roster:
    look, load = _follow(config, client, tracking_uri, wish, device)
    roster = Roster(
        look,
        load,
        canary_percent=wish.canary_percent,
        is_shadowed=wish.is_shadowed,
        on_swap=functools.partial(_tell, metrics),
    )
    roster.start(config.serving.watch_s)
    if roster.present.champion is None:
        raise ConfigInvalid(
            f"{wish.model} can't be served: expected a version that was not withdrawn, found none. Run: medvision "
            "promote NAME/VERSION"
        )
    return roster


def _follow(
    config: Config, client: MlflowClient, tracking_uri: str, wish: Wish, device: torch.device
) -> tuple[Callable[[], Holders], Callable[[int], Served]]:
    """Return what says who is to answer, and what loads a version by its number."""

    def load(number: int) -> Served:
        found = look_up(tracking_uri, f"{name.name}/{number}", again="serve")
        return load_served(config, tracking_uri, found, engine=wish.engine, device=device)

    def trusted() -> dict[str, Ed25519PublicKey]:
        # At each look: a key may be added, or taken away, while the service runs.
        return trusted_keys(config.paths.state)

    name = parse_version_name(wish.model)
    if name.alias == CHAMPION:
        return lambda: look_at_holders(client, name.name, trusted()), load
    if wish.canary_percent or wish.is_shadowed:
        raise ConfigInvalid(f"--canary and --shadow expect {name.name}@champion, which a challenger stands beside.")
    number = int(look_up(tracking_uri, wish.model, again="serve").number)
    return lambda: look_at_version(client, name.name, number, trusted()), load


def _tell(metrics: ServiceMetrics, outcome: str, present: Present) -> None:
    metrics.swapped(outcome)
    for slot, served in (("champion", present.champion), ("challenger", present.challenger)):
        if served is None:
            metrics.unloaded(slot)
            continue
        policy = served.verdict.policy if served.verdict else "none"
        metrics.loaded(
            served.found.name, served.version, served.predictor.digest, served.predictor.engine.name, policy, slot=slot
        )
        _LOG.info("%s: %s %s, package %s", slot, served.found.name, served.version, served.predictor.digest[:12])
