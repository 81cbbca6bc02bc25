"""Checkpoints: bit-exact, deterministic and atomic; damage is detected."""

import hashlib
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.random import define_prng_impl

from rljax.experiment import checkpoint, checkpoint_file

META = {
    "config": {"learning_rate": 1e-3, "hidden_sizes": [64, 64], "double": True, "num_envs": 8},
    "floats": [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.nan],
}


class State(NamedTuple):
    params: Any
    keys: Any
    moments: Any = ()


def bits(tree):
    """Returns types, shapes and bytes of all leaves, which are equal for identical trees."""

    def leaf_bits(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return "key", jax.random.key_impl(x), *leaf_bits(jax.random.key_data(x))
        kind = ("jax", x.weak_type) if isinstance(x, jax.Array) else type(x)
        return kind, np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()

    leaves, structure = jax.tree_util.tree_flatten(tree)
    return structure, [leaf_bits(x) for x in leaves]


def small_tree():
    return State({"w": jnp.arange(6.0).reshape(2, 3)}, jax.random.split(jax.random.key(1), 2))


def restore(directory, like):
    restored = checkpoint.restore(directory, like)
    assert restored is not None
    return restored


def every_kind():
    """Returns a tree with one leaf of each kind that can be saved."""
    key = jax.random.key(0)
    nan_with_payload = np.array([0x7FA00001, 0xFFC12345, 0x80000000, 1], np.uint32)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
    names = ["bool", "int4", "uint8", "int32", "float16", "bfloat16", "float8_e4m3fn", "complex64"]
    return {
        "state": State(params, jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(4))),
        "adam": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params),
        "keys": (key, jax.random.split(jax.random.key(5, impl="rbg"), (2, 3))),
        "dtypes": {name: jnp.asarray([0, 1, 1], jnp.dtype(name)) for name in names},
        "nan": nan_with_payload.view(np.float32),
        "nan on device": jnp.asarray(nan_with_payload.view(np.float32)),
        "empty": (jnp.zeros((0, 3)), np.zeros((2, 0), np.int16), jnp.zeros(0, jnp.bfloat16)),
        "scalars": [jnp.float32(3), np.array(2.5), np.float64(0.1), np.bool_(True)],
        "python": [True, -(2**63), 0.1, -0.0, math.nan, 1 + 2j],
        "weak": [jnp.asarray(1.5), jnp.full((2, 2), 3), jnp.full((0,), 1.0)],
        "numpy": np.arange(24, dtype=np.int64).reshape(4, 6)[::2, ::-1].T,
        "no leaves": (None, (), {}),
    }


def test_round_trip_of_every_kind_of_leaf_is_bitwise(tmp_path):
    tree = every_kind()
    path = checkpoint.save(tmp_path, tree, META, step=3)
    loaded, meta = checkpoint.load(path, tree)
    assert path.name == "checkpoint-000000000003.rljax"
    assert bits(loaded) == bits(tree)
    assert json.dumps(meta) == json.dumps(META, sort_keys=True)
    traces = []
    program = jax.jit(lambda tree: traces.append(tree))
    for same in (tree, loaded):
        program((same["state"], same["adam"], same["weak"]))
    assert len(traces) == 1  # a restored run is not compiled again


def test_loading_needs_only_shapes_and_returns_jax_arrays(tmp_path):
    tree = {"adam": every_kind()["adam"], "state": small_tree()}
    path = checkpoint.save(tmp_path, {**tree, "adam": jax.device_get(tree["adam"])}, {}, step=0)
    assert bits(checkpoint.load(path, jax.eval_shape(lambda: tree))[0]) == bits(tree)


def test_the_bytes_are_deterministic(tmp_path):
    first = checkpoint.save(tmp_path, every_kind(), META, step=1)
    second = checkpoint.save(tmp_path, every_kind(), dict(reversed(META.items())), step=2)
    assert first.read_bytes() == second.read_bytes()


def test_flipped_missing_and_added_bits_are_detected(tmp_path):
    path = checkpoint.save(tmp_path, small_tree(), META, step=7)
    content = path.read_bytes()
    lengths = [0, 8, 40, len(content) - 1, *random.Random(0).sample(range(len(content)), 20)]
    damaged = [content + b"\0", content * 2, content[1:], *(content[:n] for n in lengths)]
    for bit in random.Random(1).sample(range(8 * len(content)), 200):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(checkpoint.DamagedCheckpoint, match=str(path)):
            checkpoint.load(path, small_tree())
        with pytest.raises(checkpoint.DamagedCheckpoint, match=str(path)):
            checkpoint.read_meta(path)


