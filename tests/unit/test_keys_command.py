"""`medvision keys` for API keys: shown once, listed without their secrets, revoked, and never in a log."""

import json
import os
import subprocess
import sys

import pytest

from medvision.serving.api_keys import ApiKeys, api_keys_path


@pytest.fixture
def keys(tmp_path):
    """Run `medvision keys` in an empty project."""
    (tmp_path / "MLproject").write_text("name: test\n")

    def run(*arguments):
        command = [sys.executable, "-c", "from medvision.cli import main; main()", "keys", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_life_of_a_key(keys, tmp_path):
    """Made, it opens; listed, it is there without its secret; revoked, it opens no more, and the list says so."""
    made = json.loads(keys("create", "PACS", "--role", "read", "--per-minute", "30", "--json").stdout)
    opened = ApiKeys(api_keys_path(tmp_path / ".medvision"))
    assert opened.find(made["key"]).role == "read"
    listed = keys("list")
    assert f"{made['id']}  read         30/min" in listed.stdout and "valid  PACS" in listed.stdout
    assert made["key"].split("_", 2)[2] not in listed.stdout + listed.stderr
    revoked = keys("revoke", made["id"])
    assert revoked.returncode == 0 and "is revoked" in revoked.stdout
    assert opened.find(made["key"]) is None
    assert "revoked 20" in keys("list").stdout


def test_the_secret_is_shown_once(keys, tmp_path):
    """The text of a key is on standard output and nowhere else: not on standard error, in no file of the project."""
    made = keys("create", "PACS", "--verbose")
    text = made.stdout.split("\n")[0]
    assert text.startswith("mv_") and text not in made.stderr
    secret = text.split("_", 2)[2].encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["make"], ["create"], ["revoke"], ["list", "PACS"], ["init", "PACS"], ["create", "PACS", "--role", "root"],
        ["create", "PACS", "--per-minute", "0"], ["revoke", "0123456789abcdef"],
    ],
)  # fmt: skip
def test_usage_errors(keys, arguments):
    """An unknown action, role or id, or a missing or meaningless name, exits with 2 and one message."""
    ended = keys(*arguments)
    assert ended.returncode == 2 and ended.stderr and "Traceback" not in ended.stderr


def test_a_damaged_file_is_named(keys, tmp_path):
    """A damaged file of keys ends the command with 2, and the message names it."""
    keys("create", "PACS")
    path = api_keys_path(tmp_path / ".medvision")
    path.write_text("[")
    ended = keys("list")
    assert ended.returncode == 2 and str(path) in ended.stderr and "Traceback" not in ended.stderr
