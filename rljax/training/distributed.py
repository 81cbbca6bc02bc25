"""One run on several processes: how they connect, communicate and detect a lost process.

Each process has its own devices and its own copy of the host's part of a run. The host's decisions
that depend on a clock or a signal are agreed after each chunk, so that all run the same programs.
A thread of each process sends heartbeats through the key-value store of JAX's coordinator. When a
process stops sending them, the others end the run within `TIMEOUT_SECONDS`.
"""

import contextlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from rljax.training import coordinator as coordinator_process
from rljax.types import PyTree, is_key

HEARTBEAT_SECONDS = 1.0  # between two heartbeats
TIMEOUT_SECONDS = 20.0  # without a heartbeat, after which a process counts as lost
STALL_SECONDS = 300.0  # without progress, after which a live process counts as stalled
SILENT_SECONDS = 10.0  # of waiting for a connection, after which it is said
EXIT_PEER_LOST = 75  # exit code when another process is lost (EX_TEMPFAIL: a retry may succeed)


def join(
    coordinator: str | None = None, num_processes: int | None = None,
    process_id: int | None = None, wait_seconds: float = 300.0,
) -> None:  # fmt: skip
    """Connects this process to the others. Call it before anything else of JAX is used.

    Arguments that are None are read from the cluster manager: SLURM, Open MPI, Kubernetes or a TPU
    pod.

    Args:
      coordinator: `host:port` of process 0, reachable by the other processes.
      num_processes: number of processes.
      process_id: index of this process, 0 to `num_processes - 1`.
      wait_seconds: time limit of the connection.

    Raises:
      ValueError: an argument is missing and there is no cluster manager, or connecting failed, or
        the other processes did not connect within the time limit.
    """
    # JAX's own timeout aborts without saying how to resume, so it must be the longer one
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": int(2.5 * TIMEOUT_SECONDS),
        "shutdown_timeout_seconds": 30,
        "initialization_timeout": int(wait_seconds) + 3600,  # after it JAX aborts the process
    }
    if coordinator and coordinator.split(":")[0] in ("127.0.0.1", "localhost"):
        options["coordinator_bind_address"] = coordinator  # not on every interface
    known = inspect.signature(jax.distributed.initialize).parameters
    options = {name: value for name, value in options.items() if name in known}
    if jax.distributed.is_initialized():
        return

    def connect():
        with coordinator_process.in_own_process():
            jax.distributed.initialize(coordinator, num_processes, process_id, **options)

    others = "process 0" if process_id else "the other processes"
    waiting = f"waiting for {others} of this run" + (f" at {coordinator}" if coordinator else "")
    try:
        _call(connect, wait_seconds, waiting)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the other processes of this run were not found ({error}): give `coordinator`, "
            "`num_processes` and `process_id`, or start it under SLURM, Open MPI or Kubernetes."
        ) from None
    except TimeoutError as error:
        coordinator_process.shut_down()
        raise ValueError(
            f"{error}: start all processes, check the address, or raise `wait_seconds`."
        ) from None
    except RuntimeError as error:
        raise ValueError(f"connecting to the other processes failed: {error}") from None


def _call(connect: Callable[[], None], seconds: float, waiting: str) -> None:
    """Calls a function that blocks in C++ in a thread, so that Ctrl-C and a time limit work."""
    errors: list[BaseException] = []

    def run():
        try:
            connect()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="rljax-connect")
    thread.start()
    thread.join(min(SILENT_SECONDS, seconds))
    if thread.is_alive() and seconds > SILENT_SECONDS:
        print(f"{waiting}, at most {seconds:g} s (--wait-seconds)", file=sys.stderr, flush=True)
        thread.join(seconds - SILENT_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"{waiting} took more than {seconds:g} s")
    if errors:
        raise errors[0]


def is_first() -> bool:
    """Whether this is process 0, which writes the files and the progress bar."""
    return jax.process_index() == 0


def count_progress() -> None:
    """Counts one step of progress of this process, for the detection of stalled processes."""
    _Heartbeat.progress += 1


def all_gather(*numbers: float) -> np.ndarray:
    """Returns the numbers of every process, `[P, len(numbers)]`; every process has to call it."""
    count_progress()
    mine = np.asarray(numbers, np.float32)
    if jax.process_count() == 1:
        return mine[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(mine))


