"""JAX's coordinator in a process of its own, so that it survives the loss of process 0.

JAX runs it inside process 0. If that process is killed, the C++ clients of the others abort within
a second, before anyone can say what has happened. The interface of JAX that starts it is private:
where it is missing, the coordinator stays in process 0.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from jax._src import distributed

LINGER_SECONDS = 22.0  # after the loss of process 0: longer than the others take to detect it
STARTER = "get_distributed_runtime_service"


class Coordinator:
    """The coordinator in a child process; it has the interface of JAX's own."""

    current: "Coordinator | None" = None

    def __init__(self, address: str, num_processes: int, **options: Any):
        arguments = json.dumps([address, num_processes, options])
        self._child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise RuntimeError(f"the coordinator cannot listen on {address}")
        Coordinator.current = self

    def shutdown(self, seconds: float = 0.0) -> None:
        """Ends the coordinator after some seconds. A second call has no effect."""
        if self._child.stdin is not None and not self._child.stdin.closed:
            with contextlib.suppress(OSError):
                self._child.stdin.write(f"{seconds}\n")
                self._child.stdin.close()


def shut_down(seconds: float = 0.0) -> None:
    """Ends the coordinator of this process, if it has one, after some seconds."""
    if Coordinator.current is not None:
        Coordinator.current.shutdown(seconds)


@contextlib.contextmanager
def in_own_process() -> Iterator[None]:
    """Within this context, `jax.distributed.initialize` starts the coordinator as a child."""
    module = getattr(distributed, "_jax", None)
    original = getattr(module, STARTER, None)
    if module is None or original is None:
        yield
        return
    setattr(module, STARTER, Coordinator)
    try:
        yield
    finally:
        setattr(module, STARTER, original)


def main() -> None:
    """Runs the coordinator until the pipe from process 0 says how long, or is closed."""
    address, num_processes, options = json.loads(sys.argv[1])
    module: Any = distributed
    service = getattr(module._jax, STARTER)(address, num_processes, **options)
    print("ready", flush=True)
    time.sleep(float(sys.stdin.readline() or LINGER_SECONDS))
    service.shutdown()


if __name__ == "__main__":
    main()
