"""How tests are spread over processes: a file at a time, and all of the pipelines in one process."""

from xdist.scheduler import LoadScopeScheduling

# Their files share two projects, each of which takes most of a minute to make.
TOGETHER = "tests/pipelines/"


class ByFile(LoadScopeScheduling):
    """Files by the number of their tests, those of the pipelines as one."""

    def _split_scope(self, nodeid):
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config, log):
    """Spread tests that way: groups by mark, which xdist has for it, do nothing under pytest 9."""
    return ByFile(config, log)
