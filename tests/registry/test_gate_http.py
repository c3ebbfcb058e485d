"""The doors of a real MLflow server: the REST API of programs and of the UI, and MLflow's own client."""

import os
import subprocess
import sys

import pytest
from mlflow.server.auth.client import AuthServiceClient
from registry_cases import BAD, NAME, POLICIES, SAID
from server_cases import ADMIN, USERS, Server, as_user

from medvision.errors import ConfigInvalid, GateFailed, PromotionConflict, TrackingUnavailable
from medvision.registry.promotion import approve, archive, holder, promote, read_ledger, rollback
from medvision.registry.registration import Candidate, Registry
from medvision.registry.requests import render_request
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys

TAG, ALIAS, STAGE = "model-versions/set-tag", "registered-models/alias", "model-versions/transition-stage"


def asks(number, alias):
    """Return each way to ask a server for a promotion: method, path and body."""
    of = {"name": NAME, "version": str(number)}
    stage = {"champion": "Production", "challenger": "Staging"}[alias]
    return {
        "request": ("POST", TAG, {**of, "key": "medvision.request", "value": render_request("promote", to=alias)}),
        "alias": ("POST", ALIAS, {**of, "alias": alias}),
        "stage": ("POST", STAGE, {**of, "stage": stage, "archive_existing_versions": True}),
    }


def refused(answer, rule):
    """Check that an answer is a refusal by a rule; return the seconds that it took."""
    status, body, taken = answer
    assert (status, body.get("error_code")) == (403, "PERMISSION_DENIED"), body
    assert f"Rule: {rule}. Required: " in body["message"] and " Next: " in body["message"]
    return taken


@pytest.fixture(scope="module")
def served(empty, tmp_path_factory):
    """Return a server without users, on a registry with a version of each bad kind."""
    registry = empty.copy(tmp_path_factory.mktemp("served") / "project")
    registry.set(approvals=0, champion=["staging"])
    registry.bad = {}
    with registry.here():
        for kind, (make, rule) in BAD.items():
            registry.bad[kind] = make(registry), rule
    with Server(registry) as server:
        # What is imported at the first request is no part of what a request takes.
        server.ask("POST", ALIAS, {"name": NAME, "version": "1", "alias": "warm"})
        yield server


def test_a_server_has_the_gate_that_register_asks_for(served):
    """`register` finds the gate of a server, and ends with what is wrong: there is no such logged model."""
    candidate = Candidate("another", "0" * 64, None, None, {})
    with pytest.raises(ConfigInvalid, match="m-0000"):
        Registry(served.url, served.url).register(candidate, "m-" + "0" * 32)


@pytest.mark.parametrize("api", ["api", "ajax-api"])
@pytest.mark.parametrize("kind", BAD)
def test_no_request_lets_a_bad_version_through(kind, api, served):
    """The API for programs and that for the UI refuse a bad version at every door: 403, the reason, within a second."""
    number, rule = served.registry.bad[kind]
    taken = [
        refused(served.ask(method, path, body, api=api), rule)
        for alias in ("champion", "challenger")
        for method, path, body in asks(number, alias).values()
    ]
    # The quickest: this machine has other things to do.
    assert min(taken) < 1
    assert not set(served.client().get_registered_model(NAME).aliases) & {"champion", "challenger"}


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_requests_for_what_is_the_gates(api, served):
    """Reserved tags, copies, and aliases of semantic versions are refused over HTTP alike."""
    number = str(served.registry.bad["unvalidated"][0])
    of = {"name": NAME, "version": number}
    source = served.registry.plain.get_model_version(NAME, number).source
    for method, path, body in (
        ("POST", TAG, {**of, "key": "medvision.verdict", "value": "passed"}),
        ("DELETE", "model-versions/delete-tag", {**of, "key": "medvision.verdict"}),
        ("POST", "registered-models/set-tag", {"name": NAME, "key": "medvision.verdict", "value": "passed"}),
        ("DELETE", "registered-models/delete-tag", {"name": NAME, "key": "version"}),
        ("POST", "registered-models/create", {"name": "x", "tags": [{"key": "medvision.verdict", "value": "passed"}]}),
        ("POST", "model-versions/create", {"name": NAME, "source": source, "model_id": source[8:],
                                           "tags": [{"key": "medvision.verdict", "value": "passed"}]}),
    ):  # fmt: skip
        refused(served.ask(method, path, body, api=api), "reserved tags")
    refused(served.ask("POST", ALIAS, {**of, "alias": "v9-9-9"}, api=api), "versions")
    refused(served.ask("DELETE", ALIAS, {"name": NAME, "alias": "v9-9-9"}, api=api), "versions")


