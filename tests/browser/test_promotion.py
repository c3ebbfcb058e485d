"""Promotion as a person does it: in the MLflow UI that `medvision ui` starts, refused with the reason, or done."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

from medvision_project import answers, free_port, wait
from registry_cases import BIN, NAME, Registry

from medvision.registry.promotion import read_ledger
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys

# A server and a browser: more than half a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Return a project with three versions: one without verdict, and two that nothing stands against."""
    registry = Registry.make(tmp_path_factory.mktemp("promotion") / "project")
    with registry.here():
        registry.register(1, verdicts={})
        registry.approved(2, semantic="1.0.0")
        registry.approved(3, semantic="1.1.0")
    return registry


@pytest.fixture(scope="module")
def ui(registry):
    """Start `medvision ui` in the project."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (registry.folder / "ui.log").open("w") as log:
        server = subprocess.Popen(
            [BIN / "medvision", "ui", "--port", str(port)], cwd=registry.folder, env=kept, stdout=log, stderr=log
        )
    try:
        wait(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/health"), 120)
        assert server.poll() is None, (registry.folder / "ui.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def open_version(page, ui, number):
    """Open the page of a version."""
    page.goto(f"{ui}/#/models/{NAME}/versions/{number}")
    page.get_by_text("New model registry UI").wait_for()
    page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").click()


def give_alias(page, alias):
    """Add an alias to the version whose page is open."""
    page.locator("[data-component-id*=modelversionviewaliaseditor]").click()
    page.get_by_role("combobox").last.fill(alias)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Save aliases").click()


def picture(page, tmp_path, name):
    """Keep a picture of what the person sees, where one is asked for."""
    path = tmp_path / name
    page.screenshot(path=path)
    if folder := os.environ.get("MEDVISION_PICTURES"):
        shutil.copy(path, folder)


def test_a_refusal_is_read_by_the_person(registry, ui, page, tmp_path):
    """The alias champion for a version without verdict: the dialog says rule, required, found and what to run next."""
    open_version(page, ui, 1)
    give_alias(page, "champion")
    page.get_by_text("medvision validate").first.wait_for()
    assert "verdict" in page.get_by_role("dialog").inner_text()
    picture(page, tmp_path, "refused.png")
    assert registry.state_of() == ({"v1-0-0": 2, "v1-1-0": 3}, {})


def test_a_promotion_is_done_everywhere(registry, ui, page, tmp_path):
    """The alias champion for a validated, approved version: alias, stage and ledger agree afterwards."""
    open_version(page, ui, 2)
    give_alias(page, "champion")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.get_by_text("@ champion").first.wait_for()
    page.reload()
    page.get_by_text("Production").first.wait_for()
    picture(page, tmp_path, "promoted.png")
    with registry.here():
        last = read_ledger(registry.client, NAME)[-1]
        assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []
    assert (last.action, last.version, last.alias) == ("promote", 2, "champion")


def test_the_door_of_stages_is_guarded(registry, ui, page, tmp_path):
    """The stage Production for a version without verdict is refused, and the person reads why."""
    open_version(page, ui, 1)
    # The new pages of the registry have no stages: the old ones are a switch away.
    page.get_by_role("switch").click()
    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    page.get_by_test_id("descriptions-item").filter(has_text="Stage").get_by_text("None").first.click()
    page.locator("[role=menuitem]", has_text="Production").click()
    page.get_by_role("button", name="OK").click()
    page.get_by_text("medvision validate").first.wait_for()
    picture(page, tmp_path, "stage.png")
    assert registry.state_of()[1].get(1) is None
