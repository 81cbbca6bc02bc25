"""A lock on the directory of a run: one process at a time trains in it.

The operating system holds the lock and releases it when the process ends, however it ends. So a
lock file that a killed process left behind does not block anyone.
"""

import contextlib
import errno
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

NAME = "run.lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by some network file systems


def _lock_function() -> Callable[[IO[bytes]], Any]:
    """Returns a function that locks an open file, or raises an `OSError` if it is locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        windows: Any = msvcrt
        return lambda file: (file.seek(0), windows.locking(file.fileno(), windows.LK_NBLCK, 1))
    return lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """The lock of a directory, held from its creation to `release`.

    The file `run.lock` names the process that holds it. Read-only commands ignore it.
    """

    def __init__(self, directory: Path):
        """Takes the lock.

        Raises:
          ValueError: another process, or another call in this process, holds the lock.
          OSError: the file cannot be written.
        """
        self._path, lock = directory / NAME, _lock_function()
        while True:
            self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 (until `release`)
            try:
                lock(self._file)
            except OSError as error:
                holder = _holder(self._file)
                if error.errno not in UNSUPPORTED:
                    self._file.close()
                    raise ValueError(
                        f"{directory} is in use by {holder}: wait until it has ended, or choose "
                        "another `run_dir`."
                    ) from None
                warnings.warn(
                    f"the file system of {directory} cannot lock files: do not resume this run in "
                    "two processes at a time.",
                    stacklevel=3,
                )
            if self._is_current():
                break
            self._file.close()  # the process that held the lock has just deleted the file
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Releases the lock and deletes its file. A second call has no effect."""
        if not self._file.closed:
            if self._is_current():
                with contextlib.suppress(OSError):  # Windows does not delete an open file
                    self._path.unlink()
            self._file.close()

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False


def _holder(file: IO[bytes]) -> str:
    """Returns the process that a lock file names."""
    try:
        file.seek(0)
        return file.read(200).decode(errors="replace") or "another process"
    except OSError:  # Windows does not let others read a locked file
        return "another process"
