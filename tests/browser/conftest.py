"""The project of tests/pipelines, looked at in a browser; without Chromium these tests are skipped."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

from medvision_project import piped_project

CHROMIUM = shutil.which("chromium", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/bin")
# What the browser would otherwise ask of its makers.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Return the project after ``medvision pipeline``."""
    return piped_project(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def browser():
    """Start Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: make system-packages installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *QUIET])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Return a fresh page, without the cookies and storage of others."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()
