"""The file format of checkpoints: a verified JSON header and the bytes of the leaves.

File: magic bytes, SHA-256 of the rest, header length (8 bytes), JSON header, the bytes of the
leaves; little-endian. Equal trees and metadata give equal bytes, and loading executes no code.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PyTree

MAGIC = b"\x89RLJAX\r\n"  # a non-ASCII byte and a line end reveal a transfer in text mode
FORMAT = 1
HEADER_KEYS = {"format", "leaves", "meta"}
NUMBERS = re.compile(r"bool|u?int[1-9]\d*|b?float[1-9]\w*|complex[1-9]\d*")  # names of dtypes
SCALARS = (bool, int, float, complex)  # compared by `type`: NumPy's float64 is a subclass of float


class DamagedCheckpoint(ValueError):
    """The file is damaged: bits were flipped, or bytes are missing, added or unreadable."""


class Leaf(NamedTuple):
    """The description of one leaf in the header; of a random key, that of its data.

    Attributes:
      path: path in the tree, as `jax.tree_util.keystr` writes it.
      kind: "array", "scalar" (a Python number), or "key <implementation>".
      dtype: name of the dtype.
      shape: shape.
      weak: whether it has JAX's weak type, which affects type promotion.
    """

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    weak: bool = False

    def __str__(self):
        kind = "" if self.kind == "array" else f" ({self.kind})"
        return f"`{self.path}` {self.dtype}{list(self.shape)}{kind}"

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _is_number(dtype: Any) -> bool:
    """Whether a checkpoint can hold numbers of this dtype."""
    # The format of long doubles depends on the machine, and their padding bytes are undefined.
    is_number = dtype == np.bool_ or jnp.issubdtype(dtype, np.number)
    return is_number and np.dtype(dtype).type not in (np.longdouble, np.clongdouble)


def _describe(key_path: Any, x: Any) -> Leaf:
    """Describes an array, a `jax.ShapeDtypeStruct`, a typed key or a Python number."""
    path = jax.tree_util.keystr(key_path)
    dtype = np.asarray(x).dtype if type(x) in SCALARS else getattr(x, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        implementation = jax.random.key_impl(jnp.empty((0,), dtype))  # `x` may be a shape only
        if isinstance(implementation, str):  # an unregistered implementation has no name
            shape = jax.eval_shape(jax.random.key_data, x).shape
            return Leaf(path, f"key {implementation}", "uint32", shape)
    if dtype is None or not _is_number(dtype):
        raise ValueError(
            f"leaf `{path}` is {type(x).__name__} of dtype {dtype}, but a checkpoint can only hold "
            "bools, numbers of fixed size and JAX's own random keys: put it into `meta`."
        )
    kind = "scalar" if type(x) in SCALARS else "array"
    weak = bool(getattr(x, "weak_type", False))
    return Leaf(path, kind, np.dtype(dtype).name, np.shape(x), weak)


def encode(tree: PyTree, meta: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
    """Returns the header, and the leaves on the host."""
    tree_leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = [_describe(key_path, x) for key_path, x in tree_leaves]
    data = [
        jax.random.key_data(x) if leaf.kind.startswith("key ") else x
        for leaf, (_, x) in zip(leaves, tree_leaves, strict=True)
    ]
    header = {"format": FORMAT, "leaves": [leaf._asdict() for leaf in leaves], "meta": dict(meta)}
    try:
        text = json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`meta` is not JSON ({error}): convert it to Python numbers, strings, lists and dicts."
        ) from None
    return text.encode(), jax.device_get(data)


def write(file: io.BufferedWriter, header: bytes, data: list[Any]) -> None:
    """Writes the file in one pass, then the digest into the space reserved for it."""
    digest = hashlib.sha256()
    file.write(MAGIC + bytes(digest.digest_size))
    for block in itertools.chain((len(header).to_bytes(8, "little"), header), map(_bytes, data)):
        digest.update(block)
        file.write(block)
    file.seek(len(MAGIC))
    file.write(digest.digest())


def _bytes(x: Any) -> memoryview:
    """Returns the little-endian bytes of a leaf, copied only if necessary."""
    x = np.asarray(x)
    x = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
    return x.reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Opens a checkpoint for reading.

    Raises:
      DamagedCheckpoint: the file cannot be read.
      ValueError: there is no such file.
    """
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path}: check the path.") from None
    except OSError as error:  # a disk error counts as damage: an older checkpoint may be readable
        raise DamagedCheckpoint(f"{path} cannot be read ({error}): use another file.") from None


