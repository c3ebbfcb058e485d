"""Who may ask for what: API keys with roles, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from medvision.errors import KeyRefused, Overloaded, RoleMissing
from medvision.serving.api_keys import ApiKeys
from medvision.serving.service import Service

_ALLOWED = {"predict": {"predict", "info"}, "read": {"read", "info"}, "admin": {"predict", "read", "info"}}
_BEARER = HTTPBearer(auto_error=False, description="An API key, made by `medvision keys create`.")


@dataclass(frozen=True)
class Caller:
    """Who asks: the id of the key, and how many images a minute it may send; None: as many as there are."""

    key_id: str
    per_minute: int | None


# What the log names where the service answers without keys.
NOBODY = Caller("no-auth", None)


def service_of(request: Request) -> Service:
    """Return the service that a request came to."""
    service: Service = request.app.state.service
    return service


def needs(right: str) -> Any:
    """Return the dependency of an endpoint that only keys with a right may ask; it gives the caller.

    ``right``: predict, read (figures of the service), or info (of the model), which every key has.
    """

    # Not a plain function, which would wait for a thread.
    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Caller:
        service = service_of(request)
        caller = NOBODY if service.keys is None else _identify(service.keys, given, right)
        service.usage.asked(caller.key_id)
        charge(service, caller, 1)
        return caller

    return Depends(check)


def charge(service: Service, caller: Caller, cost: int, *, paid: int = 0) -> None:
    """Count so many images of a caller, beside those of this request that were ``paid``; Overloaded if too many."""
    if not caller.per_minute or not cost:
        return
    wait_s = service.limit.take(caller.key_id, caller.per_minute, cost=cost, paid=paid)
    if wait_s > 0:
        raise Overloaded(f"This API key allows {caller.per_minute} images a minute. Try again later.", wait_s)


def _identify(keys: ApiKeys, given: HTTPAuthorizationCredentials | None, right: str) -> Caller:
    key = keys.find(given.credentials) if given else None
    if key is None:
        raise KeyRefused("Expected an API key that is valid, as Authorization: Bearer KEY.")
    if right not in _ALLOWED[key.role]:
        raise RoleMissing(f"The role {key.role} of this API key does not allow this.")
    return Caller(key.id, key.per_minute)
