"""Dockerfile and compose file: nothing open to others, no password in a file, nothing as root of ours."""

import re

import pytest
import yaml

OURS = ("mlflow", "api")


@pytest.fixture(scope="module")
def compose(deploy):
    """Return the compose file as it is read."""
    return yaml.safe_load((deploy / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def dockerfile(deploy):
    """Return the instructions of the Dockerfile."""
    text = re.sub(r"\\\n\s*", "", (deploy / "Dockerfile").read_text())
    return [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]


def test_ports_are_of_this_machine_only(compose):
    """What is published is so on the loopback address; databases are not published at all."""
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert compose["networks"]["inside"]["internal"]
    for name in ("postgres", "minio", "bucket"):
        assert ports[name] == [] and compose["services"][name]["networks"] == ["inside"]


def test_passwords_come_from_the_environment(compose, deploy):
    """Every secret is a variable without a default, which .env.example names and leaves empty."""
    text = (deploy / "docker-compose.yml").read_text()
    example = dict(re.findall(r"^(\w+)=(.*)$", (deploy / ".env.example").read_text(), re.MULTILINE))
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == set(example)
    assert {name for name, value in example.items() if value} == {"MEDVISION_MODEL"}
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used == required | {"TORCH_BACKEND"}
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET", name) or value.startswith("${"), name


def test_secrets_are_ignored(deploy):
    """git ignores .env and the files of keys."""
    assert ".env" in (deploy.parent / ".gitignore").read_text().splitlines()
    for folder in ("secrets", "trusted"):
        assert (deploy / folder / ".gitignore").read_text() == "*\n!.gitignore\n"


def test_our_containers_can_do_little(compose):
    """Ours have a read-only root, no capability, and can gain none."""
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_images_are_pinned(compose):
    """Images of others have a version."""
    for name, service in compose["services"].items():
        assert name in OURS or re.search(r":.*\d", service["image"]), name


def test_what_is_mounted_is_there(compose, deploy):
    """Every file and folder that is mounted is part of the repository, except the key that a person makes."""
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (deploy / source).exists() or source == "./secrets/prometheus.key", source
            else:
                assert source in compose["volumes"]


def test_the_gate_is_before_the_registry(compose):
    """MLflow's server has the gate, accounts, and no execution of jobs."""
    service = compose["services"]["mlflow"]
    assert service["environment"]["MLFLOW_REGISTRY_STORE_URI"].startswith("medvision+postgresql")
    assert service["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert service["command"][-2:] == ["--app-name", "basic-auth"]


def test_the_image_runs_as_nobody_in_particular(dockerfile):
    """The last user is not root, the check is of /livez, and the command gets signals itself."""
    users = [rest for word, rest in dockerfile if word == "USER"]
    assert users and users[-1] not in ("root", "0")
    last = dict(dockerfile)
    assert "/livez" in last["HEALTHCHECK"]
    assert last["ENTRYPOINT"].startswith("[")


def test_what_the_image_is_made_of_is_there_and_not_ignored(dockerfile, deploy):
    """What is copied is in the project, and .dockerignore lets through nothing else: no keys, no runs."""
    root = deploy.parent
    lines = (root / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    own = [rest.split()[:-1] for word, rest in dockerfile if word == "COPY" and "--from" not in rest]
    copied = [name for names in own for name in names]
    assert all((root / name).exists() for name in copied)
    assert set(copied) == allowed
    assert "*" in lines


def test_the_lock_is_what_is_installed(deploy):
    """What the image has beside the lock is pinned, and no pin of the lock is left out but the one that is said."""
    pins = [line for line in (deploy / "requirements-s3.txt").read_text().splitlines() if not line.startswith("#")]
    locked = (deploy.parent / "requirements.lock").read_text()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {pin.split("==")[0] for pin in pins}
    assert {name for name in names if f"\n{name}==" in locked} == {"python-dateutil"}
