"""The accounts of the MLflow server: its own basic-auth, kept in the state folder and readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from medvision.files import write_secret, write_text

PASSWORD_VARIABLE = "MLFLOW_AUTH_ADMIN_PASSWORD"
ADMIN = "admin"

# Whoever has an account may ask for anything: it is the gate that says no.
_SETTINGS = """\
[mlflow]
default_permission = EDIT
database_uri = sqlite:///{database}
admin_username = {admin}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def prepare_accounts(state: Path) -> tuple[dict[str, str], str | None]:
    """Return the variables of a server with accounts, and the password of the first one if it is made now.

    The password is that of MLFLOW_AUTH_ADMIN_PASSWORD, where it is set, and is kept nowhere but in MLflow's database.
    """
    folder = state / "accounts"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    database, settings, secret = folder / "accounts.db", folder / "basic_auth.ini", folder / "session.key"
    write_text(settings, _SETTINGS.format(database=database, admin=ADMIN))
    if not secret.exists():
        write_secret(secret, secrets.token_hex(32).encode())
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret.read_text(),
    }
    if database.exists() or os.environ.get(PASSWORD_VARIABLE):
        return variables, None
    password = secrets.token_urlsafe(18)
    return {**variables, PASSWORD_VARIABLE: password}, password
