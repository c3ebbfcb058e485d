"""The ledger of a test set counts every look, and what is done to it shows."""

import json
import multiprocessing

import pandas as pd
import pytest

from medvision import errors
from medvision.data.manifest import Manifest
from medvision.data.split import Split
from medvision.validation import test_ledger as ledger

FINGERPRINT = "a" * 64


def look(folder, package="p" * 64, fingerprint=FINGERPRINT, step="evaluate"):
    return ledger.look(folder, step=step, model="resnet18", package_digest=package, test_fingerprint=fingerprint)


@pytest.fixture
def used(tmp_path):
    """Return the folder of a ledger with five looks."""
    for number in range(5):
        look(tmp_path, package=f"{number % 2}" * 64)
    return tmp_path


def lines(folder):
    return (folder / ledger.LEDGER_FILE).read_text().splitlines(keepends=True)


def write(folder, changed):
    (folder / ledger.LEDGER_FILE).write_text("".join(changed))


def test_looks_are_counted(tmp_path):
    """Each look returns how often the test set was opened; the same package counts again, and is one package."""
    assert [look(tmp_path, package=p * 64) for p in "xxy"] == [1, 2, 3]
    usage = ledger.usage(tmp_path)
    assert (usage.looks, usage.models) == (3, 2)
    assert usage.head == ledger.check_chain(tmp_path)[-1].hash


def test_an_unused_test_set(tmp_path):
    """Before the first look nothing is locked and nothing counted."""
    assert ledger.usage(tmp_path) == ledger.Usage(0, 0, "")
    assert ledger.locked_test_set(tmp_path) is None


def test_the_first_look_locks(used):
    """Another test set is refused with exit 5, with how to go on, and is not counted."""
    before = lines(used)
    with pytest.raises(errors.TestSetChanged, match=r"locked.*dataset\.name=NAME") as refused:
        look(used, fingerprint="b" * 64)
    assert refused.value.exit_code == 5
    assert lines(used) == before
    assert ledger.locked_test_set(used) == FINGERPRINT


def test_an_entry_says_who_when_and_what(used):
    """An entry holds number, time, account, step, model, package and test set, and nothing else."""
    entry = ledger.check_chain(used)[0]
    assert (entry.sequence, entry.step, entry.model) == (1, "evaluate", "resnet18")
    assert entry.time.endswith("+00:00") and entry.who
    assert set(json.loads(lines(used)[0])) == {
        "sequence", "time", "who", "step", "model", "package_digest", "test_fingerprint", "previous", "hash",
    }  # fmt: skip


@pytest.mark.parametrize("number", [1, 3, 5])
def test_an_edit_is_named(used, number):
    """An entry that was edited is named by its number, and no look is added behind it."""
    changed = lines(used)
    changed[number - 1] = changed[number - 1].replace("resnet18", "resnet50")
    write(used, changed)
    with pytest.raises(errors.LedgerBroken, match=f"Entry {number} "):
        ledger.check_chain(used)
    with pytest.raises(errors.LedgerBroken):
        look(used)


def test_an_edit_with_its_own_hash_is_named(used):
    """An entry that was edited together with its hash no longer fits the next one, or the head if it is the last."""
    for number in (2, 5):
        changed = lines(used)
        content = json.loads(changed[number - 1])
        del content["hash"]
        content["model"] = "resnet50"
        content["hash"] = ledger.fingerprint(content)
        changed[number - 1] = json.dumps(content, sort_keys=True) + "\n"
        (used / "original").write_text("".join(lines(used)))
        write(used, changed)
        with pytest.raises(errors.LedgerBroken, match=f"Entry {min(number + 1, 5)} "):
            ledger.check_chain(used)
        write(used, [(used / "original").read_text()])


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_deletion_is_named(used, number):
    """Where an entry was deleted the one that took its place is named."""
    write(used, [line for place, line in enumerate(lines(used), 1) if place != number])
    with pytest.raises(errors.LedgerBroken, match=f"Entry {number} "):
        ledger.check_chain(used)


