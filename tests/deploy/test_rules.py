"""Alert rules: each fires when it should and is silent when it should, as promtool sees it."""

import json
import re
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from medvision.serving.metrics import ServiceMetrics

# Of Prometheus itself, and what follows the name of a histogram.
_GIVEN = {"up"}
_PARTS = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def rules(deploy):
    """Return all rules, recorded figures and alerts."""
    groups = yaml.safe_load((deploy / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(deploy):
    """Return the queries of the dashboard, as Prometheus gets them."""
    panels = json.loads((deploy / "grafana" / "medvision.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    for variable, value in (("$__rate_interval", "5m"), ("$instance", ".*"), ("$model", ".*")):
        queries = [query.replace(variable, value) for query in queries]
    return queries


@pytest.mark.parametrize("file", ["service_test.yml", "shifts_test.yml"])
def test_rules_fire_when_they_should(deploy, promtool, file):
    """promtool runs the cases of deploy/tests, and every one ends as it is written there."""
    ended = subprocess.run([promtool, "test", "rules", file], cwd=deploy / "tests", capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_both_cases(deploy, rules):
    """For every alert there is a case in which it fires, and one in which it does not."""
    tests = [test for file in (deploy / "tests").glob("*.yml") for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires} == alerts


def test_every_alert_says_what_to_do(rules):
    """An alert says how bad it is, what has happened and what to do."""
    for rule in rules:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert set(rule["annotations"]) == {"summary", "action"}


def known_names(rules):
    """Return all names that a query may use: the service's metrics, recorded figures, and Prometheus's own."""
    families = text_string_to_metric_families(ServiceMetrics().render().decode())
    names = set(_GIVEN) | {rule["record"] for rule in rules if "record" in rule}
    for family in families:
        names |= {family.name + part for part in _PARTS} if family.type == "histogram" else {family.name}
        names |= {f"{family.name}_total"} if family.type == "counter" else set()
    return names


def used_names(query):
    """Return the names of metrics in a query: nothing else is called so, except in quotes."""
    return set(re.findall(r"\b(?:medvision[_:][\w:]+|up)\b", re.sub(r'"[^"]*"', "", query)))


def test_queries_know_the_metrics(rules, dashboard):
    """Rules and dashboard use no metric that the service does not have."""
    known = known_names(rules)
    for query in [*(rule["expr"] for rule in rules), *dashboard]:
        assert used_names(query), query
        assert used_names(query) <= known, query


def test_the_dashboard_can_be_read_by_prometheus(dashboard, promtool, tmp_path):
    """promtool parses every query of the dashboard."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(dashboard)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run([promtool, "check", "rules", "--lint=none", file], capture_output=True, text=True)
    assert ended.returncode == 0 and f"{len(dashboard)} rules found" in ended.stdout, ended.stdout + ended.stderr


def test_the_dashboard_can_be_imported(deploy):
    """The dashboard names its source by a variable alone, and no two panels have one number or one place."""
    board = json.loads((deploy / "grafana" / "medvision.json").read_text())
    sources = [target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]]
    assert {*sources, *(panel["datasource"]["uid"] for panel in board["panels"])} == {"${datasource}"}
    assert "datasource" in [variable["name"] for variable in board["templating"]["list"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
