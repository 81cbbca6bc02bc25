"""Damage to each file of a run, and checkpoints with hostile headers: detected or harmless?

    python benchmarks/faults/corruption.py                      220 changes of each file
    python benchmarks/faults/corruption.py --changes 40

A small run is trained in a temporary directory. Each file of it is damaged, half of the times by a
flipped bit, else by bytes that are cut out or off. Then everything that reads the file reads it:

    error     one sentence, a `ValueError`
    warning   a warning names the damage, and an older file is read
    same      no message, and everything that is read is unchanged
    wrong     no message, and something else is read
    raised    an error from inside

Nothing may be `wrong` or `raised`. The last rows are checkpoints with a valid digest whose header
or metadata is malformed; a good checkpoint lies beside them and has to be taken.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rljax
from rljax.experiment import checkpoint, checkpoint_file, json_lines, provenance
from rljax.experiment.make_plan import plan_from_record
from rljax.types import is_key

OUTCOMES = ("error", "warning", "same", "wrong", "raised")


def plain(tree: Any) -> Any:
    """Returns a value that is equal for equal trees of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]
    return str(structure), [(str(x.dtype), x.shape, x.tobytes()) for x in arrays]


def states(run_dir: Path) -> Any:
    plan, tree = rljax.load_states(run_dir)
    return plan.record(), plain(tree)


def result(run_dir: Path) -> Any:
    loaded = rljax.load_result(run_dir)
    arrays = {"steps": loaded.steps, **loaded.metrics, **(loaded.evaluation or {})}
    rest = (loaded.config, loaded.sweep, loaded.seconds, loaded.compile_seconds, loaded.diverged)
    return rest, {name: plain(x) for name, x in arrays.items()}


def metrics(run_dir: Path) -> Any:
    rows = json_lines.read_json_lines(run_dir / "metrics.jsonl")
    return [(step, {name: plain(x) for name, x in row.items()}) for step, row in rows]


def earlier(run_dir: Path) -> Any:
    return provenance.recorded_options(run_dir, ()), provenance.read_entries(run_dir)


def unread(run_dir: Path) -> Any:
    return ""  # no command reads the file


