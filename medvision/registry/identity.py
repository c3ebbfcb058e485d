"""Who asks for something: the user of a request whom MLflow's basic-auth has let in, or the account of the system."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

ANONYMOUS = "anonymous"
# MLflow's server sets it in each of its processes.
_IN_SERVER = "_MLFLOW_SERVER_FILE_STORE"


@dataclass(frozen=True)
class Identity:
    """A user; ``is_named`` is false for whoever has shown no account."""

    who: str
    is_named: bool


def identify() -> Identity:
    """Return who asks.

    A request's own ``Authorization`` header counts only where the server has checked it: without basic-auth anybody
    could write any name there.
    """
    if _IN_SERVER not in os.environ:
        return Identity(_account(), True)
    from flask import g, has_request_context

    user = g.get("mlflow_authenticated_user") if has_request_context() else None
    return Identity(str(user), True) if user else Identity(ANONYMOUS, False)


def _account() -> str:
    # By the number, which no variable of the environment can change, as it can what getpass.getuser returns.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
