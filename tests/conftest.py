"""Tests run on the CPU, as four simulated devices, and implicit rank promotion is an error.

Compiling takes most of the time, so compiled programs are cached between test runs, in
`~/.cache/rljax-tests` or in JAX_COMPILATION_CACHE_DIR.
"""

import ctypes
import gc
import hashlib
import importlib
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, os.path.dirname(__file__))  # for `import probes` and `import cases`
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# the files of `pytest -m quick`
QUICK = re.compile(
    r"/(cli|config|ops|replay|rendering|results)/|/networks/(?!test_(recurrent|cells|nnx))"
    r"|/test_(main|imports|learner|policy_gradient|a2c|ddpg|dqn|pqn|sac|td3)\.py$"
)
PER_AGENT = ("test_contract.py", "test_probe_environments.py")
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


def pytest_collection_modifyitems(items):
    for item in items:
        if QUICK.search(item.path.as_posix()) and not item.get_closest_marker("slow"):
            item.add_marker("quick")


def scope_of(nodeid):
    """Returns the group of tests that one process runs: a file, or an agent of a file."""
    file, _, test = nodeid.partition("::")
    agent = re.search(r"\[(\w+)", test) if file.endswith(PER_AGENT) else None
    return f"{file}-{agent[1]}" if agent else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives each file to one process of `pytest -n`, so that its fixtures are set up once.

    Files in `PER_AGENT` are split by their first parameter, the agent. (The marks of `--dist
    loadgroup` have no effect in pytest 9.2 with pytest-xdist 3.8.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="module")
def quick_compiles():
    """Compiles without most optimizations, in half the time, for tests of short programs."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Frees compiled programs between files and agents, so that a process stays below 2 GiB."""
    is_last = nextitem is None or scope_of(nextitem.nodeid) != scope_of(item.nodeid)
    if resident_memory() > (1 if is_last else 1.75) * 2**30:
        import jax

        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the compiler's memory, which free() keeps


def resident_memory():
    """Returns the memory of this process in bytes; 0 on systems other than Linux."""
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
