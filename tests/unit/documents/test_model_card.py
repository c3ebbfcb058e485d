"""The model card says what the records say, names what nobody has said, and runs nothing."""

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "validation"))

from validation_cases import CLASSES, audit_with, evaluation_with, predictions_with, verdict_with

from medvision.config import CardConfig
from medvision.data.lineage import SideSize
from medvision.documents.card_sections import CardRecords
from medvision.documents.model_card import describe_card, write_card
from medvision.documents.pages import render_html, render_markdown
from medvision.evaluation.conformal import fit_conformal
from medvision.evaluation.details import describe_details
from medvision.evaluation.operating_point import choose_operating_point
from medvision.models.licences import StartingWeights, describe_starting_weights
from medvision.records import Combination, Member, PackageInfo, Preprocessing, record_fingerprint

ATTACK = "<script>alert(1)</script>|x"
FOUND = (90, 80, 95)


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "col"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += f" {data}"

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def package(classes=CLASSES, **parts):
    """Return a package of one network, with an operating point and prediction sets."""
    predictions = predictions_with(FOUND)
    scores = 0.9 * predictions.y_score + 0.03
    point = choose_operating_point(
        classes[0], predictions.y_true == 0, scores[:, 0], np.arange(300), target_sensitivity=0.7
    )
    member = Member(
        "resnet18", {"timm_name": "resnet18"}, Preprocessing(224, 3, (0.5,) * 3, (0.2,) * 3), 1.3, "run1", 7, 0.91
    )
    made = PackageInfo(
        name="phantom-resnet18", dataset="phantom", classes=classes, members=(member,), combination=Combination(),
        operating_points=(point,), conformal=fit_conformal(predictions.y_true, scores, np.arange(300), 0.9),
        manifest_fingerprint="m" * 64, split_fingerprint="b" * 64, run_key="run1", weights_sha256="w" * 64,
    )  # fmt: skip
    return dataclasses.replace(made, **parts)


@pytest.fixture(scope="module")
def full():
    """Return a card's records with all that there can be, but two of the statements only."""
    info, evaluation = package(), evaluation_with(FOUND)
    details = describe_details(evaluation, predictions_with(FOUND), info, prevalence={"glioma": 0.05}, looks=3)
    sizes = tuple(
        SideSize(side, name, 40 + n, 10 + n) for n, side in enumerate(("train", "val", "test")) for name in CLASSES
    )
    return CardRecords(
        package=info,
        statements=CardConfig(intended_use="Sorts MR slices for a radiologist.", data_licence="CC0-1.0"),
        made_on="2026-11-21",
        version="1.2.0",
        evaluation=evaluation,
        details=details,
        verdict=verdict_with(FOUND),
        audit=audit_with("leak"),
        sizes=sizes,
        weights=(StartingWeights("resnet18", "timm, resnet18.a1_in1k", "apache-2.0"),),
    )


@pytest.fixture(scope="module")
def bare():
    """Return the records of a card of a package of which nothing else is known."""
    return CardRecords(package(operating_points=(), conformal=None), CardConfig(), "2026-11-21")


@pytest.fixture(scope="module")
def html(full):
    return render_html(describe_card(full))


@pytest.fixture(scope="module")
def markdown(full):
    return render_markdown(describe_card(full))


def shown(figure):
    return f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}"


def test_the_figures_are_those_of_the_evaluation(full, html, markdown):
    """Each overall figure and each class's sensitivity and specificity stands in both with its interval."""
    evaluation, text = full.evaluation, Page(html).text
    figures = [getattr(evaluation.overall, name) for name in ("accuracy", "balanced_accuracy", "auroc", "ece")]
    figures += [figure for each in evaluation.per_class for figure in (each.sensitivity, each.specificity)]
    for value, interval in map(shown, figures):
        assert f"{value} {interval}" in text
        assert f"{value} ({interval})" in markdown


def test_the_thresholds_are_those_of_the_package(full, html, markdown):
    """Operating points and prediction sets stand in it as they were frozen, with what they do on test."""
    point, on_test = full.package.operating_points[0], full.details.operating_points[0]
    for text in (Page(html).text, markdown):
        assert f"{point.threshold:.4f}" in text
        assert all(f"{threshold:.4f}" in text for threshold in full.package.conformal.thresholds)
        assert shown(on_test.ppv)[1] in text


def test_the_data_are_counted_by_class_side_and_patients(html, markdown):
    """The sizes of the sides, the audit's findings and what was done about them are told."""
    for text in (Page(html).text, markdown):
        assert "40 (10)" in text
        assert "leak found." in text
        assert "looked at 3 times" in text


def test_the_verdict_is_told_with_its_reasons(full, html, markdown):
    """State, policy, grade and every rule of the verdict stand in it."""
    for text in (Page(html).text, markdown):
        assert "Passed medical validation" in text
        assert f"grade: {full.verdict.grade}" in text
    assert all(outcome.message in Page(html).text for outcome in full.verdict.outcomes)


def test_what_is_stated_is_said(html, markdown):
    """A statement of the settings stands in the card as it was written."""
    assert "Sorts MR slices for a radiologist." in Page(html).text
    assert "**Intended use:** Sorts MR slices for a radiologist." in markdown


