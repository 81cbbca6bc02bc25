"""Ctrl-C and SIGTERM during a run: exit with a sentence on what is saved, and the usual code."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


class Interrupt:
    """The last signal received, SIGINT or SIGTERM, or 0.

    Attributes:
      signal: number of the signal.
      saved: one sentence on what is saved, for the message.
      waits: a signal waits until `exit` is called; otherwise it interrupts at once.
    """

    def __init__(self, saved: str = "", waits: bool = False):
        self.signal, self.saved, self.waits = 0, saved, waits

    def exit(self) -> None:
        """Raises KeyboardInterrupt for Ctrl-C, or SystemExit with code 143 for SIGTERM."""
        if self.signal == signal.SIGTERM:
            print(f"Terminated. {self.saved}".strip(), file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(f"Interrupted. {self.saved}".strip())

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this context signals wait; at its end a signal interrupts."""
        before, self.waits = self.waits, True
        try:
            yield
        finally:
            self.waits = before
        if self.signal and not self.waits:
            self.exit()


def resume_hint(run_dir: Path | None) -> str:
    """Returns one sentence on how to continue an interrupted run."""
    if run_dir is None:
        return "Nothing was saved, because `run_dir` is not set."
    return f"To continue from the last checkpoint: rljax resume {run_dir}"


def complete_hint(run_dir: Path | None) -> str:
    """Returns one sentence on where a complete run is saved."""
    return f"The run is complete and saved in {run_dir}."


@contextlib.contextmanager
def interruptible(saved: str = "", waits: bool = False) -> Iterator[Interrupt]:
    """Within this context, Ctrl-C and SIGTERM interrupt as `Interrupt` says.

    A second Ctrl-C interrupts at once. Python delivers signals only to the main thread; in other
    threads nothing changes.
    """
    interrupt, previous = Interrupt(saved, waits), {}

    def record(number, frame):
        is_second = interrupt.signal and number == signal.SIGINT
        interrupt.signal = number
        if is_second or not interrupt.waits:
            interrupt.exit()

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
