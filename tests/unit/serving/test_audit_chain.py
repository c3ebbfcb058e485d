"""Whatever is done to the audit log is named, by the first row that is bad."""

import json
from dataclasses import replace

import pytest

from medvision.errors import LedgerBroken, MedvisionError
from medvision.serving import audit_log
from medvision.serving.audit_log import AuditLog
from tests.unit.serving.audit_cases import (
    check,
    entry,
    execute,
    fill,
    forge,
    heads_of,
    replace_rows,
    rows_of,
    url_of,
)

N = 12


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a log of 12 rows, with heads at 0, 5, 10 and 12."""
    monkeypatch.setattr(audit_log, "_ROWS_PER_MARK", 5)
    fill(tmp_path / "audit.db", N)
    return tmp_path / "audit.db"


def without_start_and_end(path):
    """Leave no head but the two marks: as after a kill, of a server that was started long ago."""
    heads_of(path).write_text("".join(line for line in heads_of(path).open() if '"mark"' in line))


def test_a_whole_log(path):
    """A log that nobody has touched is whole: rows, heads, and the hash of the last row."""
    checked = check(path)
    assert (checked.n_rows, checked.n_heads, checked.head) == (N, 4, rows_of(path)[-1].hash)
    assert check(path, expected=rows_of(path)[3].hash) == checked


def test_an_empty_log(tmp_path):
    """A log without a row is whole."""
    fill(tmp_path / "audit.db", 0)
    assert check(tmp_path / "audit.db").n_rows == 0


@pytest.mark.parametrize("number", [1, 6, N])
@pytest.mark.parametrize(
    "edit",
    [
        "entry = replace(entry, '0.125', '0.925')",
        "time = '2020-01-01T00:00:00.000+00:00'",
        "request_id = 'r99'",
        "previous = hash",
        "hash = previous",
        "entry = x'00ff'",
        "entry = ''",
    ],
)
def test_an_edit_is_named(path, number, edit):
    """An edited row is named, whichever of its columns it is."""
    execute(path, f"UPDATE medvision_audit SET {edit} WHERE sequence = {number}")
    with pytest.raises(LedgerBroken, match=f"Row {number} "):
        check(path)


@pytest.mark.parametrize("number", [1, 6, N])
def test_an_edit_with_its_own_hash_is_named(path, number):
    """A row that was edited together with its hash is named: by the row behind it, or by a head."""
    rows = rows_of(path)
    last = rows[number - 2] if number > 1 else None
    rows[number - 1] = forge(rows[number - 1], last, time="2020-01-01T00:00:00.000+00:00")
    replace_rows(path, rows)
    with pytest.raises(LedgerBroken, match=f"Row {number} "):
        check(path)


@pytest.mark.parametrize(("first", "named"), [(2, 5), (6, 10), (11, 12)])
def test_a_tail_that_is_written_anew_is_named(path, first, named):
    """Who writes all rows anew from one on meets the next head, which says from where on none is proven."""
    rows = rows_of(path)
    for number in range(first, N + 1):
        rows[number - 1] = forge(rows[number - 1], rows[number - 2], time="2020-01-01T00:00:00.000+00:00")
    replace_rows(path, rows)
    proven = max(head for head in (0, 5, 10) if head < first)
    with pytest.raises(LedgerBroken, match=f"Row {named} .* from row {proven + 1} on"):
        check(path)


@pytest.mark.parametrize("number", [1, 6, N])
def test_a_deletion_is_named(path, number):
    """A deleted row is named."""
    execute(path, f"DELETE FROM medvision_audit WHERE sequence = {number}")
    with pytest.raises(LedgerBroken, match=f"Row {number} .*is missing"):
        check(path)


@pytest.mark.parametrize("number", [1, 6])
def test_a_deletion_that_is_closed_up_is_named(path, number):
    """Where the rows behind a deleted one were moved up, the first of them is named."""
    rows = rows_of(path)
    del rows[number - 1]
    replace_rows(path, [replace(row, sequence=place) for place, row in enumerate(rows, 1)])
    with pytest.raises(LedgerBroken, match=f"Row {number} "):
        check(path)


def test_an_exchange_is_named(path):
    """Where two rows were exchanged the first of them is named."""
    execute(
        path,
        "UPDATE medvision_audit SET sequence = 100 WHERE sequence = 4",
        "UPDATE medvision_audit SET sequence = 4 WHERE sequence = 8",
        "UPDATE medvision_audit SET sequence = 8 WHERE sequence = 100",
    )
    with pytest.raises(LedgerBroken, match="Row 4 "):
        check(path)


@pytest.mark.parametrize("kept", [0, 1, 5, 9, 10, 11])
def test_a_truncation_is_named(path, kept):
    """Where the last rows were cut off the first missing one is named, though the rest is a whole chain."""
    execute(path, f"DELETE FROM medvision_audit WHERE sequence > {kept}")
    with pytest.raises(LedgerBroken, match=f"Row {kept + 1} .*is missing: 12 rows"):
        check(path)


def test_a_truncation_behind_the_last_head(path):
    """What was cut off behind the last head shows by the hash of a row that somebody has kept."""
    without_start_and_end(path)
    kept = check(path).head
    execute(path, "DELETE FROM medvision_audit WHERE sequence > 11")
    assert check(path).n_rows == 11
    with pytest.raises(LedgerBroken, match=f"Row 12 .*expected hash {kept}"):
        check(path, expected=kept)


@pytest.mark.parametrize("number", [-3, 0])
def test_an_insertion_before_the_first_is_named(path, number):
    """A row before the first is named."""
    rows = rows_of(path)
    replace_rows(path, [forge(rows[0], None, sequence=number), *rows])
    with pytest.raises(LedgerBroken, match=f"Row {number} .*inserted"):
        check(path)


def test_an_insertion_is_named(path):
    """Where a row that fits was inserted, and those behind it moved down, the first of these is named."""
    rows = rows_of(path)
    inserted = forge(rows[5], rows[5], sequence=7, request_id="forged")
    moved = [replace(row, sequence=row.sequence + 1) for row in rows[6:]]
    replace_rows(path, [*rows[:6], inserted, *moved])
    with pytest.raises(LedgerBroken, match="Row 8 "):
        check(path)


def test_an_insertion_between_servers_is_named(path):
    """A row that fits, but was added while no server was writing, is named: at once, and after the next start."""
    rows = rows_of(path)
    replace_rows(path, [*rows, forge(rows[-1], rows[-1], sequence=N + 1, request_id="forged")])
    with pytest.raises(LedgerBroken, match=f"Row {N + 1} .*no server was writing"):
        check(path)
    fill(path, 2, first=N + 2)
    with pytest.raises(LedgerBroken, match=f"Row {N + 1} .*no server was writing"):
        check(path)


def test_a_damaged_head_is_said(path):
    """A line of the heads that is none is named; what was cut off would not show."""
    heads = heads_of(path)
    lines = heads.read_text().splitlines(keepends=True)
    for line in ("{}\n", "\n", "no JSON\n", lines[1].replace('"sequence":5', '"sequence":"5"')):
        heads.write_text("".join([lines[0], line, *lines[2:]]))
        with pytest.raises(LedgerBroken, match="Line 2 "):
            check(path)


def test_an_edited_head_is_said(path):
    """A head that was edited is no longer that of its row, which is named."""
    lines = heads_of(path).read_text().splitlines(keepends=True)
    head = json.loads(lines[1])
    lines[1] = json.dumps({**head, "hash": "0" * 64}) + "\n"
    heads_of(path).write_text("".join(lines))
    with pytest.raises(LedgerBroken, match="Row 5 "):
        check(path)


def test_no_flipped_byte_of_a_row_passes(path):
    """Whichever byte of a row is changed in the file, the log is broken, and never with another error than ours."""
    content = path.read_bytes()
    start = content.index(rows_of(path)[4].entry.encode())
    for position in range(start, start + len(rows_of(path)[4].entry.encode()), 37):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(LedgerBroken, match="Row 5 "):
                check(path)


def test_no_damage_is_a_stack_trace(path):
    """Whichever byte of the file is lost, the check passes or ends with an error of ours."""
    content, broken = path.read_bytes(), 0
    for position in range(0, len(content), 331):
        damaged = bytearray(content)
        damaged[position : position + 64] = bytes(len(damaged[position : position + 64]))
        path.write_bytes(damaged)
        try:
            check(path)
        except MedvisionError:
            broken += 1
    assert broken


def test_checking_while_a_server_writes(path):
    """A log is checked while a server writes to it, and is whole at every moment."""
    log = AuditLog.open(url_of(path))
    done = [log.commit([entry(f"r{number}")]) for number in range(N + 1, 300)]
    counts = [check(path).n_rows for _ in range(20)]
    assert [each.result(10) for each in done] == [None] * len(done)
    log.close()
    assert counts == sorted(counts) and check(path).n_rows == 299