def test_another_order_is_named(used):
    """Where entries were exchanged the first of them is named."""
    one, two, three, four, five = lines(used)
    write(used, [one, three, two, four, five])
    with pytest.raises(errors.LedgerBroken, match="Entry 2 "):
        ledger.check_chain(used)


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_truncation_is_named(used, kept):
    """Where the last entries were cut off the first missing one is named, though the rest is a whole chain."""
    write(used, lines(used)[:kept])
    with pytest.raises(errors.LedgerBroken, match=f"Entry {kept + 1} "):
        ledger.check_chain(used)


def test_half_a_line_is_named(used):
    """An entry of which a part is cut off is named."""
    text = "".join(lines(used))
    write(used, [text[:-40]])
    with pytest.raises(errors.LedgerBroken, match="Entry 5 "):
        ledger.check_chain(used)


def test_a_lost_head_is_said(used):
    """Without the head, cutting off would not show: the ledger is broken then."""
    (used / ledger.HEAD_FILE).unlink()
    with pytest.raises(errors.LedgerBroken, match="head"):
        ledger.check_chain(used)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sequence": 0, "hash": ""}', '{"sequence": 5, "hash": "x"}'])
def test_a_damaged_head_is_said(used, content):
    """A head that is damaged, or of another ledger, is an error and no stack trace."""
    (used / ledger.HEAD_FILE).write_text(content)
    with pytest.raises(errors.LedgerBroken):
        ledger.check_chain(used)


def test_a_kill_between_entry_and_head(used):
    """A look whose entry is on disk and whose head is not, as after a kill, counts; the next one goes on."""
    head = (used / ledger.HEAD_FILE).read_text()
    look(used)
    (used / ledger.HEAD_FILE).write_text(head)
    assert ledger.usage(used).looks == 6
    assert look(used) == 7


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_no_flipped_byte_passes(used, position):
    """Whichever byte of an entry is changed, the ledger is broken."""
    content = bytearray((used / ledger.LEDGER_FILE).read_bytes())
    content[position] ^= 1
    (used / ledger.LEDGER_FILE).write_bytes(content)
    with pytest.raises(errors.LedgerBroken):
        ledger.check_chain(used)


def _look_often(folder, count):
    for _ in range(count):
        look(folder)


def test_two_processes_lose_nothing(tmp_path):
    """Of looks that several processes write down at once none is lost, and the chain is whole."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_look_often, args=(tmp_path, 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert ledger.usage(tmp_path).looks == 30


@pytest.fixture
def dataset():
    rows = pd.DataFrame(
        {"image_id": list("pqrs"), "pixel_hash": list("1234"), "label": [0, 1, 0, 1], "patient_key": [""] * 4}
    )
    sides = pd.Series(["train", "train", "test", "test"]).to_numpy()
    return Manifest(None, ("a", "b"), rows, (), 0, (), "", "m"), Split(sides, "m", "s")


def test_the_fingerprint_is_of_the_test_images(dataset):
    """Order and training images do not matter; a pixel, a label, an image more or fewer does."""
    manifest, split = dataset

    def changed(row, **values):
        rows = manifest.rows.copy()
        for name, value in values.items():
            rows.loc[row, name] = value
        return ledger.fingerprint_test_set(Manifest(None, ("a", "b"), rows, (), 0, (), "", "m"), split)

    one = ledger.fingerprint_test_set(manifest, split)
    assert changed(0, pixel_hash="9") == one
    assert len({one, changed(2, pixel_hash="9"), changed(2, label=1), changed(3, image_id="z")}) == 4
    sides = split.sides.copy()
    sides[1] = "test"
    assert ledger.fingerprint_test_set(manifest, Split(sides, "m", "s")) != one
    turned = Manifest(None, ("a", "b"), manifest.rows.iloc[::-1].reset_index(drop=True), (), 0, (), "", "m")
    assert ledger.fingerprint_test_set(turned, Split(split.sides[::-1], "m", "s")) == one


def test_nothing_identifies_a_patient(used):
    """No image and no patient stands in the ledger: of the test set it holds the fingerprint alone."""
    for entry in ledger.check_chain(used):
        assert entry.test_fingerprint == FINGERPRINT
        assert set(vars(entry)).isdisjoint({"image_id", "patient_key", "path"})
