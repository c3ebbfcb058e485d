"""The metrics of the prediction service: counted once, with bounded labels, in microseconds."""

import shutil
import subprocess
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from medvision.serving.metrics import ServiceMetrics

CASE = {"model": "brain-mri-resnet18", "version": "1.2.0"}
# The names and labels that rules, dashboards and other people's queries rely on.
PROMISED = {
    "medvision_requests_total": {"endpoint", "method", "status"},
    "medvision_request_duration_seconds_bucket": {"endpoint", "le"},
    "medvision_in_flight": set(),
    "medvision_queue_depth": set(),
    "medvision_predictions_total": {"model", "version", "label"},
    "medvision_confidence_bucket": {"model", "version", "le"},
    "medvision_abstentions_total": {"model", "version", "reason"},
    "medvision_batch_size_bucket": {"le"},
    "medvision_errors_total": {"type"},
    "medvision_model_loaded": {"model", "version"},
    "medvision_model_info": {"model", "version", "package_digest", "engine", "policy"},
    "medvision_alias_diverged": set(),
    "medvision_audit_commit_seconds_bucket": {"le"},
    "medvision_shadow_disagreements_total": {"model", "version"},
    "medvision_swaps_total": {"outcome"},
}


@pytest.fixture
def metrics():
    return ServiceMetrics()


def use_all(metrics):
    """Bring every metric into being."""
    metrics.request("/api/v1/predict", "POST", 200, 0.02)
    metrics.answered(*CASE.values(), "glioma_tumor", 0.97, abstention=None)
    metrics.answered(*CASE.values(), "glioma_tumor", 0.51, abstention="set")
    metrics.error("too_large")
    metrics.loaded(*CASE.values(), "ab12", "onnx", "production")
    metrics.shadow_disagreed("brain-mri-resnet18", "1.3.0")
    metrics.swapped("done")


def samples(metrics):
    """Return all samples that Prometheus would read: name, labels, value."""
    families = text_string_to_metric_families(metrics.render().decode())
    return [(found.name, found.labels, found.value) for family in families for found in family.samples]


def value(metrics, name, **labels):
    """Return the one sample of this name and these labels; None without one."""
    found = [value for other, theirs, value in samples(metrics) if (other, theirs) == (name, labels)]
    return found[0] if found else None


def test_names_and_labels_are_those_that_are_promised(metrics):
    """Every metric has the name and the labels that rules and dashboards rely on, and there is no other."""
    use_all(metrics)
    found = {name: set(labels) for name, labels, _ in samples(metrics)}
    kept = {name: labels for name, labels in found.items() if not name.endswith(("_created", "_sum", "_count"))}
    assert kept == PROMISED


def test_a_request_is_counted(metrics):
    """A request counts by route, method and status, and its seconds by route."""
    metrics.request("/api/v1/predict", "POST", 200, 0.02)
    metrics.request("/api/v1/predict", "POST", 429, 0.001)
    route = {"endpoint": "/api/v1/predict"}
    assert value(metrics, "medvision_requests_total", **route, method="POST", status="200") == 1
    assert value(metrics, "medvision_requests_total", **route, method="POST", status="429") == 1
    assert value(metrics, "medvision_request_duration_seconds_sum", **route) == pytest.approx(0.021)


def test_methods_are_bounded(metrics):
    """Methods that a client makes up are one."""
    for i in range(100):
        metrics.request("/api/v1/predict", f"METHOD{i}", 405, 0.001)
    assert value(metrics, "medvision_requests_total", endpoint="/api/v1/predict", method="other", status="405") == 100