def broadcast(tree: PyTree) -> PyTree:
    """Returns the tree of process 0 in every process; the others pass one of the same shapes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    received = multihost_utils.broadcast_one_to_all(jax.device_get(raw))

    def restore_key(old, new):
        return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if is_key(old) else new

    return jax.tree.map(restore_key, tree, received)


def broadcast_text(text: str | None) -> str | None:
    """Returns the text, or None, of process 0 in every process."""
    if jax.process_count() == 1:
        return text
    data = np.frombuffer((text or "").encode(), np.uint8)
    length = int(broadcast(np.int32(-1 if text is None else data.size)))
    if length < 0:
        return None
    padded = np.zeros(length, np.uint8)
    padded[: data.size] = data[:length]
    return broadcast(padded).tobytes().decode()


@contextlib.contextmanager
def monitored(resume_hint: str) -> Iterator[None]:
    """Within this context, each process detects the loss, failure or stall of another.

    Args:
      resume_hint: one sentence on how to resume, printed when another process is lost.
    """
    if jax.process_count() == 1:
        yield
        return
    heartbeat = _Heartbeat(resume_hint)
    heartbeat.start()
    try:
        try:
            yield
        except jax.errors.JaxRuntimeError:
            # the usual cause is a lost process: the heartbeat thread names it and exits meanwhile
            time.sleep(TIMEOUT_SECONDS + 5 * HEARTBEAT_SECONDS)
            raise
    except Exception as error:
        heartbeat.stop(f"failed: {type(error).__name__}: {error}")
        raise
    finally:
        heartbeat.stop("finished")


class _Heartbeat(threading.Thread):
    """Sends heartbeats and checks those of the other processes, beside the main thread.

    A message is "COUNT PROGRESS", the number of heartbeats and the progress counter, or the final
    "finished" or "failed: reason".
    """

    progress = 0  # steps of progress of the main thread

    def __init__(self, resume_hint: str):
        super().__init__(daemon=True, name="rljax-heartbeat")
        from jax._src import distributed  # the only access to JAX's key-value store

        self._store: Any = distributed.global_state.client
        self._resume_hint, self._stopped = resume_hint, threading.Event()
        self._sending = threading.Lock()  # no heartbeat follows the final message
        self._process = jax.process_index()
        self._peers = [i for i in range(jax.process_count()) if i != self._process]

    def run(self) -> None:
        start = time.monotonic()
        # for each peer: the time of its last new message, and the message
        heard: dict[int, tuple[float, str]] = dict.fromkeys(self._peers, (start, ""))
        # for each peer: the time of its last progress, and its progress counter
        moved: dict[int, tuple[float, int]] = dict.fromkeys(self._peers, (start, 0))
        count = 0
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            count += 1
            with self._sending:
                if not self._stopped.is_set():
                    self._send(f"{count} {self.progress}")
            now = time.monotonic()
            for peer in self._peers:
                message = self._receive(peer)
                if message.startswith("failed"):
                    self._exit(f"process {peer} {message}")
                if message == "finished" or (message and message != heard[peer][1]):
                    heard[peer] = now, message
                is_count = message and message != "finished"
                progress = int(message.split()[1]) if is_count else self.progress
                if progress != moved[peer][1] or progress >= self.progress:
                    moved[peer] = now, progress
                self._check(peer, now - heard[peer][0], now - moved[peer][0])

    def stop(self, message: str) -> None:
        """Sends the final message of this process."""
        with self._sending:
            if not self._stopped.is_set():
                self._stopped.set()
                self._send(message)

    def _check(self, peer: int, silent_seconds: float, stalled_seconds: float) -> None:
        name = f"process {peer} of {jax.process_count()}"
        if silent_seconds > TIMEOUT_SECONDS:
            lost = f"sent no heartbeat for {TIMEOUT_SECONDS:.0f} seconds"
            self._exit(f"{name} {lost}: it has ended or cannot be reached")
        if stalled_seconds > STALL_SECONDS:
            self._exit(f"{name} is alive but has made no progress for {STALL_SECONDS:.0f} seconds")

    def _send(self, message: str) -> None:
        with contextlib.suppress(Exception):  # a lost coordinator is detected by the timeout
            self._store.key_value_set(f"rljax/{self._process}", message, allow_overwrite=True)

    def _receive(self, peer: int) -> str:
        try:
            return str(self._store.key_value_try_get(f"rljax/{peer}"))
        except Exception:
            return ""

    def _exit(self, reason: str) -> None:
        # the main thread is blocked in a collective operation and cannot be interrupted
        print(f"error: {reason}. {self._resume_hint}", file=sys.stderr, flush=True)
        # the others detect the loss at the same time
        coordinator_process.shut_down(3 * HEARTBEAT_SECONDS)
        os._exit(EXIT_PEER_LOST)