def read_header(file: io.BufferedReader, path: str | Path) -> tuple[Any, list[Leaf]]:
    """Verifies the file and reads up to the first leaf. Returns `(meta, leaves)`."""
    if file.read(len(MAGIC)) != MAGIC:
        raise DamagedCheckpoint(f"{path} does not start like a checkpoint: use another file.")
    expected = file.read(hashlib.sha256().digest_size)
    start = file.tell()
    if hashlib.file_digest(file, "sha256").digest() != expected:
        raise DamagedCheckpoint(f"{path} does not match its SHA-256 digest: use another file.")
    size = file.tell()
    file.seek(start)
    length = int.from_bytes(file.read(8), "little")
    if length > size - file.tell():
        raise DamagedCheckpoint(f"{path} is not as long as its header: use another file.")
    meta, leaves = _parse_header(file.read(length), path)
    if file.tell() + sum(leaf.num_bytes for leaf in leaves) != size:
        raise DamagedCheckpoint(f"{path} is not as long as its header says: use another file.")
    return meta, leaves


def _parse_header(text: bytes, path: str | Path) -> tuple[dict[str, Any], list[Leaf]]:
    """Returns the metadata and the leaves of a header, which may have any content."""
    version = None
    try:
        header = json.loads(text)
        version = header["format"]
        is_known = type(version) is int and version == FORMAT and header.keys() == HEADER_KEYS
        if is_known and type(header["meta"]) is dict:
            return header["meta"], [_parse_leaf(**leaf) for leaf in header["leaves"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    if type(version) is int and version > FORMAT:
        raise ValueError(f"{path} has format {version}: use the version of rljax that wrote it.")
    raise DamagedCheckpoint(f"{path} has a malformed header: use another file.")


def _parse_leaf(*, path: Any, kind: Any, dtype: Any, shape: Any, weak: Any) -> Leaf:
    """Returns a leaf of a header; a `ValueError` or `TypeError` says that it is malformed."""
    is_text = type(path) is type(kind) is type(dtype) is str
    is_shape = type(shape) is list and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if not (is_text and is_shape and type(weak) is bool and NUMBERS.fullmatch(dtype)):
        raise ValueError("a value has another type")
    if np.dtype(dtype).name != dtype or not _is_number(np.dtype(dtype)):
        raise ValueError("the dtype has another name")
    return Leaf(path, kind, dtype, tuple(shape), weak)


def read_tree(
    file: io.BufferedReader, path: str | Path, leaves: list[Leaf], like: PyTree
) -> PyTree:
    """Reads the leaves of a file, after its header, into a tree of the structure of `like`.

    Raises:
      DamagedCheckpoint: the file was truncated.
      ValueError: the leaves differ from those of `like`.
    """
    like_leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    _check_leaves(path, leaves, [_describe(key_path, x) for key_path, x in like_leaves])
    values = [
        _to_value(_read_leaf(file, path, leaf), leaf, x)
        for leaf, (_, x) in zip(leaves, like_leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, values)


def _check_leaves(path: str | Path, stored: list[Leaf], wanted: list[Leaf]) -> None:
    for old, new in itertools.zip_longest(stored, wanted):
        if old is None or new is None or old[:4] != new[:4]:  # all but the weak type
            raise ValueError(
                f"{path} holds {old or 'no more leaves'}, where this run has {new or 'no more'}: "
                "use the agent and environment of the saved run, or another directory."
            )


def _read_leaf(file: io.BufferedReader, path: str | Path, leaf: Leaf) -> np.ndarray:
    dtype = np.dtype(leaf.dtype)  # equal to one of `like`, hence a number
    array = np.empty(leaf.shape, dtype.newbyteorder("<"))
    if file.readinto(array.reshape(-1).view(np.uint8).data) != leaf.num_bytes:
        raise DamagedCheckpoint(f"{path} was truncated while it was read: use another file.")
    return array.astype(dtype, copy=False)


def _to_value(array: np.ndarray, leaf: Leaf, like: Any) -> Any:
    """Returns the leaf in the type of `like`: a Python number, NumPy, random key or JAX array."""
    if leaf.kind == "scalar":
        return array.item()
    if isinstance(like, (np.ndarray, np.generic)):
        return array if isinstance(like, np.ndarray) else array[()]
    value = jax.device_put(array)
    if value.dtype != array.dtype:  # JAX converts to 32 bits without an error
        raise ValueError(f"leaf {leaf} does not fit into JAX: set `jax_enable_x64`.")
    if leaf.kind != "array":
        return jax.random.wrap_key_data(value, impl=leaf.kind.removeprefix("key "))
    if leaf.weak:
        zeros = jnp.full(leaf.shape, array.dtype.type(0).item())  # weak: from a Python number
        return zeros.at[...].set(value) if zeros.dtype == value.dtype else value
    return value
