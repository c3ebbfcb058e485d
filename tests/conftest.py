"""How tests are spread over processes: a file at a time, but all of the pipelines in one process, and of serving."""

from xdist.scheduler import LoadScopeScheduling

# Their files share two projects, each of which takes most of a minute to make, or a service that runs.
TOGETHER = ("tests/pipelines/", "tests/serving/")


class ByFile(LoadScopeScheduling):
    """Files by the number of their tests, those that share something as one."""

    def _split_scope(self, nodeid):
        together = [folder for folder in TOGETHER if nodeid.startswith(folder)]
        return together[0] if together else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config, log):
    """Spread tests that way: groups by mark, which xdist has for it, do nothing under pytest 9."""
    return ByFile(config, log)
