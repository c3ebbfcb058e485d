"""Runs `medvision ARGUMENTS` in forks of one process that has imported all of it: a service in two seconds, not ten.

Each line that comes in is a command; each that goes out is the number of its process, or how one has ended.
"""

import importlib
import json
import os
import select
import sys

_LOOK_S = 0.02
# Not onnxruntime, which starts a thread of its own that no fork has.
PRELOADED = (
    "torch", "scipy.stats", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "medvision.registry.gated_store",
    "medvision.serving.app", "medvision.serving.opening", "medvision.serving.server",
)  # fmt: skip


def main():
    """Answer until nobody asks any more."""
    for name in PRELOADED:
        importlib.import_module(name)
    from medvision.cli import main as medvision

    _say(ready=True)
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable:
            line = sys.stdin.readline()
            if not line:
                return
            asked = json.loads(line)
            number = os.fork()
            if number == 0:
                _become(asked)
                medvision(asked["arguments"])
            _say(pid=number)
        _tell_of_ends()


def _become(asked):
    """Be a process as a shell would start it, in a folder, with a log in place of a terminal."""
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    for stream, path, mode in ((0, os.devnull, os.O_RDONLY), (1, asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        opened = os.open(path, mode, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    os.dup2(1, 2)


def _tell_of_ends():
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if number == 0:
            return
        _say(pid=number, code=os.waitstatus_to_exitcode(status))


def _say(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
