"""Tests run on the CPU, as four simulated devices, and implicit rank promotion is an error.

Compiling takes most of the time, so compiled programs are cached between test runs, in
`~/.cache/rljax-tests` or in JAX_COMPILATION_CACHE_DIR.
"""

import gc
import hashlib
import importlib
import os
import shutil
import sys
import warnings
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, os.path.dirname(__file__))  # for `import probes` and `import cases`
os.environ.setdefault("JAX_PLATFORMS", "cpu")
DEVICES = "--xla_force_host_platform_device_count"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}=4".strip()


def compilation_cache():
    """Returns the cache directory of this kind of processor, emptied if it exceeds 1 GiB."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split("flags")[-1].split("\n")[0] if cpu.exists() else ""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    directory = home / "rljax-tests" / hashlib.sha256(flags.encode()).hexdigest()[:8]
    if directory.exists() and sum(file.stat().st_size for file in directory.iterdir()) > 2**30:
        shutil.rmtree(directory)
    return directory


def pytest_configure(config):
    if not hasattr(
        config, "workerinput"
    ):  # the first process; workers of xdist inherit its environment
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compilation_cache()))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    import jax  # after the flags are set

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distrax imports deprecated names
        importlib.import_module("distrax")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    hypothesis.settings.register_profile("rljax", deadline=None, derandomize=True, max_examples=30)
    hypothesis.settings.load_profile("rljax")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Keeps tests that share a module-scoped fixture in one process of `pytest -n`.

    A parametrized fixture, such as one agent of the contract tests, makes a group of its own.
    """
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs
        shared = {name for name in fixtures if fixtures[name][-1].scope == "module"}
        shared -= {"quick_compiles"}
        if shared:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            values = [str(params[name]) for name in sorted(shared & params.keys())]
            item.add_marker(pytest.mark.xdist_group("-".join([item.path.name, *values])))


@pytest.fixture(scope="module")
def quick_compiles():
    """Compiles without most optimizations, in half the time, for tests of short programs."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _limit_compiled_programs():
    """Clears compiled programs before a process reaches the limit of 65,530 memory maps."""
    yield
    try:
        with open("/proc/self/maps") as maps:
            count = sum(1 for _ in maps)
    except OSError:
        return
    if count > 15_000:
        import jax

        jax.clear_caches()
        gc.collect()
