"""The checklists are whole, as published, and an item counts as supported only by what stands in a file."""

import json
import re

import pytest
import yaml

from medvision.config import CardConfig
from medvision.documents.checklists import CHECKLISTS, answer_checklists
from medvision.documents.pages import TEMPLATES

FOLDER = TEMPLATES / "checklists"
# CLAIM 2024: Tejani et al. TRIPOD+AI: Collins et al. STARD-AI: Sounderajah et al. GMLP: FDA, Health Canada, MHRA.
N_ITEMS = {"claim": (44, 44), "tripod_ai": (52, 27), "stard_ai": (48, 40), "gmlp": (10, 10)}


def read(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def items(name):
    return [item for section in read(name)["sections"] for item in section["items"]]


def answers(files):
    """Return every answer by checklist and number."""
    return {(each.name, answer.id): answer for each in answer_checklists(files) for answer in each.answers}


@pytest.mark.parametrize("name", CHECKLISTS)
def test_the_numbers_are_those_of_the_publication(name):
    """No item is missing: the numbers run from 1 to the last, with the letters of their parts, each once."""
    found = [item["id"] for item in items(name)]
    n_rows, n_items = N_ITEMS[name]
    assert len(found) == len(set(found)) == n_rows
    numbers = [int(re.fullmatch(r"(\d+)([a-z]?)", each)[1]) for each in found]
    assert sorted(set(numbers)) == list(range(1, n_items + 1))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_every_list_names_its_publication(name):
    """The source of each list can be looked up."""
    assert re.search(r"doi:10\.|https://www\.fda\.gov", read(name)["source"])


@pytest.mark.parametrize("name", CHECKLISTS)
def test_every_item_says_how_it_is_answered(name):
    """Each item names facts, or what a person must write; every fact that is named is described, and none is idle."""
    facts = read("facts")
    assert all(item.get("facts") or item.get("write") for item in items(name))
    assert {fact for item in items(name) for fact in item.get("facts", ())} <= set(facts)


def test_no_fact_is_idle():
    """Each fact supports an item."""
    named = {fact for name in CHECKLISTS for item in items(name) for fact in item.get("facts", ())}
    assert named == set(read("facts"))


def test_what_only_people_can_say_is_a_setting():
    """A fact that a person must state is a setting of the card."""
    stated = {name: fact for name, fact in read("facts").items() if fact.get("person")}
    assert set(stated) == {fact["get"].removeprefix("set card.") for fact in stated.values()}
    assert set(stated) <= set(CardConfig.model_fields)


def test_an_empty_archive_supports_nothing():
    """Without a file each item is missing, or a person's to write."""
    assert {answer.state for answer in answers({}).values()} == {"missing", "yours"}


def test_a_file_without_the_field_is_no_support():
    """The file alone is not enough where something must stand in it."""
    empty = {"reports/evaluation_metrics.json": b"{}", "reports/evaluation_details.json": b'{"robustness": null}'}
    assert answers(empty)["claim", "29"].state == "missing"
    assert answers(empty)["claim", "30"].state == "missing"
    full = {"reports/evaluation_metrics.json": json.dumps({"plan": {"replicates": 2000}}).encode()}
    answer = answers(full)["claim", "29"]
    assert answer.state == "supported"
    assert answer.where[0].file == "reports/evaluation_metrics.json"


def test_zero_is_something_and_nothing_is_not():
    """A count of 0 is a finding; an empty text, list or record is none."""
    metrics = {"overall": {"accuracy": {"value": 0.0}}, "confusion": []}
    details = {"looks": 0, "operating_points": [], "abstention": {}}
    files = {
        "reports/evaluation_metrics.json": json.dumps(metrics).encode(),
        "reports/evaluation_details.json": json.dumps(details).encode(),
    }
    found = answers(files)
    assert found["claim", "32"].state == "supported"
    assert found["stard_ai", "30"].state == "missing"
    assert found["stard_ai", "19"].state == "missing"


def test_a_missing_statement_is_a_persons_to_make():
    """Where only a person can fill the gap the item is theirs to write, with the setting; once stated it is there."""
    answer = answers({})["claim", "44"]
    assert (answer.state, answer.missing[0].get) == ("yours", "set card.funding")
    card = {"model_card.json": json.dumps({"statements": {"funding": "None."}}).encode()}
    assert answers(card)["claim", "44"].state == "supported"


def test_what_a_person_must_write_is_never_supported_by_files():
    """An item that asks for more than records hold stays a person's, whatever files there are."""
    facts = read("facts").values()
    files = {fact["file"] + ("x" if fact["file"].endswith("/") else ""): b"{}" for fact in facts}
    found = answers(files)
    written = [(name, item["id"]) for name in CHECKLISTS for item in items(name) if "write" in item]
    assert {found[each].state for each in written} == {"yours"}


def test_no_word_claims_more_than_support():
    """No list says that anything fulfils a rule of law or of a standard."""
    for path in [*FOLDER.glob("*.yaml"), *TEMPLATES.glob("*.html")]:
        assert not re.search(r"complian|certified", path.read_text(), re.IGNORECASE)