@pytest.mark.parametrize("api", ["api", "ajax-api"])
@pytest.mark.parametrize("door", ["request", "alias", "stage"])
def test_every_request_lets_a_good_version_through(door, api, served):
    """A good version gets through every door within two seconds, and alias, stage and ledger agree."""
    number, taken = served.registry.register(5), []
    for alias in ("challenger", "champion"):
        method, path, body = asks(number, alias)[door]
        status, answer, seconds = served.ask(method, path, body, api=api)
        assert status == 200, answer
        taken.append(seconds)
    assert min(taken) < 2
    client = served.client()
    assert holder(client, NAME, "champion") == number
    assert client.get_model_version(NAME, str(number)).current_stage == "Production"
    entry = read_ledger(client, NAME)[-1]
    assert (entry.version, entry.alias, entry.who) == (number, "champion", "anonymous")
    assert check_registry(client, NAME, load_trusted_keys(served.registry.state)) == []


def test_an_anonymous_request_approves_nothing(served):
    """Without users nobody can approve over HTTP, whatever name the request claims."""
    number = served.registry.register(6)
    of = {"name": NAME, "version": str(number), "key": "medvision.request", "value": render_request("approve", **SAID)}
    refused(served.ask("POST", TAG, of), "approvals")
    refused(served.ask("POST", TAG, of, user="ada"), "approvals")
    assert "approve" not in {entry.action for entry in read_ledger(served.client(), NAME)}


def test_a_client_through_the_server(served):
    """MLflow's client registers through the server, uploads included; the gate finds the verdict, and promotes."""
    client, registry = served.client(), served.registry
    verdicts = {policy: registry.signed(7, policy) for policy in POLICIES}
    number = registry.create(registry.log(7, client, verdicts=verdicts), "7.0.0", client)
    assert client.get_model_version(NAME, str(number)).tags["medvision.verdict"] == "passed"
    assert int(client.get_model_version_by_alias(NAME, "v7-0-0").version) == number
    present = holder(client, NAME, "champion")
    with pytest.raises(PromotionConflict, match=r"is .* now"):
        promote(client, NAME, number, replacing=(present or 0) + 999)
    assert promote(client, NAME, number, replacing=present).version == number
    with pytest.raises(GateFailed, match="Rule: verdict"):
        promote(client, NAME, registry.bad["unvalidated"][0])
    with pytest.raises(ConfigInvalid, match="not found"):
        promote(client, NAME, 999)
    archive(client, NAME, number, reason="The test is over.")
    assert holder(client, NAME, "champion") is None


def test_an_upload_over_a_champion(served):
    """Whoever writes over the files of a version through the artifact proxy can't have it promoted."""
    client, registry = served.client(), served.registry
    verdicts = {policy: registry.signed(8, policy) for policy in POLICIES}
    model_id = registry.log(8, client, verdicts=verdicts)
    number = registry.create(model_id, client=client)
    weights = registry.package(9)[0] / "weights.safetensors"
    client.log_model_artifact(model_id, str(weights), artifact_path="artifacts/package")
    with pytest.raises(GateFailed, match="Rule: package"):
        promote(client, NAME, number, to="challenger")


def test_copies_through_the_server(served):
    """A copy that MLflow's client makes is refused, or can't be promoted."""
    client, number = served.client(), served.registry.register(10)
    with pytest.raises(Exception, match="Rule: reserved tags"):
        client.copy_model_version(f"models:/{NAME}/{number}", "copied")
    copy = client.create_model_version("copied", f"models:/{NAME}/{number}")
    with pytest.raises(Exception, match="Rule: source"):
        client.set_registered_model_alias("copied", "challenger", copy.version)


