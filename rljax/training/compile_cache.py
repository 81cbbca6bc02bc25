"""The compilation cache of JAX on disk: a later process loads a program instead of compiling it.

The cache is on by default, in the user's cache directory. RLJAX_CACHE=off turns it off, and
RLJAX_CACHE=DIR chooses another directory. A cache that is configured in JAX already, by
JAX_COMPILATION_CACHE_DIR or `jax.config`, is left as it is.

A cached program is machine code of one processor, and loading it runs it. So each kind of processor
and version of jaxlib has a directory of its own, which only this user may write.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, cast

import filelock
import jax
import jaxlib.version
import platformdirs
from jax.experimental.compilation_cache import compilation_cache as jax_cache

VARIABLE = "RLJAX_CACHE"
MAX_BYTES = 2**30  # of a directory; JAX keeps it below by removing the least recently used programs
MIN_FREE_BYTES = 2**27  # on a disk with less the cache stays off
MIN_COMPILE_SECONDS = 0.0  # programs that compile faster are not cached
UNUSED_SECONDS = 60 * 24 * 3600  # after which the directory of another version is removed
LOCK_SECONDS = 10.0
# Earlier versions print an error for each program that they load: they mistake preferences of the
# compiler, such as `prefer-no-gather`, for features that the processor lacks.
FIRST_JAXLIB_FOR_CPU = (0, 10, 2)
CPUINFO = Path("/proc/cpuinfo")
PROCESSOR = re.compile(
    r"^(vendor_id|cpu family|model|model name|flags|Features|CPU \w+)\s*:.*$", re.MULTILINE
)


@functools.cache
def enable() -> Path | None:
    """Turns the compilation cache on, unless the user configured one or turned it off.

    Called before the first program is compiled; later calls return the same answer at once. Where
    there can be no cache, such as on a disk that is read-only or full, programs are compiled.

    Returns:
      The directory of the cache; None if rljax did not turn it on.
    """
    chosen, config = os.environ.get(VARIABLE, ""), cast(Any, jax.config)
    if chosen == "off" or config.jax_compilation_cache_dir:
        return None
    if not config.jax_enable_compilation_cache or not _is_supported():
        return None
    parent = platformdirs.user_cache_path("rljax", appauthor=False)
    if chosen:
        parent = Path(chosen).expanduser().absolute()
    directory = parent / directory_name()
    try:
        _prepare(directory)
    except (OSError, ValueError) as error:
        if chosen or isinstance(error, ValueError):
            warnings.warn(f"programs are compiled without a cache: {error}", stacklevel=3)
        return None
    config.update("jax_compilation_cache_dir", str(directory))
    config.update("jax_compilation_cache_max_size", MAX_BYTES)
    config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax_cache.reset_cache()  # JAX may have read the options before rljax was used
    # a disk that becomes full is no reason for a warning about each program
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return directory


def directory_name() -> str:
    """Returns a name that differs between versions of jaxlib and kinds of processors."""
    processor = [platform.machine(), platform.processor()]
    if CPUINFO.exists():
        first, _, _ = CPUINFO.read_text().partition("\n\n")
        processor += [match[0] for match in PROCESSOR.finditer(first)]
    digest = hashlib.sha256("\n".join(processor).encode()).hexdigest()[:12]
    return f"jaxlib-{jaxlib.version.__version__}-{digest}"


def _is_supported() -> bool:
    """Whether programs can be cached: in a single process, on a CPU with a recent jaxlib."""
    if jax.process_count() > 1:
        return False
    return jax.default_backend() != "cpu" or jaxlib.version.__version_info__ >= FIRST_JAXLIB_FOR_CPU


def _prepare(directory: Path) -> None:
    """Creates the directory, or checks and repairs it.

    Raises:
      OSError: it cannot be written, or its disk is almost full.
      ValueError: another user owns it or can write to it.
    """
    parent, is_new = directory.parent, not directory.exists()
    for path in (parent, directory):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path)
    if shutil.disk_usage(directory).free < MIN_FREE_BYTES:
        raise OSError(f"the disk of {directory} is almost full.")
    os.utime(directory)  # the time of its last use
    if is_new:
        _remove_unused(parent)
    # JAX writes the time of the last use after the program: without it, the program is incomplete
    # because its process was killed, and JAX would cache nothing more.
    with filelock.FileLock(directory / ".lockfile", timeout=LOCK_SECONDS):
        names = set(os.listdir(directory))
        for name in names:
            if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in names:
                (directory / name).unlink(missing_ok=True)


def _check_private(directory: Path) -> None:
    """Raises a `ValueError` if another user owns the directory or can write to it."""
    status = directory.stat()
    if not hasattr(os, "geteuid"):  # Windows: the user's profile is private
        return
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ValueError(
            f"another user owns {directory} or can write to it, and could place programs there: "
            f"`chmod go-w {directory}`, or set {VARIABLE} to another directory or to off."
        )


def _remove_unused(parent: Path) -> None:
    """Removes the directories of other versions that have not been used for long."""
    for directory in parent.glob("jaxlib-*-*"):
        if time.time() - directory.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)