def test_a_wrong_length_or_format_in_the_header_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_file, "_bytes", lambda x: b"\0")
    with pytest.raises(checkpoint.DamagedCheckpoint, match="not as long"):
        checkpoint.load(checkpoint.save(tmp_path, small_tree(), {}, step=8), small_tree())
    monkeypatch.setattr(checkpoint_file, "FORMAT", 2)
    path = checkpoint.save(tmp_path, {}, {}, step=0)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2") as error:
        checkpoint.load(path, {})
    assert not isinstance(error.value, checkpoint.DamagedCheckpoint)


W = r"\['w'\]` float32\[2, 3\], where.*"
KEYS = r"\.keys` uint32\[2, 2\] \(key threefry2x32\), where.*"
RBG = jax.random.split(jax.random.key(1, impl="rbg"), 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"params": {"w": jnp.zeros((3, 2))}}, W + r"\['w'\]` float32\[3, 2\]"),
        ({"params": {"w": jnp.zeros((2, 3), jnp.int32)}}, W + r"\['w'\]` int32\[2, 3\]"),
        ({"params": {"w": 1.0}}, W + r"\['w'\]` float64\[\] \(scalar\)"),
        ({"params": {"v": jnp.zeros((2, 3))}}, W + r"\['v'\]` float32\[2, 3\]"),
        ({"moments": jnp.zeros(1)}, r"holds no more leaves.*\.moments` float32\[1\]"),
        ({"keys": ()}, KEYS + "has no more"),
        ({"keys": RBG}, KEYS + r"uint32\[2, 4\] \(key rbg\)"),
        ({"keys": jax.random.split(jax.random.key(1), 3)}, KEYS + r"uint32\[3, 2\] \(key threefry"),
        ({"keys": jnp.zeros((2, 2), jnp.uint32)}, KEYS + r"uint32\[2, 2\]:"),
    ],
)
def test_a_different_leaf_is_named(tmp_path, part, message):
    path = checkpoint.save(tmp_path, small_tree(), META, step=7)
    with pytest.raises(ValueError, match=message) as error:
        checkpoint.load(path, small_tree()._replace(**part))
    assert not isinstance(error.value, checkpoint.DamagedCheckpoint)


def test_leaves_are_not_cast_on_the_way_to_the_device(tmp_path):
    tree = {"weak": jnp.asarray(0.5), "x": np.full(2, 0.1)}
    like = {**tree, "x": jax.ShapeDtypeStruct((2,), np.float64)}
    path = checkpoint.save(tmp_path, tree, {}, step=0)
    with pytest.raises(ValueError, match=r"\['x'\]` float64\[2\].*jax_enable_x64"):
        checkpoint.load(path, like)
    with jax.enable_x64(True):  # Python numbers become float64
        loaded, _ = checkpoint.load(path, like)
        assert bits(loaded["x"]) == bits(jnp.asarray(tree["x"]))
        assert loaded["weak"].dtype == np.float32


NO_FUNCTIONS: Any = dict.fromkeys(("seed", "split", "random_bits", "fold_in"))
UNNAMED = define_prng_impl(key_shape=(2,), name="unnamed", tag="un", **NO_FUNCTIONS)
UNNAMED_KEY = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32), impl=UNNAMED)


@pytest.mark.parametrize(
    "leaf", ["a", object(), 2**70, np.array("a"), np.array([None]), np.longdouble(1), UNNAMED_KEY]
)
def test_a_leaf_that_cannot_be_saved_is_refused(tmp_path, leaf):
    with pytest.raises(ValueError, match=r"leaf `\['bad'\]` is .*put it into `meta`"):
        checkpoint.save(tmp_path, {"bad": leaf}, {}, step=0)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`meta` is not JSON"):
        checkpoint.save(tmp_path, {}, {"x": np.float32(1)}, step=0)
    with pytest.raises(ValueError, match="`keep` is 0"):
        checkpoint.save(tmp_path, {}, {}, step=0, keep=0)
    with pytest.raises(ValueError, match="`step` is -1"):
        checkpoint.save(tmp_path, {}, {}, step=-1)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "absent.rljax", {})


