"""The HTML report tells all figures in words and tables, holds everything within, and runs nothing."""

import dataclasses
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup

from medvision.evaluation.conformal import conformal_figures, fit_conformal, prediction_sets
from medvision.evaluation.html_report import ReportData, Table, render_html
from medvision.evaluation.operating_point import choose_operating_point, figures_at
from medvision.evaluation.selective import abstain_by_sets, select_at_coverage
from medvision.records import (
    Audit,
    Combination,
    Finding,
    Latency,
    Member,
    PackageInfo,
    Preprocessing,
    Speed,
)

ATTACK = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and its tables as rows of texts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.tables = [], [], "", []
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += " ".join(data.split()) + " "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def png(width=3, height=2):
    """Return a gray PNG, made by hand."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def package(classes, points=(), name="resnet18"):
    member = Member(name, {}, Preprocessing(224, 3, (0.5,) * 3, (0.2,) * 3), 1.0, "run1", 7, 0.91)
    combination = Combination(temperature=1.25)
    return PackageInfo(
        name, "phantom", classes, (member,), combination, points, None, "m" * 64, "s" * 64, "run1", "w" * 64, "0.1.0"
    )


def report(y_true, y_score, evaluation, groups=None):
    """Return data with every section that there is; the class in the middle is critical."""
    classes = evaluation.classes
    point = choose_operating_point(classes[1], y_true == 1, y_score[:, 1], groups, target_sensitivity=0.7)
    conformal = fit_conformal(y_true, y_score, np.arange(len(y_true)) if groups is None else groups, 0.9)
    finding = Finding(
        "patient leak", "error", 4, 300, "4 test images are of patients with training images.", "Dropped."
    )
    return ReportData(
        evaluation,
        package(classes, (point,)),
        "2026-11-21",
        pictures={name: png() for name in ("roc_curve", "worst_mistakes", "something_new")},
        verdict=Markup('<p class="failed">Not passed.</p>'),
        uncalibrated={"ece": 0.123, "brier": 0.456, "nll": 0.789},
        operating_points=(figures_at(point, y_true == 1, y_score[:, 1], groups, prevalence=0.05),),
        conformal=conformal_figures(conformal, y_true, y_score, groups),
        selections=(select_at_coverage(y_true, y_score, groups, 0.8),),
        abstention=abstain_by_sets(y_true, prediction_sets(y_score, conformal), groups),
        tables=(Table("Subgroups", "By age.", ("group", "sensitivity"), (("under 50", "0.90"), ("over 50", "0.88"))),),
        speed=Speed(Latency(8.1, 11.3, 14.9, 370, 2), 16, 141.2, 88_000_000, 9_100_000, 2_226_434, "a CPU"),
        looks=3,
        audit=Audit("phantom", "", "", 400, None, {}, 58, (finding,)),
    )  # fmt: skip


@pytest.fixture
def bare(evaluation):
    return ReportData(evaluation, package(evaluation.classes), "2026-11-21")


@pytest.fixture
def full(predictions, evaluation):
    return report(*predictions(), evaluation, np.arange(300) // 3)


@pytest.mark.parametrize("name", ["bare", "full"])
def test_page_is_whole(name, request):
    """Every element is closed in its place, with all sections and with none of the optional ones."""
    page = Page(render_html(request.getfixturevalue(name)))
    assert page.open == []
    assert len(page.all("h1")) == 1


def test_nothing_comes_from_elsewhere(full):
    """There is no script, no address of another host, and the page's policy forbids to fetch anything."""
    html = render_html(full)
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert "://" not in html
    assert "url(" not in html
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in page.all("img"))
    assert all(attributes["href"].startswith("#") for attributes in page.all("a"))
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_links_lead_somewhere(full, bare):
    """Each link within the page has a target, whichever sections there are."""
    for data in (full, bare):
        page = Page(render_html(data))
        targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        assert {attributes["href"][1:] for attributes in page.all("a")} <= targets


def test_names_are_text(predictions, evaluate):
    """Markup in names of classes, model, dataset, picture, table or finding is shown and never run."""
    y_true, y_score = predictions()
    names = [f'{ATTACK}" onerror="alert({c})' for c in range(3)]
    data = report(y_true, y_score, dataclasses.replace(evaluate(y_true, y_score, names), model=ATTACK, dataset=ATTACK))
    finding = Finding(ATTACK, "error", 1, 2, ATTACK, ATTACK)
    data = dataclasses.replace(
        data,
        package=package(tuple(names), data.package.operating_points, name=ATTACK),
        made_on=ATTACK,
        pictures={**data.pictures, ATTACK: png()},
        tables=(Table(ATTACK, ATTACK, (ATTACK, "b"), ((ATTACK, ATTACK),)),),
        speed=dataclasses.replace(data.speed, hardware=ATTACK),
        audit=dataclasses.replace(data.audit, findings=(finding,)),
    )
    html = render_html(data)
    page = Page(html)
    assert page.all("script") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert ATTACK in page.text


