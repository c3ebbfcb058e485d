"""The archive of a registered version: whole, the same each time, honest about what is missing, and without names."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
from medvision_project import BIN, DATASET, MODEL

SETTINGS = "config/stated.yaml"
STATED = """
card:
  intended_use: Sorts synthetic slices, for nobody.
  funding: None.
"""


@pytest.fixture(scope="module")
def archives(project, tmp_path_factory):
    """Return the archive of the pipeline's version, made twice, with what the command said."""
    folder = tmp_path_factory.mktemp("evidence")
    paths = [folder / "one.zip", folder / "two.zip"]
    said = [project.call("evidence", f"{MODEL}/1.0.0", "--out", str(path), "--json") for path in paths]
    assert said[0].code == said[1].code == 0, said
    return paths, said


@pytest.fixture(scope="module")
def files(archives):
    """Return the files of the archive by name."""
    with zipfile.ZipFile(archives[0][0]) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


@pytest.fixture(scope="module")
def index(files):
    return json.loads(files["index.json"])


def test_the_same_version_gives_the_same_bytes(archives):
    """Two archives of a version are one file, with names in order and no time in it."""
    (one, other), _ = archives
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as zipped:
        assert zipped.namelist() == sorted(zipped.namelist())
        assert {entry.date_time for entry in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_all_that_proves_the_version_is_in_it(files):
    """Card, reports, signed verdict and its key, package, data, training, environment and ledger are there."""
    expected = {
        "model_card.html", "model_card.md", "model_card.json", "package/package.json", "version.json",
        "reports/evaluation_metrics.json", "reports/evaluation_details.json", "reports/evaluation_report.html",
        "reports/medical_validation.json", "verdicts/lenient.dsse.json", "data/audit.json", "data/images.csv",
        "data/normalization_stats.json", "training/config.json", "training/history.json", "training/source.json",
        "environment/packages.txt", "environment/sbom.cdx.json", "ledger/ledger.json",
        "index.html", "index.md", "index.json", "SHA256SUMS",
    }  # fmt: skip
    assert expected <= set(files)
    assert any(name.startswith("keys/") for name in files)
    assert not any(name.endswith((".safetensors", ".pth", ".png", ".parquet")) for name in files)


def test_nothing_that_did_not_hold_is_passed_over(index):
    """An archive of a whole version names no problem."""
    assert index["problems"] == []


def test_the_hashes_are_those_of_the_files(files):
    """SHA256SUMS names every other file with its hash."""
    said = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert said == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "SHA256SUMS"
    }


def test_every_file_that_the_index_names_is_there(files, index):
    """Each link of the index leads to a file of the archive, and to a place in it that exists."""
    links = {
        where[key]
        for each in index["checklists"]
        for answer in each["answers"]
        for where in answer["where"]
        for key in ("file", "show")
    }
    links |= {link for link in re.findall(r'href="([^"]+)"', files["index.html"].decode()) if not link.startswith("#")}
    for link in links:
        name, _, place = link.partition("#")
        assert name in files
        assert not place or f'id="{place}"' in files[name].decode()


def test_every_item_is_supported_missing_or_yours(index):
    """Each item has a state, and what is not supported says what is open."""
    for each in index["checklists"]:
        for answer in each["answers"]:
            assert answer["state"] in ("supported", "missing", "yours")
            is_open = bool(answer["missing"] or answer["write"])
            assert is_open == (answer["state"] != "supported")
            assert answer["where"] or is_open


def test_what_is_missing_is_listed(files):
    """The index says first what is missing, and what makes it."""
    text = files["index.md"].decode().replace("\\", "")
    assert "run: medvision evaluate --robustness-test" in text
    assert "set card.intended_use" in text
    assert "To be written by you" in text


def test_what_people_state_later_is_taken_up(project, tmp_path):
    """A statement that is made in the settings stands in the card of the next archive, and supports its items."""
    project.write(SETTINGS, (project.folder / "config/config.yaml").read_text().partition("\ncard:")[0] + STATED)
    outcome = project.call("evidence", f"{MODEL}/1", "--out", str(tmp_path / "e.zip"), "--config", SETTINGS)
    assert outcome.code == 0, outcome
    with zipfile.ZipFile(tmp_path / "e.zip") as zipped:
        assert "Sorts synthetic slices, for nobody." in zipped.read("model_card.md").decode()
        (claim,) = (each for each in json.loads(zipped.read("index.json"))["checklists"] if each["name"] == "claim")
    assert next(answer for answer in claim["answers"] if answer["id"] == "44")["state"] == "supported"


