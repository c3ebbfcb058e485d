"""A running prediction service as its clients see it, the projects that it serves from, and images to send."""

import contextlib
import functools
import io
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from registry_cases import NAME

from medvision.registry.promotion import promote
from medvision.serving.api_keys import api_keys_path, create_key
from medvision.serving.audit_place import parse_url
from medvision.serving.audit_rows import read_rows

CHAMPION = f"{NAME}@champion"
START_S = 60


def image_bytes(seed=0, side=24, form="PNG", **options):
    """Return the file of an image of noise, of no patient; one seed gives the same bytes each time."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def padded(size_bytes):
    """Return a file that is a whole image and has so many bytes: what stands behind the end of a PNG is not read."""
    return image_bytes().ljust(size_bytes, b"\0")


def multipart(content, *, field="image", name="image.png", boundary="BOUNDARY"):
    """Return the body of a form with one file, whose media type is that of ``form_type``."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


def form_type(boundary="BOUNDARY"):
    """Return the media type of ``multipart``."""
    return f"multipart/form-data; boundary={boundary}"


class ForkServer:
    """The process that services are forked from."""

    def __init__(self):
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MEDVISION_"))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**kept, "OMP_NUM_THREADS": "1"}
        )
        self._asking = threading.Lock()
        self._started, self.ended = queue.SimpleQueue(), {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, folder, arguments, log, environment):
        """Start a command; return the number of its process."""
        with self._asking:
            asked = {"folder": str(folder), "arguments": arguments, "log": str(log), "environment": environment}
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            return self._started.get(timeout=START_S)

    def close(self):
        """End it; what it has forked must have ended before."""
        self._process.stdin.close()
        self._process.wait(10)

    def _listen(self):
        for line in self._process.stdout:
            said = json.loads(line)
            if "code" in said:
                self.ended[said["pid"]] = said["code"]
            elif "pid" in said:
                self._started.put(said["pid"])


@dataclass
class Service:
    """A service that runs: where it is, its process, and the key that is sent with each request, if any."""

    project: object
    forks: ForkServer
    pid: int
    port: int
    log_path: Path
    key: str | None = None
    scheme: str = "http"
    _clients: list = field(default_factory=list)

    @property
    def url(self):
        """Return where it answers."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def log(self):
        """Return all that it has said."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @functools.cached_property
    def own(self):
        """Return the client that sends the service's own key."""
        return self.client()

    def client(self, key="own", **options):
        """Return a client, which sends the service's own key unless another, or None, is given."""
        key = self.key if key == "own" else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        made = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)
        self._clients.append(made)
        return made

    def get(self, path, **options):
        """Get a path."""
        return self.own.get(path, **options)

    def predict(self, content=None, *, path="/api/v1/predict", name="image.png", client=None, **options):
        """Send one image."""
        files = {"image": (name, image_bytes() if content is None else content)}
        return (client or self.own).post(path, files=files, **options)

    def connect(self):
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def wait_until(self, is_so, timeout_s=20):
        """Wait until something is so; return how long it took."""
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < timeout_s, f"this took too long\n{self.log}"
            time.sleep(0.02)
        return time.monotonic() - began

    def audited(self):
        """Return the entries of the audit log, in order."""
        return read_audit(self.project)

    def decoders(self):
        """Return the numbers of the processes that decode, oldest first."""
        found = subprocess.run(["ps", "--ppid", str(self.pid), "-o", "pid="], capture_output=True, text=True).stdout
        return sorted(map(int, found.split()))

    def rss_bytes(self):
        """Return how much memory it holds, without its decoders."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number):
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_s=40):
        """Return the exit status, negative for a signal."""
        self.wait_until(lambda: self.pid in self.forks.ended, timeout_s)
        return self.forks.ended[self.pid]

    def end(self):
        """End it as an operator does; return the exit status."""
        for client in self._clients:
            client.close()
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        """End it at once, unless it has ended."""
        for client in self._clients:
            client.close()
        # A decoder that a test has stopped does not see that its service is gone.
        for number in (self.pid, *self.decoders()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.wait()


def read_audit(project, path=None):
    """Return the entries of a project's audit log, or of another file, in order."""
    return [json.loads(row.entry) for row in read_rows(parse_url(f"sqlite:///{path or project.state / 'audit.db'}"))]


def run_command(forks, project, *arguments):
    """Run `medvision ARGUMENTS` in a project to its end; return the exit status, and what it said."""
    log = project.folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
    pid = forks.start(project.folder, list(arguments), log, {})
    deadline = time.monotonic() + START_S
    while pid not in forks.ended:
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.02)
    return forks.ended[pid], log.read_text()


def new_key(project, role="predict", per_minute=1_000_000):
    """Make an API key of a project; return its text."""
    return create_key(api_keys_path(project.state), f"test {role}", role, per_minute)[1]


def free_port():
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start_service(forks, project, *options, model=CHAMPION, key=None, scheme="http", settings=(), environment=None):
    """Start `medvision serve` and return at once; with ``--no-auth`` unless a key is given.

    The engine is PyTorch, which needs no export.
    """
    port, project_folder = free_port(), project.folder
    log = project_folder / f"serve-{port}.log"
    arguments = ["serve", model, "--port", str(port), "--engine", "torch", *options, *([] if key else ["--no-auth"])]
    arguments += [part for setting in settings for part in ("--set", setting)]
    pid = forks.start(project_folder, arguments, log, environment or {})
    return Service(project, forks, pid, port, log, key, scheme)


def await_service(service):
    """Wait until a service answers; return it."""

    def is_up():
        assert service.pid not in service.forks.ended, service.log
        with contextlib.suppress(OSError), service.connect():
            return True
        return False

    service.wait_until(is_up, START_S)
    return service


def crown(project, number):
    """Make another version champion."""
    with project.here():
        promote(project.client, NAME, number, reason="The next one.")
