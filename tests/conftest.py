"""Every test runs on the CPU, which plays four devices, and no array may broadcast in silence.

Most of the time goes into compiling, so what was compiled is kept for the next run, in
`~/.cache/rljax-tests`; set JAX_COMPILATION_CACHE_DIR to keep it elsewhere.
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

sys.path.insert(0, os.path.dirname(__file__))  # for `import probes`
os.environ.setdefault("JAX_PLATFORMS", "cpu")
DEVICES = "--xla_force_host_platform_device_count"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}=4".strip()


def compiled_before():
    """The folder of compiled programs: one for each kind of processor, emptied when too large."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split("flags")[-1].split("\n")[0] if cpu.exists() else ""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = home / "rljax-tests" / hashlib.sha256(flags.encode()).hexdigest()[:8]
    if folder.exists() and sum(file.stat().st_size for file in folder.iterdir()) > 2**30:
        shutil.rmtree(folder)
    return folder


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # the first process; those of xdist inherit it
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled_before()))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    import jax  # not before the flags are set

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distrax imports deprecated names, once
        importlib.import_module("distrax")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    hypothesis.settings.register_profile("rljax", deadline=None, derandomize=True, max_examples=30)
    hypothesis.settings.load_profile("rljax")


def pytest_collection_modifyitems(items):
    """What shares a fixture, a file or an agent, stays in one process of `pytest -n`."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        agent = params.get("exam", params.get("learned", ""))
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}-{agent}"))


@pytest.fixture(scope="module")
def quick_compiles():
    """Half the time to compile, for tests that run programs too short to be worth more."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _few_programs():
    """Forgets compiled programs in time: Linux ends a process that has 65,530 memory maps."""
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
