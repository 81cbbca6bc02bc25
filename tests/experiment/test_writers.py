"""Writers: the bytes of JSON lines, for new and resumed runs; the user's own; missing packages."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rljax.experiment.json_lines import JsonLines, read_json_lines
from rljax.experiment.writers import (
    TensorBoard,
    WandB,
    check_writers,
    open_writers,
    writer_from_record,
    writer_record,
)
from rljax.results.result import Result


def floats(values):
    return np.array(values, np.float32)


ROWS = [
    (1024, {"losses/value": np.float32(0.1), "charts/episodic_return": floats([21.5, np.nan])}),
    (2048, {"losses/value": np.float32(1e-5), "charts/episodic_return": floats([30.0, 1 / 3])}),
    (3072, {"losses/value": np.float32(np.inf), "charts/episodic_return": floats([-0.0, 7])}),
]


def checked(*rows):
    """Returns the lines of rows `{...}` with the CRC-32 of all rows so far, bit by bit."""
    lines, crc = b"", 0xFFFFFFFF
    for row in rows:
        for byte in row[:-1]:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        lines += row[:-1] + f', "crc32": "{crc ^ 0xFFFFFFFF:08x}"}}\n'.encode()
    return lines


BYTES = checked(
    b'{"global_step": 1024, "charts/episodic_return": [21.5, null], "losses/value": 0.1}',
    b'{"global_step": 2048, "charts/episodic_return": [30.0, 0.33333334], "losses/value": 1e-05}',
    b'{"global_step": 3072, "charts/episodic_return": [-0.0, 7.0], "losses/value": 1e999}',
)


def write_all(target, rows):
    for step, metrics in rows:
        target.write(step, metrics)
    target.close()


def assert_same_rows(actual, expected):
    assert [step for step, _ in actual] == [step for step, _ in expected]
    for (_, row), (_, other) in zip(actual, expected, strict=True):
        assert row.keys() == other.keys()
        for name, values in other.items():
            assert row[name].dtype == np.float32 and row[name].shape == np.shape(values)
            np.testing.assert_array_equal(row[name], values)


def test_json_lines_bytes(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    write_all(JsonLines(path), ROWS)
    assert path.read_bytes() == BYTES
    assert_same_rows(read_json_lines(path), ROWS)
    assert [file.name for file in path.parent.iterdir()] == ["metrics.jsonl"]


def test_every_line_is_strict_json():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in BYTES.splitlines():
        json.loads(line, parse_constant=refuse)


def test_lines_are_flushed(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.write(*ROWS[0])
    assert_same_rows(read_json_lines(tmp_path / "metrics.jsonl"), ROWS[:1])
    lines.close()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_resumed_run_leaves_the_same_bytes(tmp_path, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(BYTES + b'{"global_step": 40')  # written after the last checkpoint
    write_all(JsonLines(path, ROWS[:kept]), ROWS[kept:])
    assert path.read_bytes() == BYTES


def test_rows_read_back_are_written_to_the_same_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    counts = {"eval/episodes": np.array([3, 4], np.int32), "eval/solved": np.array([True, False])}
    write_all(JsonLines(path), [*ROWS, (4096, counts)])
    before = path.read_bytes()
    assert b'"eval/episodes": [3, 4], "eval/solved": [true, false]' in before
    JsonLines(path, read_json_lines(path)).close()
    assert path.read_bytes() == before


def test_a_failed_rewrite_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(BYTES)
    with pytest.raises(ValueError):
        JsonLines(path, [(1, {"bad": np.zeros((2, 2))})])
    assert path.read_bytes() == BYTES


def test_float32_round_trips_to_the_bit(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 5000, dtype=np.uint32)
    bits[0] = 0x15AE43FD  # rounding its shortest decimal form twice gives another number
    bits[1:4] = 1, 0x7F7FFFFF, 0x00800000  # smallest, largest, smallest normal
    values = bits.view(np.float32)
    write_all(JsonLines(tmp_path / "metrics.jsonl"), [(0, {"x": values})])
    ((_, row),) = read_json_lines(tmp_path / "metrics.jsonl")
    same = (row["x"].view(np.uint32) == bits) | np.isnan(values)
    assert same.all()


def test_other_floats_are_written_as_float32(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = {"a": 1e300, "b": np.float16(0.5), "c": [0.1, float("nan")], "d": 3}
    write_all(JsonLines(path), [(np.int64(1), metrics)])
    expected = b'{"global_step": 1, "a": 1e999, "b": 0.5, "c": [0.1, null], "d": 3}'
    assert path.read_bytes() == checked(expected)


@pytest.mark.parametrize("torn", [0, 1, 20, 60, len(BYTES.splitlines()[2]) - 1])
def test_an_incomplete_last_line_is_skipped_with_a_warning(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(BYTES[: -1 - torn])
    with pytest.warns(UserWarning, match=f"the last line of {path} is incomplete"):
        assert_same_rows(read_json_lines(path), ROWS[:2])


def test_every_flipped_bit_and_every_lost_line_is_noticed_and_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = BYTES.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    for position in range(len(BYTES) - 1):
        damaged = bytearray(BYTES)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        number = np.searchsorted(starts, position, side="right")
        with pytest.raises(ValueError, match=f"line {number} of .*metrics.jsonl is damaged"):
            read_json_lines(path)
    for number, lost in ((1, BYTES[starts[1] :]), (2, lines[0] + lines[2])):
        path.write_bytes(lost)
        with pytest.raises(ValueError, match=f"line {number} of .*, or lines before it are miss"):
            read_json_lines(path)
    path.write_bytes(b'{"global_step": 1, "a": 2}\n')
    with pytest.raises(ValueError, match="line 1 of"):
        read_json_lines(path)
    with pytest.raises(ValueError, match="no file"):
        read_json_lines(tmp_path / "other")


def test_missing_last_rows_of_a_complete_run_are_noticed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(BYTES.splitlines(keepends=True)[:2]))
    assert_same_rows(read_json_lines(path), ROWS[:2])  # the run is not complete yet
    Result("ppo", "Maze", {"num_reports": 3}, {}, 1, 0, np.arange(3), {}).save(tmp_path)
    with pytest.raises(ValueError, match="has 2 rows, but the run has 3 reports"):
        read_json_lines(path)
    path.write_bytes(BYTES)
    assert_same_rows(read_json_lines(path), ROWS)


def test_a_full_disk_is_an_error_also_if_part_of_the_line_was_written(tmp_path, monkeypatch):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.close()
    file = SimpleNamespace(write=lambda line: len(line) - 1, name="metrics.jsonl")
    monkeypatch.setattr(lines, "_file", file)
    with pytest.raises(OSError, match="No space left"):
        lines.write(*ROWS[0])


def test_metrics_with_two_axes_are_refused_by_name(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"`losses/value` has shape \(2, 3\)"):
        lines.write(0, {"charts/SPS": 1.0, "losses/value": np.zeros((2, 3))})
    lines.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_writers_by_name(tmp_path):
    with open_writers(["jsonl"], tmp_path, ROWS[:2], None) as (writer,):
        writer.write(*ROWS[2])
    assert (tmp_path / "metrics.jsonl").read_bytes() == BYTES
    with pytest.raises(ValueError, match="no writer 'tensorbord': did you mean `tensorboard`"):
        check_writers(["tensorbord"])
    with pytest.raises(ValueError, match="use one of jsonl, tensorboard, wandb, trackio"):
        check_writers("?")
    assert check_writers("jsonl") == ("jsonl",)
    with open_writers(["jsonl"], None, [], None) as opened:
        assert opened == []  # there is no directory to write to


class Recorder:
    """A writer with both optional methods."""

    def __init__(self, fails=False):
        self.calls, self.fails = [], fails

    def open(self, *arguments):
        self.calls.append(("open", *arguments))
        if self.fails:
            raise OSError("no connection")

    def write(self, *row):
        self.calls.append(("write", *row))

    def close(self):
        self.calls.append("close")


def test_own_writers_need_only_write(tmp_path):
    rows = []
    minimal, full = SimpleNamespace(write=lambda *row: rows.append(row)), Recorder()
    assert check_writers(minimal) == (minimal,)
    given = check_writers(["jsonl", minimal, full])
    with open_writers(given, tmp_path, ROWS[:1], "the plan") as opened:
        assert isinstance(opened[0], JsonLines) and opened[1:] == [minimal, full]
        for writer in opened:
            writer.write(*ROWS[1])
    assert rows == [ROWS[1]]
    opening = ("open", tmp_path, ROWS[:1], "the plan")
    assert full.calls == [opening, ("write", *ROWS[1]), "close"]
    for wrong in (3, SimpleNamespace(close=print), JsonLines):
        with pytest.raises(ValueError, match="must be a name .* or an object with `write"):
            check_writers([wrong])


def test_writers_are_closed_after_an_error(tmp_path):
    first, second = Recorder(), Recorder(fails=True)
    with pytest.raises(OSError, match="no connection"), open_writers([first, second], None, [], 0):
        pytest.fail("the second writer could not be opened")
    assert first.calls[-1] == "close" == second.calls[-1]
    with pytest.raises(KeyError), open_writers([first], None, [], 0):
        raise KeyError
    assert first.calls[-1] == "close" and first.calls.count("close") == 2


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    with pytest.raises(ValueError, match=rf'pip install "rljax-research\[{name}\]"'):
        check_writers(name)


def test_a_writer_with_options_is_recorded_for_a_resumed_run():
    writer = WandB(project="p", tags=["a"], runs="each")
    assert writer_record(writer) == {"wandb": {"runs": "each", "project": "p", "tags": ["a"]}}
    made = writer_from_record(writer_record(writer))
    assert isinstance(made, WandB) and repr(made) == repr(writer)
    assert writer_record("wandb") == "wandb" == writer_from_record("wandb")
    assert writer_from_record(writer_record(TensorBoard())) == "tensorboard"
    own = Recorder(), WandB(settings=object())  # neither can be written into a file
    assert [writer_record(x) for x in own] == ["Recorder", "WandB"]
    assert [writer_from_record(x) for x in ("Recorder", "WandB", {"other": {}})] == [None] * 3
