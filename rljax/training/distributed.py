"""One run over several processes: how they find each other, agree, and notice a death.

Each process has its own devices and its own copy of the host's part of a run. What the host
decides by the clock or by a signal is agreed upon after each chunk, or programs would part. A
thread of each process tells the others that it lives, through the key-value store of JAX's
coordinator; whoever falls silent ends the run everywhere, within `SILENCE` seconds.
"""

import contextlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rljax.types import PyTree, is_key

BEAT = 1.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one, after which a process is taken for dead
STANDSTILL = 300.0  # seconds that a living process may keep the others waiting
LOST = 75  # the exit code of a process whose peer is lost: a failure that a retry may cure


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several, before anything else of JAX is used.

    Args:
      coordinator: `host:port` of process 0, which the others can reach.
      num_processes: how many there are.
      process_id: which this one is, 0 to `num_processes - 1`.
        What is None is asked of the cluster: SLURM, Open MPI, Kubernetes or a TPU pod.

    Raises:
      ValueError: something is missing, and no cluster is there to ask.
    """
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": int(2.5 * SILENCE),
        "shutdown_timeout_seconds": 30,
    }  # fmt: skip; JAX aborts without a word of where to go on: it is the second to notice
    if coordinator and coordinator.split(":")[0] in ("127.0.0.1", "localhost"):
        options["coordinator_bind_address"] = coordinator  # not on every interface
    known = inspect.signature(jax.distributed.initialize).parameters
    options = {name: value for name, value in options.items() if name in known}
    if jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, **options)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the processes of this run cannot be found ({error}): give `coordinator`, "
            "`num_processes` and `process_id`, or start it under SLURM, Open MPI or Kubernetes."
        ) from None
    except RuntimeError as error:
        raise ValueError(f"the processes of this run cannot be joined: {error}") from None


def is_first() -> bool:
    """Whether this process writes the files and the progress bar."""
    return jax.process_index() == 0


def passed() -> None:
    """Notes that this process has come to a point where the others may have to wait for it."""
    _Watch.passed += 1


def agree(*numbers: float) -> np.ndarray:
    """What every process says, `[P, len(numbers)]`; all of them have to ask."""
    passed()
    mine = np.asarray(numbers, np.float32)
    if jax.process_count() == 1:
        return mine[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(mine))


def from_first(tree: PyTree) -> PyTree:
    """The tree of the first process, on all of them; the others give one of the same shapes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    told = multihost_utils.broadcast_one_to_all(jax.device_get(raw))

    def like(old, new):
        return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if is_key(old) else new

    return jax.tree.map(like, tree, told)


def text_from_first(text: str | None) -> str | None:
    """A text of the first process, or None, on all of them."""
    if jax.process_count() == 1:
        return text
    data = np.frombuffer((text or "").encode(), np.uint8)
    length = int(from_first(np.int32(-1 if text is None else data.size)))
    if length < 0:
        return None
    padded = np.zeros(length, np.uint8)
    padded[: data.size] = data[:length]
    return from_first(padded).tobytes().decode()


@contextlib.contextmanager
def together(saved: str) -> Iterator[None]:
    """Inside, processes watch over each other; leaving by an error tells the others of it.

    `saved` says what can be done when one is lost.
    """
    if jax.process_count() == 1:
        yield
        return
    watch = _Watch(saved)
    watch.start()
    try:
        try:
            yield
        except jax.errors.JaxRuntimeError:
            # most often the peer of a collective is gone: the watch finds out who, and ends this
            time.sleep(SILENCE + 5 * BEAT)
            raise
    except Exception as error:
        watch.stop(f"failed: {type(error).__name__}: {error}")
        raise
    finally:
        watch.stop("left")


class _Watch(threading.Thread):
    """Beats and listens, beside whatever the main thread does or waits for."""

    passed = 0  # points that the main thread has come to

    def __init__(self, saved: str):
        super().__init__(daemon=True, name="rljax-watch")
        from jax._src import distributed  # JAX offers its key-value store nowhere else

        self._store: Any = distributed.global_state.client
        self._saved, self._ended = saved, threading.Event()
        self._me = jax.process_index()
        self._peers = [i for i in range(jax.process_count()) if i != self._me]

    def run(self) -> None:
        began = time.monotonic()
        # when a peer said something new, and what; when it came to a new point, and which
        heard: dict[int, tuple[float, str]] = dict.fromkeys(self._peers, (began, ""))
        moved: dict[int, tuple[float, int]] = dict.fromkeys(self._peers, (began, 0))
        beats = 0
        while not self._ended.wait(BEAT):
            beats += 1
            self._say(f"{beats} {self.passed}")
            now = time.monotonic()
            for peer in self._peers:
                said = self._ask(peer)
                if said.startswith("failed"):
                    self._end(f"process {peer} {said}")
                if said == "left" or (said and said != heard[peer][1]):
                    heard[peer] = now, said
                point = int(said.split()[1]) if said and said != "left" else self.passed
                if point != moved[peer][1] or point >= self.passed:
                    moved[peer] = now, point
                who = f"process {peer} of {jax.process_count()}"
                if now - heard[peer][0] > SILENCE:
                    silent = f"has not been heard of for {SILENCE:.0f} seconds"
                    self._end(f"{who} {silent}: it died, or cannot be reached")
                if now - moved[peer][0] > STANDSTILL:
                    self._end(f"{who} lives, but has let the others wait for {STANDSTILL:.0f} s")

    def stop(self, word: str) -> None:
        """The last word of this process."""
        if not self._ended.is_set():
            self._ended.set()
            self._say(word)

    def _say(self, word: str) -> None:
        with contextlib.suppress(Exception):  # a coordinator that is gone falls silent below
            self._store.key_value_set(f"rljax/{self._me}", word, allow_overwrite=True)

    def _ask(self, peer: int) -> str:
        try:
            return str(self._store.key_value_try_get(f"rljax/{peer}"))
        except Exception:
            return ""

    def _end(self, what: str) -> None:
        # the main thread waits in a collective that will not end, and cannot be woken
        print(f"error: {what}. {self._saved}", file=sys.stderr, flush=True)
        os._exit(LOST)