def test_the_newest_two_are_kept_and_stale_temporaries_deleted(tmp_path):
    (stale := tmp_path / "checkpoint-000000000001.rljax.tmp").write_bytes(b"half")
    (other := tmp_path / "other.txt").write_text("mine")
    for step, left in [(2, [2]), (5, [5, 2]), (6, [6, 5]), (10**12, [10**12, 6])]:
        checkpoint.save(tmp_path, small_tree(), {"step": step}, step)
        found = checkpoint.checkpoints(tmp_path)
        assert [checkpoint.read_meta(path)["step"] for path in found] == left
    # 3 is not the newest, but the file that was just written is never deleted
    path = checkpoint.save(tmp_path, small_tree(), {}, 3, keep=1)
    assert checkpoint.checkpoints(tmp_path)[1:] == [path]
    assert not stale.exists() and other.exists()


def test_restore_reads_the_newest_and_returns_none_if_there_is_none(tmp_path):
    assert checkpoint.restore(tmp_path / "absent", small_tree()) is None
    assert checkpoint.restore(tmp_path, small_tree()) is None
    path = [checkpoint.save(tmp_path, small_tree(), {"step": step}, step) for step in (9, 10)][1]
    tree, *rest = restore(tmp_path, small_tree())
    assert bits(tree) == bits(small_tree()) and rest == [{"step": 10}, path]


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path):
    first, second = (checkpoint.save(tmp_path, {}, {"step": step}, step) for step in (1, 2))
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"{second} does not match its SHA-256"):
        assert restore(tmp_path, {}) == ({}, {"step": 1}, first)
    first.unlink()
    first.mkdir()
    with (
        pytest.warns(UserWarning, match="skipping damaged checkpoint") as warned,
        pytest.raises(ValueError, match=f"every checkpoint in {tmp_path} is damaged"),
    ):
        checkpoint.restore(tmp_path, {})
    messages = [str(warning.message) for warning in warned]
    assert f"{second} does not match" in messages[0] and f"{first} cannot be read" in messages[1]


def test_a_different_config_is_reported_key_by_key(tmp_path):
    saved = json.loads(json.dumps({**META["config"], "x": math.nan}))
    same = {**META["config"], "hidden_sizes": (64, 64), "num_envs": 8.0, "x": math.nan}
    checkpoint.check_config("file", saved, same)
    other = {"learning_rate": 3e-4, "hidden_sizes": (64, 32), "double": True, "tau": None}
    with pytest.raises(ValueError) as error:
        checkpoint.check_config("file", saved, other)
    assert str(error.value).startswith(
        "the run was saved with hidden_sizes = [64, 64] (now [64, 32]); learning_rate = 0.001 "
        "(now 0.0003); num_envs = 8 (now none); no tau (now None); x = nan (now none): use the "
        "saved values in file"
    )
    with pytest.raises(ValueError, match=r"saved with no x \(now 1\)"):
        checkpoint.check_config("file", {}, {"x": 1})


def test_an_option_of_a_newer_version_takes_its_default_and_says_so():
    defaults = {"gamma": 0.9, "sizes": (3, 4)}
    with pytest.warns(UserWarning, match=r"without the option `sizes`.*default \[3, 4\] is used"):
        checkpoint.check_config("file", {"gamma": 0.5}, {"gamma": 0.5, "sizes": (3, 4)}, defaults)
    for saved, now in (
        ({"gamma": 0.5}, {}),
        ({}, {"gamma": 0.5}),
        ({"gamma": 0.5}, {"gamma": 0.9}),
    ):
        with pytest.raises(ValueError, match="the run was saved with"):
            checkpoint.check_config("file", saved, now, defaults)


def test_the_metadata_is_parsed_before_the_leaves_are_compared(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, small_tree(), {"step": step}, step)

    def parse(path, meta):
        if meta["step"] == 2:
            raise checkpoint.DamagedCheckpoint(f"{path} is malformed")
        return meta["step"]

    with pytest.warns(UserWarning, match="skipping damaged .*2.rljax is malformed"):
        assert checkpoint.restore(tmp_path, small_tree(), parse)[1] == 1

    def refuse(path, meta):
        raise ValueError("another run")

    with pytest.raises(ValueError, match="another run"):  # not the error of the leaves
        checkpoint.restore(tmp_path, {"another": 1}, refuse)