def test_what_was_stated_at_registration_stays(files):
    """The card as it was registered is kept beside the one of today."""
    assert b"Model card" in files["reports/model_card_as_registered.html"]


def test_nothing_names_a_patient_or_a_folder(project, files):
    """No name of a file or patient, no folder of the machine and no account's home is in any file."""
    patients = {path.stem for path in (project.folder / DATASET).rglob("*.png")}
    names = {re.search(r"phantom\d+", stem)[0] for stem in patients}
    # Of which there are many in a page of pictures.
    private = [*patients, *names, str(project.folder), str(Path.home()) + "/", str(BIN), str(project.folder.parent)]
    for name, content in files.items():
        found = [each for each in private if each.encode() in content]
        assert not found, (name, found)


@pytest.fixture
def meddled(project):
    """Return the folder of the logged model's files, in which somebody has put a forged verdict and a note."""
    (folder,) = {path.parents[1] for path in project.folder.glob("mlruns/*/models/m-*/artifacts/verdicts/*")}
    envelope = json.loads((folder / "verdicts/lenient.dsse.json").read_text())
    envelope["signatures"][0]["keyid"] = "0" * 64
    put = {
        folder / "verdicts/forged.dsse.json": json.dumps(envelope, indent=2) + "\n",
        folder / "verdicts/anna_smith.txt": "born in 1970",
        folder / "reports/anna_smith.txt": "born in 1970",
    }
    for path, text in put.items():
        path.write_text(text)
    yield folder
    for path in put:
        path.unlink()


def test_what_does_not_hold_is_named_and_left_out(project, meddled, tmp_path):
    """A verdict that no trusted key has signed is named first and left out; files that are not ours are not taken."""
    outcome = project.call("evidence", f"{MODEL}/1", "--out", str(tmp_path / "e.zip"))
    assert outcome.code == 0
    assert "!! forged.dsse.json was left out" in outcome.out
    with zipfile.ZipFile(tmp_path / "e.zip") as zipped:
        assert not any("anna_smith" in name or "forged" in name for name in zipped.namelist())
        assert "Not everything in here holds" in zipped.read("index.md").decode()
        assert "verdicts/lenient.dsse.json" in zipped.namelist()


def test_figures_that_were_edited_are_left_out(project, tmp_path):
    """Figures other than those that were judged are named, and stand neither in the archive nor in its card."""
    (path,) = project.folder.glob("mlruns/*/models/m-*/artifacts/reports/evaluation_metrics.json")
    own = path.read_text()
    edited = json.loads(own)
    edited["overall"]["accuracy"]["value"] = 0.98765
    path.write_text(json.dumps(edited))
    try:
        outcome = project.call("evidence", f"{MODEL}/1", "--out", str(tmp_path / "e.zip"))
    finally:
        path.write_text(own)
    assert outcome.code == 0
    assert "!! evaluation_metrics.json was left out" in outcome.out
    with zipfile.ZipFile(tmp_path / "e.zip") as zipped:
        names = set(zipped.namelist())
        assert not names & {"reports/evaluation_metrics.json", "reports/evaluation_details.json"}
        assert not any(b"0.98765" in zipped.read(name) or b"0.988" in zipped.read(name) for name in names)


def test_a_version_without_a_verdict_is_called_not_validated(project, tmp_path):
    """Evidence of what has no signed verdict is made all the same, and says so before all else."""
    (envelope,) = project.folder.glob("mlruns/*/models/m-*/artifacts/verdicts/lenient.dsse.json")
    kept = envelope.rename(envelope.with_name("away"))
    try:
        outcome = project.call("evidence", f"{MODEL}/1", "--out", str(tmp_path / "e.zip"))
    finally:
        kept.rename(envelope)
    assert outcome.code == 0
    with zipfile.ZipFile(tmp_path / "e.zip") as zipped:
        assert "reports/medical_validation.json" not in zipped.namelist()
        for name in ("index.html", "model_card.html"):
            assert "must not be used for patients" in zipped.read(name).decode()