def test_a_refusal_reaches_the_person(served):
    """A refusal reaches the person at MLflow's Python API in one sentence, and no client tries again for minutes."""
    number = served.registry.bad["failed"][0]
    code = (
        "import mlflow; mlflow.set_tracking_uri('" + served.url + "');"
        f"mlflow.MlflowClient().set_registered_model_alias('{NAME}', 'champion', '{number}')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=60)
    assert ended.returncode == 1
    assert "PERMISSION_DENIED" in ended.stderr and "Rule: verdict" in ended.stderr


def test_a_server_that_is_gone():
    """A registry that does not answer is named, with what to do: exit 75."""
    from mlflow import MlflowClient

    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    try:
        with pytest.raises(TrackingUnavailable, match="does not answer"):
            promote(MlflowClient("http://127.0.0.1:9", "http://127.0.0.1:9"), NAME, 1)
    finally:
        del os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


@pytest.fixture(scope="module")
def guarded(empty, tmp_path_factory):
    """Return a server with users: ada, grace and the trainer, who may all manage the model."""
    registry = empty.copy(tmp_path_factory.mktemp("guarded") / "project")
    registry.set(champion=["staging"])
    with Server(registry, auth=True) as server:
        with as_user(ADMIN):
            accounts = AuthServiceClient(server.url)
            for user, password in USERS.items():
                accounts.create_user(user, password)
                accounts.grant_user_permission(user, "registered_model", NAME, "MANAGE")
                accounts.grant_user_permission(user, "experiment", "1", "MANAGE")
        yield server


@pytest.mark.slow
def test_nobody_without_a_password(guarded):
    """With users a request without a password, or with a wrong one, changes nothing."""
    number = guarded.registry.register(1)
    for method, path, body in asks(number, "challenger").values():
        assert guarded.ask(method, path, body)[0] == 401
    assert read_ledger(guarded.client("ada"), NAME)[-1].action == "register"


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_users_do_not_get_a_bad_version_through(kind, guarded):
    """With users, the administrator too is refused a bad version at every door, with the reason."""
    guarded.registry.set(approvals=0)
    make, rule = BAD[kind]
    with guarded.registry.here():
        number = make(guarded.registry)
    for user in ("ada", ADMIN):
        for api in ("api", "ajax-api"):
            for method, path, body in asks(number, "champion").values():
                refused(guarded.ask(method, path, body, user=user, api=api), rule)


@pytest.mark.slow
def test_approvals_carry_names(guarded):
    """Approvals and promotions carry the user's name; twice by one counts once; each is for one package."""
    guarded.registry.set(approvals=2)
    number, other = guarded.registry.register(2), guarded.registry.register(3)
    ada, grace = guarded.client("ada"), guarded.client("grace")
    assert approve(ada, NAME, number, **SAID).who == "ada"
    approve(ada, NAME, number, **SAID)
    with pytest.raises(GateFailed, match=r"Required: 2 by named users. Found: 1 \(ada\)"):
        promote(grace, NAME, number)
    approve(grace, NAME, number, **SAID)
    with pytest.raises(GateFailed, match=r"Required: 2 by named users. Found: 0"):
        promote(grace, NAME, other)
    entry = promote(grace, NAME, number, reason="Both have approved.")
    assert (entry.who, entry.reason) == ("grace", "Both have approved.")
    entries = read_ledger(ada, NAME)
    approved = [entry for entry in entries if (entry.action, entry.version) == ("approve", number)]
    assert [entry.who for entry in approved] == ["ada", "ada", "grace"]
    assert all((entry.meaning, entry.reason) == (SAID["meaning"], SAID["reason"]) for entry in approved)


@pytest.mark.slow
def test_approvers_and_separation_of_duties(guarded):
    """Only listed approvers count, and, where duties are separated, neither who trained nor who registered."""
    registry = guarded.registry
    registry.set(approvals=1, approvers=["ada", "trainer"], separation_of_duties=True)
    trainer, ada, grace = (guarded.client(user) for user in ("trainer", "ada", "grace"))
    with as_user("trainer"):
        model_id = registry.log(4, verdicts={p: registry.signed(4, p) for p in POLICIES})
    number = registry.create(model_id, client=ada)
    for client, found in ((grace, "Found: grace"), (trainer, "Found: trainer, who trained it"),
                          (ada, "Found: ada, who registered it")):  # fmt: skip
        with pytest.raises(GateFailed, match=found):
            approve(client, NAME, number, **SAID)
    registry.set(separation_of_duties=False)
    approve(trainer, NAME, number, **SAID)
    registry.set(separation_of_duties=True)
    with pytest.raises(GateFailed, match="Rule: approvals"):
        promote(ada, NAME, number)
    registry.set(separation_of_duties=False, approvers=[])
    assert promote(ada, NAME, number).who == "ada"
    assert rollback(grace, NAME, reason="The users' test is over.").who == "grace"
