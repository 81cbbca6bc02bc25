"""Checkpoints: one pytree and its meta in one file, without pickle.

File: magic, SHA-256 of all that follows, header length (8 bytes), JSON header, the bytes of the
leaves; little-endian. The same tree and meta give the same bits, nothing in a file is executed,
and damage is found before a value is used. One process writes to a directory, any may read.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PyTree

MAGIC = b"\x89RLJAX\r\n"  # not ASCII and with a line end: a transfer as text is seen at once
FORMAT = 1
SCALARS = (bool, int, float, complex)  # exactly these: NumPy's float64 is a float as well


class DamagedCheckpoint(ValueError):
    """The file is not what was written: bits flipped, bytes missing, added or unreadable."""


class Leaf(NamedTuple):
    """What the header tells of one leaf; of a random key, it is the key's data."""

    path: str  # as `jax.tree_util.keystr` writes it
    kind: str  # "array", "scalar" (of Python), or "key <implementation>"
    dtype: str
    shape: tuple[int, ...]
    weak: bool = False  # of JAX's weak type: it decides what bfloat16 times this leaf is

    def __str__(self):
        kind = "" if self.kind == "array" else f" ({self.kind})"
        return f"`{self.path}` {self.dtype}{list(self.shape)}{kind}"

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def save(
    directory: str | Path, tree: PyTree, meta: Mapping[str, Any], step: int, keep: int = 2
) -> Path:
    """Writes `checkpoint-{step}.rljax`, then deletes all but the newest `keep` checkpoints.

    At every moment, also when the machine stops in the middle, the older checkpoints are whole.
    `tree` holds arrays, typed random keys and Python numbers; it is fetched to the host once.
    `meta` is JSON: floats come back exact, NaN and infinities too, tuples as lists.

    Raises:
      ValueError: `step` or `keep` out of range, a leaf that is not a number, or a meta not JSON.
    """
    if keep < 1:
        raise ValueError(f"`keep` is {keep}, but it must be at least 1.")
    if step < 0:
        raise ValueError(f"`step` is {step}, but it must be at least 0.")
    header, data = _encode(tree, meta)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"checkpoint-{step:012d}.rljax"
    temporary = Path(f"{path}.tmp")
    try:
        with open(temporary, "wb") as file:
            _write(file, header, data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # an interrupt, too, must not leave half a file on a full disk
        temporary.unlink(missing_ok=True)
        raise
    _sync(directory)  # the new name must be on the disk before an old one is deleted
    for old in checkpoints(directory)[keep:]:
        if old != path:  # one resumed below a damaged newer file is not the newest
            old.unlink(missing_ok=True)
    for stale in directory.glob("checkpoint-*.rljax.tmp"):
        stale.unlink(missing_ok=True)
    return path


def load(path: str | Path, like: PyTree) -> tuple[PyTree, Any]:
    """Reads `(tree, meta)`: the tree has the structure of `like`, bit for bit as it was saved.

    `like` holds arrays or `jax.ShapeDtypeStruct`, as `jax.eval_shape` makes them. Leaves are
    JAX arrays on the default device, or numpy's where they are numpy's in `like`.

    Raises:
      DamagedCheckpoint: the file is damaged.
      ValueError: there is no such file, or its leaves are not those of `like`.
    """
    return _load(path, like, None)


def read_meta(path: str | Path) -> Any:
    """The meta of a checkpoint; the whole file is verified. Raises as `load` does."""
    with _opened(path) as file:
        return _header(file, path)[0]


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a directory, highest step first; none where there is no directory."""
    directory, found = Path(directory), []
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := re.fullmatch(r"checkpoint-(\d{12,})\.rljax", path.name):
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]


def restore(
    directory: str | Path, like: PyTree, config: Mapping[str, Any] | None = None
) -> tuple[PyTree, Any, Path] | None:
    """The newest checkpoint that is whole, `(tree, meta, path)`, or None where there are none.

    Damaged ones are passed over with a warning. A `config` is compared with `meta["config"]`.

    Raises:
      ValueError: all are damaged, the configs differ, or the leaves are not those of `like`.
    """
    found = checkpoints(directory)
    for path in found:
        try:
            return *_load(path, like, config), path
        except DamagedCheckpoint as damage:
            warnings.warn(f"a checkpoint is passed over: {damage}", stacklevel=2)
    if found:
        raise ValueError(f"every checkpoint in {directory} is damaged: bring a good one there.")
    return None


def _load(path: str | Path, like: PyTree, config: Mapping[str, Any] | None) -> tuple[PyTree, Any]:
    with _opened(path) as file:
        meta, leaves = _header(file, path)
        if config is not None:  # before the leaves: it is often why these differ
            check_config(path, meta, config)
        entries, structure = jax.tree_util.tree_flatten_with_path(like)
        _check_leaves(path, leaves, [_leaf(place, x) for place, x in entries])
        values = [
            _value(_read(file, path, leaf), leaf, x)
            for leaf, (_, x) in zip(leaves, entries, strict=True)
        ]
    return jax.tree_util.tree_unflatten(structure, values), meta


def _leaf(place: Any, x: Any) -> Leaf:
    """Describes an array, a `jax.ShapeDtypeStruct`, a typed key or a Python number."""
    path = jax.tree_util.keystr(place)
    dtype = np.asarray(x).dtype if type(x) in SCALARS else getattr(x, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        implementation = jax.random.key_impl(jnp.empty((0,), dtype))  # `x` may be a mere shape
        if isinstance(implementation, str):  # otherwise it has no name to be found by
            shape = jax.eval_shape(jax.random.key_data, x).shape
            return Leaf(path, f"key {implementation}", "uint32", shape)
    # The bytes of a long double are another format on every machine, and its padding is random.
    is_number = dtype == np.bool_ or (dtype is not None and jnp.issubdtype(dtype, np.number))
    if not is_number or np.dtype(dtype).type in (np.longdouble, np.clongdouble):
        raise ValueError(
            f"leaf `{path}` is {type(x).__name__} of dtype {dtype}, but a checkpoint holds bools, "
            "numbers of a fixed size and JAX's own keys alone: put anything else into meta."
        )
    kind = "scalar" if type(x) in SCALARS else "array"
    weak = bool(getattr(x, "weak_type", False))
    return Leaf(path, kind, np.dtype(dtype).name, np.shape(x), weak)


def _encode(tree: PyTree, meta: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
    """The header, and the leaves on the host."""
    entries = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = [_leaf(place, x) for place, x in entries]
    data = [
        jax.random.key_data(x) if leaf.kind.startswith("key ") else x
        for leaf, (_, x) in zip(leaves, entries, strict=True)
    ]
    header = {"format": FORMAT, "leaves": [leaf._asdict() for leaf in leaves], "meta": dict(meta)}
    try:
        text = json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"meta is not JSON ({error}): convert it to Python's numbers, texts, lists and dicts."
        ) from None
    return text.encode(), jax.device_get(data)


def _write(file: io.BufferedWriter, header: bytes, data: list[Any]) -> None:
    """Streams the file, then writes the digest into the place that was left for it."""
    digest = hashlib.sha256()
    file.write(MAGIC + bytes(digest.digest_size))
    for piece in itertools.chain((len(header).to_bytes(8, "little"), header), map(_bytes, data)):
        digest.update(piece)
        file.write(piece)
    file.seek(len(MAGIC))
    file.write(digest.digest())


def _bytes(x: Any) -> memoryview:
    """The little-endian bytes of a leaf, copied only where they must be."""
    x = np.asarray(x)
    x = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
    return x.reshape(-1).view(np.uint8).data


def _sync(directory: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # Windows opens no directories
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[io.BufferedReader]:
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path}: give the path of one.") from None
    except OSError as error:  # a failing disk is damage: there may be a good file beside it
        raise DamagedCheckpoint(f"{path} cannot be read ({error}): use another.") from None


def _header(file: io.BufferedReader, path: str | Path) -> tuple[Any, list[Leaf]]:
    """Verifies the whole file, and leaves it open at the first leaf. Returns `(meta, leaves)`."""
    if file.read(len(MAGIC)) != MAGIC:
        raise DamagedCheckpoint(f"{path} does not begin as a checkpoint: use another.")
    expected = file.read(hashlib.sha256().digest_size)
    start = file.tell()
    if hashlib.file_digest(file, "sha256").digest() != expected:
        raise DamagedCheckpoint(f"{path} does not match its SHA-256 digest: use another.")
    size = file.tell()
    file.seek(start)
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has format {header['format']}: use the rljax that wrote it.")
    leaves = [Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in header["leaves"]]
    if file.tell() + sum(leaf.num_bytes for leaf in leaves) != size:
        raise DamagedCheckpoint(f"{path} is not as long as its header says: use another.")
    return header["meta"], leaves


def check_config(path: str | Path, meta: Any, config: Mapping[str, Any]) -> None:
    """Compares as JSON, in which tuples are lists and NaN is equal to itself."""
    old, new = dict(meta.get("config", {})), json.loads(json.dumps(dict(config)))
    differences = []
    for key in sorted(old.keys() | new.keys()):
        was = f"{key} = {old[key]!r}" if key in old else f"no {key}"
        now = repr(new[key]) if key in new else "none"
        in_both = key in old and key in new
        if not in_both or (old[key] != new[key] and repr(old[key]) != now):
            differences.append(f"{was}, this run has {now}")
    if differences:
        raise ValueError(
            f"checkpoint was made with {'; with '.join(differences)}: go on with the values of "
            f"{path}, or start in another directory."
        )


def _check_leaves(path: str | Path, stored: list[Leaf], wanted: list[Leaf]) -> None:
    for old, new in itertools.zip_longest(stored, wanted):
        if old is None or new is None or old[:4] != new[:4]:  # all but the weak type
            raise ValueError(
                f"{path} holds {old or 'no more leaves'}, where this run has {new or 'no more'}: "
                "build the run as it was when it was saved, or start in another directory."
            )


def _read(file: io.BufferedReader, path: str | Path, leaf: Leaf) -> np.ndarray:
    dtype = np.dtype(leaf.dtype)  # equal to one of `like`, hence a number
    array = np.empty(leaf.shape, dtype.newbyteorder("<"))
    if file.readinto(array.reshape(-1).view(np.uint8).data) != leaf.num_bytes:
        raise DamagedCheckpoint(f"{path} was cut off while it was read: use another.")
    return array.astype(dtype, copy=False)


def _value(array: np.ndarray, leaf: Leaf, like: Any) -> Any:
    """The leaf as it is in `like`: a Python number, numpy's, a random key or a JAX array."""
    if leaf.kind == "scalar":
        return array.item()
    if isinstance(like, (np.ndarray, np.generic)):
        return array if isinstance(like, np.ndarray) else array[()]
    value = jax.device_put(array)
    if value.dtype != array.dtype:  # JAX narrows to 32 bits without a word
        raise ValueError(f"leaf {leaf} does not fit into JAX: set `jax_enable_x64`.")
    if leaf.kind != "array":
        return jax.random.wrap_key_data(value, impl=leaf.kind.removeprefix("key "))
    if leaf.weak:
        zeros = jnp.full(leaf.shape, array.dtype.type(0).item())  # weak: made of a Python number
        return zeros.at[...].set(value) if zeros.dtype == value.dtype else value
    return value