def with_header(path, header, data=b""):
    """Writes a checkpoint with any header and a valid digest."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = len(text).to_bytes(8, "little") + text + data
    path.write_bytes(checkpoint_file.MAGIC + hashlib.sha256(body).digest() + body)


LEAF = {"path": "x", "kind": "array", "dtype": "float32", "shape": [2], "weak": False}
HEADER = {"format": 1, "meta": {}, "leaves": [LEAF]}
MALFORMED_LEAVES = [
    {"path": 1}, {"kind": None}, {"dtype": "object"}, {"dtype": "O"}, {"dtype": "float33"},
    {"dtype": "float128"}, {"dtype": "V8"}, {"dtype": "f4,f4"}, {"dtype": "int"}, {"dtype": []},
    {"shape": ["2"]}, {"shape": "2"}, {"shape": [2.0]}, {"shape": [-1]}, {"shape": [True]},
    {"shape": [2**63, 0]}, {"shape": [10**30]}, {"shape": None}, {"shape": 2}, {"weak": 0},
    {"extra": 1},
]  # fmt: skip
MALFORMED = [
    b"", b"{", b"\xff", b"null", b"[]", b"1", b'"x"', b"[" * 100_000, b'{"a":' * 100_000,
    b"9" * 5000, {}, HEADER | {"format": None}, HEADER | {"format": "1"}, HEADER | {"format": True},
    HEADER | {"format": 0}, HEADER | {"format": 1.0}, {"meta": {}, "leaves": []},
    {"format": 1, "leaves": []}, {"format": 1, "meta": {}}, HEADER | {"more": 1},
    HEADER | {"meta": None}, HEADER | {"meta": []}, HEADER | {"leaves": None},
    HEADER | {"leaves": 3}, HEADER | {"leaves": [3]}, HEADER | {"leaves": [None]},
    HEADER | {"leaves": [[]]}, HEADER | {"leaves": {"0": LEAF}}, HEADER | {"leaves": [LEAF] * 2},
    HEADER | {"leaves": []}, HEADER | {"leaves": [{"path": "x"}]},
    *(HEADER | {"leaves": [LEAF | change]} for change in MALFORMED_LEAVES),
]  # fmt: skip


def test_a_malformed_header_with_a_valid_digest_is_damage(tmp_path):
    like = np.zeros(2, np.float32)
    good = checkpoint.save(tmp_path, like, {}, step=1)
    bad = tmp_path / "checkpoint-000000000002.rljax"
    for header in MALFORMED:
        with_header(bad, header, bytes(8))
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.load(bad, like)
        with pytest.warns(UserWarning, match="skipping damaged checkpoint"):
            assert restore(tmp_path, like)[2] == good
    for length in (2**63, 2**64 - 1, 10**6):  # longer than the file
        body = length.to_bytes(8, "little") + b"{}"
        bad.write_bytes(checkpoint_file.MAGIC + hashlib.sha256(body).digest() + body)
        with pytest.raises(checkpoint.DamagedCheckpoint, match="not as long"):
            checkpoint.load(bad, like)
    with_header(bad, HEADER | {"leaves": [LEAF | {"path": ""}]}, bytes(8))  # the others differ
    assert restore(tmp_path, like)[2] == bad


@pytest.mark.parametrize(("function", "call"), [("replace", 0), ("fsync", 0), ("fsync", 1)])
@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_crash_leaves_the_older_checkpoints(tmp_path, monkeypatch, function, call, error):
    for step in (1, 2):
        checkpoint.save(tmp_path, {}, {"step": step}, step)
    original, calls, found = getattr(os, function), itertools.count(), []

    def fail(*args):
        if next(calls) == call:
            found.extend(checkpoint.checkpoints(tmp_path))  # as after a power failure
            raise error
        return original(*args)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        checkpoint.save(tmp_path, {}, {"step": 3}, 3)
    # the second `fsync` is that of the directory: the new file exists, no older one is deleted
    steps = [3, 2, 1] if call == 1 else [2, 1]
    assert [checkpoint.read_meta(path)["step"] for path in found] == steps
    assert restore(tmp_path, {})[1] == {"step": steps[0]} and not list(tmp_path.glob("*.tmp"))


PROGRAM = """
import itertools, sys
import numpy as np
from rljax.experiment import checkpoint
for step in itertools.count():
    checkpoint.save(sys.argv[1], np.full(200_000, step, np.float32), {"step": step}, step)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_process_killed_while_saving_leaves_a_directory_that_loads(tmp_path, delay):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            deadline = time.monotonic() + 60
            while not checkpoint.checkpoints(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(delay)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    like = np.zeros(200_000, np.float32)
    array, meta, path = restore(tmp_path, like)
    assert path == checkpoint.checkpoints(tmp_path)[0] and (array == meta["step"]).all()
    checkpoint.save(tmp_path, like, {}, step=10**9)
    assert not list(tmp_path.glob("*.tmp"))
