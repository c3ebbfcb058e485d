"""Evaluations with known counts, and evidence that lacks nothing."""

from pathlib import Path

import numpy as np

from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import Predictions
from medvision.records import Audit, Figure, Finding, Plan
from medvision.validation.evidence import AgainstChampion, Evidence, SubgroupFigure
from medvision.validation.gate import judge
from medvision.validation.policy import Policy, Rules, load_policy
from medvision.validation.test_ledger import Usage

ROOT = Path(__file__).parents[3]
CLASSES = ("glioma", "meningioma", "pituitary")
PLAN = Plan(replicates=200)


def predictions_with(found=(90, 90, 90), n=100, images_per_patient=None):
    """Return Predictions with ``found`` of ``n`` cases of each class right; the rest go to the next class."""
    y_true = np.repeat(np.arange(3), n)
    y_pred = np.concatenate([np.where(np.arange(n) < found[c], c, (c + 1) % 3) for c in range(3)])
    keys = [None if images_per_patient is None else f"patient{i // images_per_patient}" for i in range(3 * n)]
    ids = tuple(f"image{i}" for i in range(3 * n))
    return Predictions(ids, tuple(keys), y_true, np.eye(3, dtype=np.float32)[y_pred], CLASSES)


def evaluation_with(found=(90, 90, 90), n=100, images_per_patient=None, digest="a" * 64, plan=PLAN):
    """Return the Evaluation of ``predictions_with``."""
    return evaluate_predictions(
        predictions_with(found, n, images_per_patient),
        model="resnet18",
        dataset="phantom",
        package_digest=digest,
        split_fingerprint="b" * 64,
        predictions_sha256="c" * 64,
        plan=plan,
    )


def policy_with(name="mine", **rules):
    """Return a policy of lenient floors and of these rules, written as in the file."""
    floors = {"accuracy": 0.05, "sensitivity": 0.01}
    rules["value"] = {**floors, **rules.get("value", {})}
    return Policy(name, Rules.model_validate(rules), load_policy(path=ROOT / "config" / "validation.yaml").grades)


def audit_with(*severities, split="b" * 64):
    """Return an Audit with a finding of each severity."""
    findings = tuple(Finding(f"found{i}", s, 1, 10, f"{s} found.", "done") for i, s in enumerate(severities))
    return Audit("phantom", "m" * 64, split, 300, None, {}, 0, findings)


def evidence_with(**parts):
    """Return Evidence that meets every rule, with these parts in place of its own."""
    complete = {
        "test_fingerprint": "d" * 64,
        "usage": Usage(3, 2, "e" * 64),
        "made_at": "2026-11-21T12:00:00+00:00",
        "latency_p95_ms": 12.0,
        "audit": audit_with("note", "leak"),
        "comparison": AgainstChampion("f" * 64, Figure(0.01, -0.01, 0.03, -0.005, 300, "paired bootstrap")),
        "subgroups": (
            SubgroupFigure("site", "site = north, glioma", 40, Figure(0.95, 0.88, 0.99, 0.89, 40, "Wilson", 38)),
        ),
    }
    return Evidence(**{**complete, **parts})


def verdict_with(found=(90, 90, 90), **rules):
    """Return the verdict on ``evaluation_with(found)`` under ``policy_with(**rules)``."""
    return judge(evaluation_with(found), policy_with(**rules), evidence_with())
