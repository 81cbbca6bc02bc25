"""A process that measures one thing after another: requests and answers are lines of JSON.

Programs in one process need not start JAX again. A process that fails or takes too long is ended;
the next request starts a new one. One process runs at a time, because JAX takes most of the memory
of a GPU.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from lib import harness
from lib.harness import Failed


class Worker:
    """Runs a program of Python in which each line of input is answered by a line of output.

    Attributes:
      facts: the first line of the program, which it writes before any answer.
    """

    def __init__(self, program: Path):
        """Starts no process yet."""
        self.facts: dict[str, Any] = {}
        self._program, self._kind = program, ""
        self._process: subprocess.Popen[str] | None = None

    def ask(
        self, request: dict[str, Any], kind: str, settings: dict[str, str], timeout: float
    ) -> Any:
        """Returns the answer to a request.

        Args:
          request: sent as JSON.
          kind: any name; another one than before starts a new process.
          settings: environment variables of a new process.
          timeout: seconds, after which the process is ended.

        Raises:
          Failed: the process ended without an answer, or did not answer in time.
        """
        if self._process is None or self._kind != kind:
            self._start(settings)
            self._kind = kind
            self.facts = self._answer(timeout)
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and `_answer` says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer(timeout)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._errors.close()
            self._process = None

    def _start(self, settings: dict[str, str]) -> None:
        self.close()
        path = os.pathsep.join(
            filter(None, (str(harness.REPOSITORY), os.environ.get("PYTHONPATH")))
        )
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(self._program)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=os.environ | {"PYTHONPATH": path} | settings,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        arguments = self._process.stdout, self._lines
        threading.Thread(target=_read, args=arguments, daemon=True).start()

    def _answer(self, timeout: float) -> Any:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise Failed(f"no answer within {timeout:.0f} s") from None
        if line:
            return json.loads(line)
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["the process ended without a message"]
        self.close()
        raise Failed(lines[-1])


def _read(lines: Any, into: "queue.Queue[str]") -> None:
    """Puts the lines of a process into a queue, and "" at its end."""
    for line in lines:
        into.put(line)
    into.put("")