READERS: dict[str, Callable[[Path], Any]] = {
    "config.toml": states,
    "metrics.jsonl": metrics,
    "result.json": result,
    "curves.npz": result,
    "provenance.json": earlier,
    "checkpoint": states,
    "curve.png": unread,
    "README.txt": unread,
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Returns the bytes of a file with one flipped bit, or with some bytes missing."""
    position = rng.randrange(len(data))
    if rng.random() < 0.5:
        return (
            data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]
        )
    length = rng.choice((1, 1, 7, len(data)))  # a byte, a few, or all to the end
    return data[:position] + data[position + length :]


def outcome(read: Callable[[Path], Any], run_dir: Path, expected: Any) -> tuple[str, str]:
    """Returns what happens if a directory is read, and a text about it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = read(run_dir)
        except ValueError as error:
            return "error" if "\n" not in str(error) else "raised", str(error)
        except Exception as error:
            return "raised", repr(error)
    if any(issubclass(warning.category, UserWarning) for warning in said):
        return "warning", str(said[0].message)
    return ("same" if found == expected else "wrong"), ""


def with_header(header: Any, data: bytes, length: int | None = None) -> bytes:
    """Returns a checkpoint with any header, and a valid digest."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = (len(content) if length is None else length).to_bytes(8, "little") + content + data
    return checkpoint_file.MAGIC + hashlib.sha256(body).digest() + body


def hostile(good: bytes) -> list[bytes]:
    """Returns checkpoints made from a good one, with malformed headers and metadata."""
    start = len(checkpoint_file.MAGIC) + 32
    length = int.from_bytes(good[start : start + 8], "little")
    header, data = json.loads(good[start + 8 : start + 8 + length]), good[start + 8 + length :]
    leaf, meta = header["leaves"][0], header["meta"]
    headers: list[Any] = [
        b"", b"{", b"\xff\xfe", b"null", b"3", b'"text"', b"[]", b"[" * 100_000,
        b'{"format":' * 100_000, b"9" * 10_000, {}, *({**header, "format": x} for x in
        (None, "1", 1.0, True, 0, -1, [])), {**header, "more": 1}, {**header, "leaves": None},
        {**header, "leaves": 7}, {**header, "leaves": [1, 2]}, {**header, "leaves": []},
        *({name: x for name, x in header.items() if name != missing} for missing in header),
        *({**header, "meta": x} for x in (None, [], 1, {})),
        *({**header, "meta": {**meta, "rows": x}} for x in (None, 1, [1], [["a", {}]])),
        *({**header, "meta": {**meta, "num_updates": x}} for x in (None, -1, "1", 1e9, 10**9)),
        {**header, "meta": {**meta, "config": None}},
    ]  # fmt: skip
    changes = (
        {"shape": ["4"]}, {"shape": [-1]}, {"shape": [2**63]}, {"shape": [0, 10**30]},
        {"shape": None}, {"dtype": "object"}, {"dtype": "O"}, {"dtype": "nonsense"},
        {"dtype": "f4,f4"}, {"dtype": 4}, {"kind": 1}, {"path": None}, {"weak": "x"}, {"extra": 1},
    )  # fmt: skip
    headers += [{**header, "leaves": [leaf | x, *header["leaves"][1:]]} for x in changes]
    files = [with_header(x, data) for x in headers]
    return files + [with_header(header, data, length) for length in (2**63, 2**64 - 1, 0, 1)]


def train(run_dir: Path) -> None:
    rljax.train(
        "ppo", "CartPole-v1", num_envs=2, num_steps=8, total_timesteps=320, num_seeds=2,
        hidden_sizes=(4,), num_minibatches=1, update_epochs=1, num_reports=10, eval_episodes=3,
        save_seconds=0.0, run_dir=run_dir, progress=False,
    )  # fmt: skip


def row(name: str, size: int, outcomes: Counter) -> bool:
    """Prints a row of the table; returns whether all damage was detected or harmless."""
    print(f"{name:<18}{size:>9}" + "".join(f"{outcomes[x]:>9}" for x in OUTCOMES), flush=True)
    return not outcomes["wrong"] and not outcomes["raised"]


def main() -> int:
    """Prints a row for each file; returns 1 if damage was not detected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--changes", type=int, default=220, help="changes of each file")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the changes")
    options = parser.parse_args()
    rng, parent = random.Random(options.seed), Path(tempfile.mkdtemp())
    run_dir = parent / "run"
    train(run_dir)
    plan_from_record(rljax.config.load(run_dir / "config.toml"))
    files = sorted(path for path in run_dir.iterdir() if path.is_file())
    newest, _ = checkpoint.checkpoints(run_dir / "checkpoint")
    print(f"{'file':<18}{'bytes':>9}" + "".join(f"{x:>9}" for x in OUTCOMES))
    all_right = True
    for path in (*files, newest):
        name = "checkpoint" if path == newest else path.name
        read, data, outcomes = READERS[name], path.read_bytes(), Counter()
        expected = read(run_dir)
        for _ in range(options.changes):
            path.write_bytes(damaged(data, rng))
            kind, text = outcome(read, run_dir, expected)
            outcomes[kind] += 1
            if kind in ("wrong", "raised"):
                print(f"  {name}: {kind} {text[:300]}")
        path.write_bytes(data)
        all_right &= row(name, len(data), outcomes)
    good, outcomes = newest.read_bytes(), Counter()
    newest.unlink()
    before = states(run_dir)  # of the older checkpoint
    contents = hostile(good)
    for i, content in enumerate(contents):
        newest.write_bytes(content)
        kind, text = outcome(states, run_dir, before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "warning" and states(run_dir) != before:
                kind = "wrong"
        outcomes[kind] += 1
        if kind != "warning":
            print(f"  hostile header {i}: {kind} {text[:300]}")
    all_right &= row("hostile headers", len(contents), outcomes) and not outcomes["error"]
    shutil.rmtree(parent)
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
