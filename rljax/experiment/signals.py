"""Ctrl-C and SIGTERM during a run: finish the current chunk, save, then exit."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


class Interrupt:
    """The last signal received, SIGINT or SIGTERM, or 0."""

    signal: int = 0

    def exit(self, run_dir: Path | None) -> None:
        """Raises KeyboardInterrupt for Ctrl-C, or SystemExit with code 143 for SIGTERM."""
        if self.signal == signal.SIGTERM:
            print(f"Terminated. {resume_hint(run_dir)}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(f"Interrupted. {resume_hint(run_dir)}")


def resume_hint(run_dir: Path | None) -> str:
    """Returns one sentence on how to continue an interrupted run."""
    if run_dir is None:
        return "Nothing was saved, because `run_dir` is not set."
    return f"To continue from the last checkpoint: rljax resume {run_dir}"


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within this context, Ctrl-C and SIGTERM are recorded, so that the chunk can be finished.

    A second Ctrl-C interrupts at once. Python delivers signals only to the main thread; in other
    threads nothing changes.
    """
    interrupt, previous = Interrupt(), {}

    def record(number, frame):
        if interrupt.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupt.signal = number

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, record)
    except ValueError:  # not the main thread
        pass
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
