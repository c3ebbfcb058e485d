"""A server of PostgreSQL for tests, on a socket of its own, that can be stopped and started."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


class PostgreSQL:
    """A server, in a folder that is also that of its socket; whoever asks is user gate, without a password."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._prefix: list[str] = []
        self._data = folder / "data"
        user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            # PostgreSQL does not start as root.
            user = "postgres"
            try:
                shutil.chown(folder, user, user)
            except LookupError:
                pytest.skip("running as root, and there is no user postgres to start PostgreSQL as")
            self._prefix = ["runuser", "-u", user, "--"]
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "gate")

    def uri(self, database: str) -> str:
        """Return the URI of a database as anybody would write it."""
        return f"postgresql://gate@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, and return when it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop at once, as after a crash."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._prefix, self._binaries / program, *arguments]
        subprocess.run([*map(str, command)], check=True, cwd=self.folder, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Give a server that runs; the test is skipped where PostgreSQL is not installed."""
    binaries = _find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    # Sockets have short paths.
    folder = Path("/tmp") / f"medvision-pg-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        server = PostgreSQL(binaries, folder)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_binaries() -> Path | None:
    """Return the folder of initdb and pg_ctl, the newest of Debian's or that on the PATH; None without one."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    found = next((folder for folder in folders if (folder / "initdb").exists()), None)
    on_path = shutil.which("initdb")
    return found or (Path(on_path).resolve().parent if on_path else None)
