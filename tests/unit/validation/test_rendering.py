"""The verdict as people read it."""

import dataclasses
from html.parser import HTMLParser

import pytest
from validation_cases import evaluation_with, evidence_with, policy_with, verdict_with

from medvision.validation.gate import judge
from medvision.validation.rendering import render_html, render_text


@pytest.fixture
def insufficient():
    return judge(evaluation_with((12, 12, 12), n=12), policy_with(bound={"sensitivity": 0.85}), evidence_with())


class Strict(HTMLParser):
    """Collects text and tags, and fails where they do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parse(html):
    """Return the tags and the text of a whole piece of HTML."""
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.tags, " ".join(" ".join(parser.texts).split())


def test_text_lists_every_reason():
    """The text says the decision first, then every rule with its reason and its remedy, and what it was made from."""
    verdict = verdict_with((21, 100, 100), value={"sensitivity": 0.85})
    text = render_text(verdict)
    assert text.startswith("resnet18: FAILED under policy mine, 1 of 4 rules are not met")
    assert all(outcome.message in text and outcome.remedy in text for outcome in verdict.outcomes)
    assert verdict.policy_fingerprint in text and verdict.test_fingerprint in text
    assert render_text(verdict_with()).startswith("resnet18: PASSED under policy mine, every rule is met")


def test_text_says_how_often_the_test_set_was_opened(verdict):
    """The text says how often the test set was opened and for how many packages, in whole words."""
    assert "the test set was opened 3 times, for 2 model packages" in render_text(verdict)
    once = dataclasses.replace(verdict, looks=1, models_seen=1, n_patients=40)
    assert "300 test images, 40 patients; the test set was opened once, for 1 model package" in render_text(once)


def test_insufficient_evidence_is_not_called_failure(insufficient):
    """Text and page say insufficient evidence, what it means, and how many cases would mend it."""
    assert render_text(insufficient).startswith("resnet18: INSUFFICIENT EVIDENCE under policy mine")
    _, text = parse(render_html(insufficient))
    assert "Medical validation: insufficient evidence" in text
    assert "7 more glioma images in the test split would let a perfect model pass" in text
    assert "too few" in text


def test_the_section_is_whole(verdict):
    """The section is one well-formed element with decision, grade, test set and a row a rule."""
    tags, text = parse(render_html(verdict))
    assert tags[0] == "section" and tags.count("section") == 1
    assert tags.count("tr") == 1 + len(verdict.outcomes)
    assert "Medical validation: passed" in text and "excellent" in text
    assert "the test set was opened 3 times" in text


def test_the_section_is_escaped(verdict):
    """Names that hold HTML stay text, wherever they stand."""
    evil = "<script>alert(1)</script>"
    outcome = dataclasses.replace(verdict.outcomes[0], rule=evil, message=f"{evil} & more", remedy=evil)
    poisoned = dataclasses.replace(verdict, model=evil, policy=evil, outcomes=(outcome,))
    html = render_html(poisoned)
    tags, text = parse(html)
    assert "script" not in tags
    assert evil in text and evil not in html
