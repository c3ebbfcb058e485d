"""A real MLflow server on a gated registry, and requests to it as any program can make them."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from unittest import mock

from mlflow import MlflowClient
from registry_cases import BIN

ADMIN, PASSWORD = "admin", "password-of-the-admin"
# The users of a server with basic-auth, and their passwords.
USERS = {"ada": "password-of-ada-1", "grace": "password-of-grace", "trainer": "password-of-trainer"}


class Server:
    """A server in the folder of a project; ``auth`` turns basic-auth on."""

    def __init__(self, registry, auth=False):
        self.registry, self.auth = registry, auth
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        command = [
            str(BIN / "mlflow"), "server", "--backend-store-uri", self.registry.database,
            "--registry-store-uri", self.registry.uri, "--artifacts-destination", str(self.registry.folder / "mlruns"),
            "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            *(["--app-name", "basic-auth"] if self.auth else []),
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        own = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret-of-the-test",
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.log = (self.registry.folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=self.registry.folder, env={**kept, **own}, stdout=self.log, stderr=subprocess.STDOUT
        )
        self._wait()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.log.close()

    def _wait(self):
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.registry.folder / "server.log").read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            time.sleep(0.3)
        raise AssertionError("the server did not come up")

    def client(self, user=None):
        """Return MLflow's own client of the server, with the credentials of a user."""
        return UserClient(self.url, user)

    def ask(self, method, path, body, *, user=None, api="api"):
        """Send a request of MLflow's API; return its status, its answer and the seconds that it took."""
        headers = {"Content-Type": "application/json"}
        if user:
            headers["Authorization"] = authorization(user)
        request = urllib.request.Request(
            f"{self.url}/{api}/2.0/mlflow/{path}", json.dumps(body).encode(), headers, method=method
        )
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        taken = time.monotonic() - begun
        try:
            return status, json.loads(text), taken
        except ValueError:
            return status, {"message": text.decode("utf-8", "replace")}, taken


class UserClient(MlflowClient):
    """MLflow's client, with the variables that carry a user's credentials set while it asks."""

    def __init__(self, url, user):
        super().__init__(url, url)
        self.user = user

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found

        def ask(*arguments, **named):
            with as_user(self.user):
                return found(*arguments, **named)

        return ask


def password(user):
    """Return the password of a user."""
    return PASSWORD if user == ADMIN else USERS[user]


def authorization(user):
    """Return the header of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password(user)}".encode()).decode()


@contextlib.contextmanager
def as_user(user):
    """Set the variables by which MLflow's client takes a user's credentials."""
    if user is None:
        yield
        return
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password(user)}):
        yield