@pytest.mark.parametrize("name", sorted(CardConfig.model_fields))
def test_what_is_not_stated_is_named_as_missing(bare, name):
    """Each statement that nobody has made is named, with the setting that would make it; nothing is made up."""
    page = describe_card(bare)
    assert f"not stated; set card.{name}" in Page(render_html(page)).text
    assert f"not stated; set card.{name}" in render_markdown(page).replace("\\", "")


def test_what_has_no_record_is_named_as_missing(bare):
    """Without evaluation, verdict, audit and sizes the card says so, and what to run."""
    text = Page(render_html(describe_card(bare))).text
    for part in (
        "Not validated",
        "must not be used for patients",
        "run: medvision evaluate",
        "run: medvision audit",
        "No operating point was chosen",
        "Which weights the training started from is not known",
        "No subgroups were assessed",
    ):
        assert part in text


def test_an_audit_of_another_split_is_not_told(full):
    """An audit that is not of the split that the model learned from counts as none."""
    other = dataclasses.replace(full, audit=audit_with("leak", split="c" * 64), sizes=())
    text = Page(render_html(describe_card(other))).text
    assert "leak found." not in text
    assert "There is no audit" in text


def test_a_failed_verdict_is_said_first(full):
    """The card of a model that failed says so before any figure."""
    failed = verdict_with(FOUND, value={"accuracy": 0.99})
    text = Page(render_html(describe_card(dataclasses.replace(full, verdict=failed)))).text
    assert text.index("Did not pass medical validation") < text.index("Accuracy")


@pytest.mark.parametrize("name", ["bare", "full"])
def test_the_page_is_whole_and_fetches_nothing(name, request):
    """Every element is closed; there is no script, no picture and no address of another host."""
    html = render_html(describe_card(request.getfixturevalue(name)))
    page = Page(html)
    assert page.open == []
    assert page.all("script") == page.all("img") == page.all("link") == page.all("iframe") == []
    assert "://" not in html
    assert "url(" not in html
    assert all(attributes["href"].startswith("#") for attributes in page.all("a"))
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    ids = {attributes["id"] for attributes in page.all("section") if "id" in attributes}
    assert {attributes["href"][1:] for attributes in page.all("a")} == ids


def test_hostile_names_stay_text(full):
    """A class, a dataset and a statement that are HTML or Markdown are shown letter by letter."""
    classes = (ATTACK, *CLASSES[1:])
    hostile = dataclasses.replace(
        full,
        package=dataclasses.replace(full.package, name=ATTACK, dataset=ATTACK, classes=classes),
        statements=CardConfig(intended_use=ATTACK),
        evaluation=dataclasses.replace(
            full.evaluation,
            classes=classes,
            per_class=(dataclasses.replace(full.evaluation.per_class[0], name=ATTACK), *full.evaluation.per_class[1:]),
        ),
    )
    page = describe_card(hostile)
    parsed, markdown = Page(render_html(page)), render_markdown(page)
    assert parsed.all("script") == []
    assert ATTACK in parsed.text
    assert "<script" not in markdown
    # A table keeps its columns.
    rows = re.findall(r"(?m)^\|.*alert.*\|$", markdown)
    assert rows
    assert all("\\|x" in row for row in rows)


def test_the_record_for_machines_names_no_file(full, tmp_path):
    """model_card.json has the statements and the audit without the names of files, which may name patients."""
    audit = audit_with("leak")
    finding = dataclasses.replace(audit.findings[0], examples=("anna_smith_1970.png",))
    paths = write_card(tmp_path, dataclasses.replace(full, audit=dataclasses.replace(audit, findings=(finding,))))
    assert [path.name for path in paths] == ["model_card.md", "model_card.html", "model_card.json"]
    assert not any("anna_smith" in path.read_text() for path in paths)
    record = json.loads(paths[2].read_text())
    assert record["statements"]["data_licence"] == "CC0-1.0"
    assert record["package_digest"] == record_fingerprint(full.package)


def test_the_same_records_give_the_same_card(full, tmp_path):
    """The same records give the same bytes."""
    one, other = write_card(tmp_path / "1", full), write_card(tmp_path / "2", full)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize(
    ("pretrained", "source", "licence"),
    [
        ("True", "timm, resnet18.a1_in1k", "apache-2.0"),
        ("False", "none: trained from random weights", "none needed"),
        ("/home/anna/weights.pth", "file or folder weights.pth", "unknown"),
        (None, "unknown", "unknown"),
    ],
)
def test_the_licence_of_starting_weights_is_known_or_said_to_be_unknown(pretrained, source, licence):
    """timm names the licence of its weights; of a file nothing is known, and of its path nothing is told."""
    assert describe_starting_weights("resnet18", "resnet18", pretrained) == StartingWeights("resnet18", source, licence)


def test_no_word_claims_more_than_support(full, bare):
    """The card never says that it fulfils a rule of law or of a standard."""
    for records in (full, bare):
        text = render_html(describe_card(records)) + render_markdown(describe_card(records))
        assert not re.search(r"complian|certified", text, re.IGNORECASE)