def test_only_markup_is_trusted(bare):
    """A verdict that is a plain text is escaped; one that is marked as HTML is not."""
    assert "&lt;b&gt;passed" in render_html(dataclasses.replace(bare, verdict="<b>passed</b>"))
    assert "<b>passed</b>" in render_html(dataclasses.replace(bare, verdict=Markup("<b>passed</b>")))


def test_without_verdict_it_says_so(bare):
    """A report before the gate says that it holds no decision."""
    assert "Not judged yet" in Page(render_html(bare)).text


def test_every_figure_is_told(full):
    """Value and interval of each figure, overall and of each class, stand in the tables."""
    cells = [" ".join(cell.split()) for table in Page(render_html(full)).tables for row in table for cell in row]
    overall = dataclasses.astuple(full.evaluation.overall)
    figures = [figure for figure in overall if figure[0] is not None]
    for each in full.evaluation.per_class:
        figures += [figure for figure in dataclasses.astuple(each)[3:] if figure[0] is not None]
    for value, low, high, *_ in figures:
        assert f"{value:.3f} {low:.3f} to {high:.3f}" in cells


def test_says_in_words_what_is_found(full):
    """Of the critical class the reader is told how many of 100 are found, called falsely, and rightly called."""
    c = full.evaluation.per_class[1]
    text = Page(render_html(full)).text

    def of_hundred(*values):
        return "{:.0f} ({:.0f} to {:.0f})".format(*(100 * value for value in values))

    s, f, p = c.sensitivity, c.specificity, c.ppv
    assert f"Of 100 images with {c.name} the model finds about {of_hundred(s.value, s.low, s.high)}." in text
    assert f"it calls about {of_hundred(1 - f.value, 1 - f.high, 1 - f.low)} {c.name} all the same." in text
    assert f"When it says {c.name}, it is right in about {of_hundred(p.value, p.low, p.high)} of 100 cases" in text
    assert "Of 100 images with glioma" not in text


def test_all_classes_are_told_where_none_is_critical(bare):
    """Without an operating point every class is told of in words."""
    text = Page(render_html(bare)).text
    assert all(f"Of 100 images with {name} the model finds" in text for name in bare.evaluation.classes)


def test_class_that_is_never_called(evaluate):
    """Where a class was never predicted, the report says so and shows dashes for what is not defined."""
    y_true = np.repeat([0, 1, 2], 30)
    y_score = np.tile([0.6, 0.3, 0.1], (90, 1)) + 0.1 * np.eye(3)[y_true] - 0.1 / 3
    evaluation = evaluate(y_true, y_score)
    html = render_html(ReportData(evaluation, package(evaluation.classes), "2026-11-21"))
    assert "It called no test image pituitary" in Page(html).text
    assert "None" not in html
    assert not re.search(r"\bnan\b", Page(html).text)


def test_pictures_are_within(full):
    """Each picture is there with its size and a text in its place; one without a caption of its own is not lost."""
    found = Page(render_html(full)).all("img")
    assert len(found) == 3
    assert all((each["width"], each["height"]) == ("3", "2") for each in found)
    assert all(each["alt"] for each in found)


def test_tables_can_be_heard(full):
    """Each table has a caption, heads of columns and of rows, and its scrolling part can be reached by keyboard."""
    page = Page(render_html(full))
    assert len(page.all("caption")) == len(page.all("table")) == len(page.tables)
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert all(len({len(row) for row in table}) == 1 for table in page.tables)
    regions = [each for each in page.all("div") if each.get("role") == "region"]
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)


def test_limits_are_named(full, bare):
    """What was counted, what val was used for, what the audit found and how often the test split was opened."""
    text = Page(render_html(full)).text
    for part in (
        "Intervals count patients (100) and not images (300)",
        "were chosen on val",
        "looked at 3 times",
        "58 were left out",
        "4 test images are of patients with training images. Dropped.",
    ):
        assert part in text
    unknown = dataclasses.replace(bare, evaluation=dataclasses.replace(bare.evaluation, n_patients=None))
    assert "Patients are unknown" in Page(render_html(unknown)).text


def test_few_cases_are_named(predictions, evaluate):
    """A class with fewer than 20 patients is named among the limits."""
    y_true, y_score = predictions(n=45)
    y_true[:] = np.repeat([0, 1, 2], [5, 20, 20])
    evaluation = evaluate(y_true, y_score)
    text = Page(render_html(ReportData(evaluation, package(evaluation.classes), "2026-11-21"))).text
    assert "Only 5 images with glioma" in text
    assert "images with meningioma: its figures are" not in text


def test_provenance_is_given(full):
    """Fingerprints of package, weights, split, manifest and predictions stand in the report."""
    text = Page(render_html(full)).text
    for fingerprint in ("a" * 64, "w" * 64, "b" * 64, "m" * 64, "c" * 64):
        assert fingerprint in text


def test_sections_without_data_are_left_out(bare):
    """There is no heading without anything below it."""
    text = Page(render_html(bare)).text
    for heading in ("Decisions", "Prediction sets", "Speed and size", "Before and after"):
        assert heading not in text


def test_is_the_same_each_time(full):
    """The same data give the same bytes."""
    assert render_html(full) == render_html(full)