def test_the_list_of_images_fixes_the_test_set(project, files):
    """Whoever has the list can compute the fingerprint of the test set that the verdict names."""
    import csv
    import io

    from medvision.files import fingerprint

    rows = [row for row in csv.DictReader(io.StringIO(files["data/images.csv"].decode())) if row["side"] == "test"]
    found = fingerprint(sorted([row["image_id"], row["pixel_hash"], row["class"]] for row in rows))
    assert found == json.loads(files["reports/medical_validation.json"])["test_fingerprint"]


def test_the_signatures_can_be_checked_with_the_keys(files, tmp_path):
    """The verdict and the ledger hold under the public keys of the archive alone."""
    from medvision.registry.ledger import Entry, check_chain
    from medvision.validation.attestation import open_envelope
    from medvision.validation.keys import load_public_keys

    for name, content in files.items():
        if name.startswith("keys/"):
            (tmp_path / Path(name).name).write_bytes(content)
    keys = load_public_keys(tmp_path)
    assert open_envelope(files["verdicts/lenient.dsse.json"].decode(), keys).passed
    entries = [Entry(**entry) for entry in json.loads(files["ledger/ledger.json"])["entries"]]
    check_chain(entries, keys)
    assert entries[0].action == "register"


def test_the_bill_of_materials_is_that_of_the_training(files):
    """Each package of the training stands in the bill of materials with its version."""
    bill = json.loads(files["environment/sbom.cdx.json"])
    assert bill["bomFormat"] == "CycloneDX"
    found = {f"{each['name']}=={each['version']}" for each in bill["components"]}
    lines = files["environment/packages.txt"].decode().splitlines()
    assert found == {line for line in lines if line and not line.startswith("#")}
    torch = next(each for each in bill["components"] if each["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@")
    assert torch["licenses"]


def test_the_settings_are_those_of_the_training(project, files):
    """Settings and commit are those of the run that trained, without folders and servers."""
    settings = json.loads(files["training/config.json"])
    assert settings["training.model"] == "simple_cnn"
    assert not any(name.startswith(("tracking.", "paths.", "dataset.path")) for name in settings)
    assert json.loads(files["training/source.json"])["git_commit"] == project.commit


def test_no_word_claims_more_than_support(files):
    """Neither the card nor the index says that it fulfils a rule of law or of a standard."""
    for name in ("index.html", "index.md", "index.json", "model_card.html", "model_card.md", "model_card.json"):
        assert not re.search(r"complian|certified", files[name].decode(), re.IGNORECASE), name


def test_the_pages_fetch_nothing(files):
    """Index and card hold no script and nothing that a browser would load."""
    for name in ("index.html", "model_card.html"):
        page = files[name].decode()
        assert not re.search(r"<(script|img|link|iframe)\b|url\(", page)
        assert "default-src 'none'" in page


def test_the_command_says_what_it_made(archives):
    """The record of the step has path, hash and the counts of each checklist."""
    (path, _), said = archives
    record = json.loads(said[0].out)
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [each["checklist"] for each in record["checklists"]] == ["CLAIM 2024", "TRIPOD+AI", "STARD-AI", "GMLP"]


@pytest.mark.parametrize("model", [f"{MODEL}/9", f"{MODEL}/9.9.9", f"{MODEL}@champion", "nobody/1"])
def test_an_unknown_version_is_an_error(project, model, tmp_path):
    """What is not registered ends with exit 2, says what to give, and leaves no archive."""
    outcome = project.call("evidence", model, "--out", str(tmp_path / "e.zip"))
    assert outcome.code == 2
    assert "NAME/NUMBER" in outcome.err or "There is no model" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_an_error(project, tmp_path):
    """An archive is a .zip, and nothing else."""
    outcome = project.call("evidence", f"{MODEL}/1", "--out", str(tmp_path / "e.tar"))
    assert (outcome.code, "expects a .zip" in outcome.err) == (2, True)
