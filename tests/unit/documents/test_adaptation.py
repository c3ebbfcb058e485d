"""The summary of an adaptation: all that was found, each proposal with its reason, and what comes next."""

from dataclasses import replace

from medvision.data.recipe import Proposal
from medvision.documents.adaptation import Adaptation, render_summary
from medvision.records import Audit, Finding

LEAK = Finding("l", "leak", 2, 9, "2 images leak.", "They are left out.", (), "Figures are too good.")
NOTE = Finding("n", "note", 1, 9, "Not used: 1 mask.", "Look.", (), "")
COUNTS = {"train": {"a": 5, "b": 4}, "val": {"a": 1, "b": 1}, "test": {"a": 1}}
PLAIN = Adaptation(
    dataset="ward",
    settings_file="config/datasets/ward.yaml",
    labels_from="class folders",
    window="",
    audit=Audit("ward", "m" * 64, "s" * 64, 1234, None, COUNTS, 3, (), True),
    recipe=(Proposal("dataset.path", "/d", ""), Proposal("training.lr", 0.001, "a new head")),
    kept={},
    suggestions=(),
    command="mlflow run . -e pipeline -P dataset=ward",
)


def summary(*findings, **changes):
    audit = replace(PLAIN.audit, findings=findings)
    return render_summary(replace(PLAIN, audit=audit, **changes))


def test_counts_of_every_side():
    """Each side has its classes and their sum, and what is on no side is counted."""
    text = summary()
    assert "| train | 5 | 4 | 9 |" in text and "| test | 1 | 0 | 1 |" in text
    assert "Left out of all sides: 3 images." in text
    assert "- images: 1,234" in text and "- patients: unknown" in text and "- labels from: class folders" in text


def test_nothing_found():
    """A clean dataset is said to be one."""
    assert "**Nothing was found.**" in summary()


def test_findings_are_told_whole():
    """Findings and leaks are counted, and each has message, effect and action."""
    text = summary(LEAK, NOTE)
    assert "**2 findings, 1 leak among them.**" in text
    assert "2 images leak. Figures are too good. They are left out." in text
    assert "**1 finding, 0 leaks among them.**" in summary(NOTE)


def test_proposals_have_reasons():
    """What is proposed stands with its reason; what was given needs none, and is not called a proposal."""
    text = summary()
    assert "| `training.lr` | 0.001 | a new head |" in text
    assert "`dataset.path`" not in text


def test_a_file_that_was_kept():
    """Where a person's file differs, its value stands beside the given or proposed one; else nothing is said of it."""
    text = summary(kept={"training.lr": 0.5})
    assert "it is what holds" in text and "| `training.lr` | 0.5 | 0.001 |" in text
    assert "it is what holds" not in summary()


def test_a_pattern_can_be_copied():
    """The option of a suggestion stands letter by letter, not as Markdown would escape it."""
    pattern = r"--patient-pattern '^(.+)[_-]\d+\.[^.]+$'"
    text = summary(suggestions=(("Names are alike.", pattern),))
    assert f"`{pattern}`" in text and "Names are alike. To apply it" in text


def test_window_and_next_command():
    """The window is said where there is one, and the next command stands last, as it is to be typed."""
    assert "CT window" not in summary()
    text = summary(window="0,400")
    assert "- CT window: 0,400" in text
    assert text.rstrip().endswith("`mlflow run . -e pipeline -P dataset=ward`")


def test_texts_are_escaped():
    """A name from the data becomes neither HTML nor Markdown."""
    text = summary(dataset="<b>*x*</b>")
    assert "<b>" not in text and "*x*" not in text
