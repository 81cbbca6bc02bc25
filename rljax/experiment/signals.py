"""Ctrl-C and SIGTERM during a run: finish the chunk, save, then exit."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


class Interrupt:
    """Whether Ctrl-C or SIGTERM has come. A second Ctrl-C is not waited for."""

    signal: int = 0

    def leave(self, saved: Path | None) -> None:
        """Leaves as the signal asks: KeyboardInterrupt, or exit with 143."""
        where = f"saved: rljax resume {saved}" if saved else "nothing was saved: no `run_dir`"
        if self.signal == signal.SIGTERM:
            print(f"terminated; {where}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(f"interrupted; {where}")


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside, Ctrl-C and SIGTERM are noted, for the chunk under way to be finished and saved.

    Only the main thread can have signals; elsewhere nothing is noted.
    """
    interrupt, before = Interrupt(), {}

    def note(number, frame):
        if interrupt.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupt.signal = number

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        pass
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
