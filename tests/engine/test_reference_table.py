"""The table of reference log-probs: what is written is read, a killed run goes on, a stale table is refused."""

from __future__ import annotations

import pytest
import torch
from processes import finish_together

from mmalign.engine.reference_table import ReferenceTable
from mmalign.errors import CheckpointError, DataError, TrainingError

ROWS = [("a", [2, 3]), ("b", [1]), ("c", [4, 1, 2])]
MADE_WITH = {"model": "m1", "data": "d1", "processor": "p1"}


def open_table(directory, rows=ROWS, **changes) -> ReferenceTable:
    return ReferenceTable.open(directory / "table", rows=rows, made_with=MADE_WITH | changes)


def lengths_of(*names: str) -> torch.Tensor:
    lengths = [dict(ROWS)[name] for name in names]
    longest = max(map(len, lengths))
    return torch.tensor([row + [0] * (longest - len(row)) for row in lengths])


def logps_of(*names: str) -> torch.Tensor:
    """Cell [b, k, t] of row "b" is -(100 * number of the row + 10 * k + t), 0 where there is no token."""
    lengths = lengths_of(*names)
    cells = torch.zeros(*lengths.shape, int(lengths.max()))
    for b, name in enumerate(names):
        for k, length in enumerate(lengths[b].tolist()):
            for t in range(length):
                cells[b, k, t] = -(100 * "abc".index(name) + 10 * k + t)
    return cells


def write(table: ReferenceTable, *names: str) -> None:
    table.write(names, logps_of(*names), lengths_of(*names))


def test_rows_come_back_in_any_order_and_batch(tmp_path):
    table = open_table(tmp_path)
    write(table, "c", "a")
    write(table, "b")
    assert torch.equal(table.read(("b", "c"), lengths_of("b", "c")), logps_of("b", "c"))
    assert torch.equal(table.read(("a",), lengths_of("a")), logps_of("a"))


def test_what_stands_behind_a_response_is_not_stored(tmp_path):
    table = open_table(tmp_path)
    wider = torch.nn.functional.pad(logps_of("b"), (0, 2), value=float("nan"))
    table.write(("b",), wider, lengths_of("b"))
    assert torch.equal(table.read(("b",), lengths_of("b")), logps_of("b"))


def test_a_killed_run_goes_on_with_the_missing_rows(tmp_path):
    write(open_table(tmp_path), "b")
    again = open_table(tmp_path)
    assert again.missing() == [0, 2]
    write(again, "a", "c")
    assert open_table(tmp_path).missing() == []


def test_numbers_without_their_mark_do_not_count_as_done(tmp_path):
    table = open_table(tmp_path)
    table._write_at("logps.float32", [(0, b"\x00\x00\x80\xbf")])  # killed between numbers and mark
    assert open_table(tmp_path).missing() == [0, 1, 2]


def _write_share(directory, rank: int) -> None:
    table = open_table(directory)
    for number in ([0, 2], [1])[rank]:
        write(table, ROWS[number][0])


def test_two_processes_fill_one_table(tmp_path):
    finish_together(_write_share, [(tmp_path, rank) for rank in range(2)], tmp_path)
    table = open_table(tmp_path)
    assert table.missing() == []
    assert torch.equal(table.read(("a", "b", "c"), lengths_of("a", "b", "c")), logps_of("a", "b", "c"))
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize("name", ["model", "data", "processor"])
def test_a_stale_table_is_refused_and_says_what_changed(tmp_path, name):
    open_table(tmp_path)
    with pytest.raises(CheckpointError, match=rf"is stale: what changed is {name} \(then .1, now new\); remove"):
        open_table(tmp_path, **{name: "new"})


def test_other_rows_are_refused(tmp_path):
    open_table(tmp_path)
    with pytest.raises(CheckpointError, match=r"what changed is rows \(then 3, now 2"):
        open_table(tmp_path, rows=ROWS[:2])


def test_a_directory_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "table").mkdir()
    with pytest.raises(CheckpointError, match="is no reference table"):
        open_table(tmp_path)


def test_a_row_that_is_not_done_unknown_or_of_other_lengths_is_refused(tmp_path):
    table = open_table(tmp_path)
    with pytest.raises(CheckpointError, match="has no log-probs of row 'a' yet"):
        table.read(("a",), lengths_of("a"))
    with pytest.raises(CheckpointError, match="has no row 'z'"):
        table.read(("z",), lengths_of("a"))
    with pytest.raises(CheckpointError, match=r"responses of \[2, 4\] tokens, .* made for \[2, 3\]"):
        table.read(("a",), torch.tensor([[2, 4]]))


def test_a_log_prob_that_is_not_finite_is_refused(tmp_path):
    table = open_table(tmp_path)
    with pytest.raises(TrainingError, match="row 'b' a log-prob that is not finite"):
        table.write(("b",), torch.tensor([[[float("nan")]]]), torch.tensor([[1]]))
    assert table.missing() == [0, 1, 2]


def test_two_rows_with_one_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="two rows have the id 'a'"):
        open_table(tmp_path, rows=[("a", [1]), ("a", [2])])


def test_a_full_disk_keeps_the_rows_done_so_far(tmp_path, monkeypatch):
    table = open_table(tmp_path)
    write(table, "b")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(CheckpointError, match="No space left on device; the rows done so far are kept"):
        write(table, "a")
    assert open_table(tmp_path).missing() == [0, 2]


def test_a_table_without_rows_is_complete(tmp_path):
    assert open_table(tmp_path, rows=[]).missing() == []