def test_a_case_is_counted_by_class_and_confidence(metrics):
    """Each case counts once, by its class or none; an abstention counts beside it, by its reason."""
    metrics.answered(*CASE.values(), "glioma_tumor", 0.97, abstention=None)
    metrics.answered(*CASE.values(), "glioma_tumor", 0.51, abstention="set")
    metrics.answered(*CASE.values(), None, None, abstention="indeterminate")
    assert value(metrics, "medvision_predictions_total", **CASE, label="glioma_tumor") == 2
    assert value(metrics, "medvision_predictions_total", **CASE, label="") == 1
    assert value(metrics, "medvision_confidence_count", **CASE) == 2
    assert value(metrics, "medvision_confidence_bucket", **CASE, le="0.6") == 1
    assert value(metrics, "medvision_abstentions_total", **CASE, reason="set") == 1
    assert value(metrics, "medvision_abstentions_total", **CASE, reason="indeterminate") == 1


def loaded(metrics):
    """Return the versions that are said to be loaded, and those of which there is information."""
    found = samples(metrics)
    return tuple(
        sorted(labels["version"] for name, labels, number in found if name == f"medvision_{which}" and number == 1)
        for which in ("model_loaded", "model_info")
    )


def test_the_version_before_is_forgotten(metrics):
    """After a swap only the new version is loaded; after an unload none."""
    metrics.loaded("m", "1.0.0", "aa", "onnx", "production")
    metrics.loaded("m", "1.1.0", "bb", "onnx", "production")
    assert loaded(metrics) == (["1.1.0"], ["1.1.0"])
    metrics.unloaded("champion")
    assert loaded(metrics) == ([], [])


def test_slots_are_apart(metrics):
    """A challenger beside the champion; once it is champion too, its slot may be emptied and it stays loaded."""
    metrics.loaded("m", "1.0.0", "aa", "onnx", "production")
    metrics.loaded("m", "1.1.0", "bb", "onnx", "staging", slot="challenger")
    assert loaded(metrics) == (["1.0.0", "1.1.0"],) * 2
    metrics.loaded("m", "1.1.0", "bb", "onnx", "production")
    assert loaded(metrics) == (["1.1.0"], ["1.1.0", "1.1.0"])
    metrics.unloaded("challenger")
    assert loaded(metrics) == (["1.1.0"], ["1.1.0"])
    metrics.loaded("m", "1.1.0", "bb", "onnx", "production", slot="challenger")
    metrics.unloaded("challenger")
    assert loaded(metrics) == (["1.1.0"], ["1.1.0"])


def test_no_scrape_finds_a_gap(metrics):
    """While versions are swapped, every scrape finds one loaded."""
    metrics.loaded("m", "0", "aa", "onnx", "production")
    done = threading.Event()

    def swap():
        number = 0
        while not done.is_set():
            number += 1
            metrics.loaded("m", str(number), "aa", "onnx", "production")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        assert all(b"medvision_model_loaded{" in metrics.render() for _ in range(200))
    finally:
        done.set()
        swapping.join()


def test_services_do_not_share():
    """Two services in one process count each for itself."""
    first, second = ServiceMetrics(), ServiceMetrics()
    first.error("too_large")
    assert value(second, "medvision_errors_total", type="too_large") is None


def test_a_request_costs_microseconds(metrics):
    """All that is counted of one request takes less than 1 ms, in the best of 5 rounds."""
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(500):
            metrics.in_flight.inc()
            metrics.queue_depth.set(3)
            metrics.batch_size.observe(4)
            metrics.audit_commit_seconds.observe(0.004)
            metrics.answered(*CASE.values(), "glioma_tumor", 0.97, abstention=None)
            metrics.request("/api/v1/predict", "POST", 200, 0.02)
            metrics.in_flight.dec()
        rounds.append((time.perf_counter() - started) / 500)
    print(f"metrics of one request: {min(rounds) * 1e6:.0f} us")
    assert min(rounds) < 1e-3


def test_prometheus_reads_them(metrics):
    """promtool, which knows the rules for names, units and help texts, finds nothing to say."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    use_all(metrics)
    text = b"\n".join(line for line in metrics.render().splitlines() if b"_created" not in line) + b"\n"
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
