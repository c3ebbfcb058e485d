"""How tests are spread over processes: what shares a project of the pipelines runs in the process that made it."""

import pytest

# Each takes most of a minute to make; all other tests stay with those of their file.
SHARED = ("project", "pair")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Name the group of each test, which ``pytest --dist loadgroup`` keeps together."""
    for item in items:
        names = item.fixturenames if item.path.parent.name == "pipelines" else ()
        shared = next((name for name in SHARED if name in names), None)
        item.add_marker(pytest.mark.xdist_group(shared or item.location[0]))
