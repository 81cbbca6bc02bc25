"""The compilation cache: when it is on, where it is, and the same bits of cached programs."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache
from probes import DRIFT, bits

import rljax
from rljax.training import compile_cache, parallel, runs
from rljax.training.compile_cache import FIRST_JAXLIB_FOR_CPU

OPTIONS = (
    "jax_compilation_cache_dir", "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
)  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A directory for the cache, in a process whose user configured none."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("RLJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compile_cache, "FIRST_JAXLIB_FOR_CPU", (0,))
    compile_cache.enable.cache_clear()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()
    compile_cache.enable.cache_clear()


def test_the_directory_is_private_bounded_and_in_use(cache):
    directory = compile_cache.enable()
    assert directory == cache / compile_cache.directory_name()
    for path in (cache, directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [getattr(jax.config, name) for name in OPTIONS] == [str(directory), 2**30, 0, -1]
    assert compile_cache.enable() is directory  # the second call does nothing
    jax.jit(lambda x: x * 3 + 1.2345).lower(jnp.ones(3)).compile()
    assert list(directory.glob("*-cache"))


def test_the_choice_of_the_user_comes_first(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("RLJAX_CACHE", "off")
    assert compile_cache.enable() is None
    monkeypatch.setenv("RLJAX_CACHE", str(cache))
    compile_cache.enable.cache_clear()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert compile_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not cache.exists()


@pytest.mark.parametrize("reason", ["processes", "jaxlib"])
def test_where_it_is_not_supported(cache, monkeypatch, reason):
    if reason == "processes":
        monkeypatch.setattr(jax, "process_count", lambda: 2)
    else:  # it prints an error for each program that it loads
        monkeypatch.setattr(compile_cache, "FIRST_JAXLIB_FOR_CPU", FIRST_JAXLIB_FOR_CPU)
        monkeypatch.setattr(compile_cache.jaxlib.version, "__version_info__", (0, 10, 1))
    assert compile_cache.enable() is None and not cache.exists()


def test_the_name_differs_between_processors_and_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "CPUINFO", tmp_path / "cpuinfo")

    def name(flags, mhz="2100.0", version="0.10.2"):
        block = f"processor\t: 0\nmodel\t\t: 207\nflags\t\t: {flags}\ncpu MHz\t\t: {mhz}\n"
        (tmp_path / "cpuinfo").write_text(f"{block}\n{block.replace('processor : 0', '1')}")
        monkeypatch.setattr(compile_cache.jaxlib.version, "__version__", version)
        return compile_cache.directory_name()

    assert name("avx2 avx512f") == name("avx2 avx512f", mhz="3900.0")
    names = {name("avx2 avx512f"), name("avx2"), name("avx2", version="0.11.0")}
    assert len(names) == 3 and all(x.startswith("jaxlib-0.1") for x in names)


def test_a_directory_that_others_can_write_is_refused(cache, monkeypatch):
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    with pytest.warns(UserWarning, match=f"without a cache: another user owns {cache} or can wri"):
        assert compile_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None
    cache.chmod(0o700)
    compile_cache.enable.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(UserWarning, match="another user owns"):
        assert compile_cache.enable() is None


def test_without_a_disk_to_write_there_is_no_cache(cache, monkeypatch, tmp_path):
    cache.write_text("a file")
    with pytest.warns(UserWarning, match="without a cache: .*File exists"):
        assert compile_cache.enable() is None
    monkeypatch.delenv("RLJAX_CACHE")  # in the default directory no one asked for it: no warning
    monkeypatch.setattr(compile_cache.platformdirs, "user_cache_path", lambda *x, **y: cache)
    compile_cache.enable.cache_clear()
    assert compile_cache.enable() is None
    monkeypatch.setattr(
        compile_cache.platformdirs, "user_cache_path", lambda *x, **y: tmp_path / "full"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    compile_cache.enable.cache_clear()
    assert compile_cache.enable() is None


def test_incomplete_programs_and_unused_versions_are_removed(cache):
    names = ["jaxlib-0.9.0-0123456789ab", "jaxlib-0.9.1-0123456789ab", "something-else"]
    for name in names:
        (cache / name).mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    old = time.time() - 61 * 24 * 3600
    for name in (names[0], names[2]):
        os.utime(cache / name, (old, old))
    directory = compile_cache.enable()
    assert {path.name for path in cache.iterdir()} == {*names[1:], directory.name}
    for name in ("whole-cache", "whole-atime", "torn-cache"):  # its process was killed
        (directory / name).touch()
    compile_cache.enable.cache_clear()
    jax.config.update("jax_compilation_cache_dir", None)
    compile_cache.enable()
    left = {path.name for path in directory.iterdir()}
    assert {"whole-cache", "whole-atime"} <= left and "torn-cache" not in left


@pytest.fixture
def events(monkeypatch):
    """The names of events of the cache."""
    seen = []
    jax.monitoring.register_event_listener(lambda name, **_: seen.append(name.split("/")[-1]))
    return seen


def in_new_process():
    """Forgets all programs, as if the process had just started."""
    runs._COMPILED.clear()
    jax.clear_caches()


@pytest.mark.usefixtures("quick_compiles")
def test_a_cached_training_gives_the_same_bits(cache, events):
    def train():
        runs._COMPILED.clear()  # as in a new process
        events.clear()
        return rljax.train(
            DRIFT, "rljax/Maze", total_timesteps=64, num_envs=4, num_steps=8,
            eval_episodes=2, num_reports=2, progress=False,
        )  # fmt: skip

    compiled = train()
    assert events.count("cache_misses") >= 3  # initialization, training, evaluation
    cached = train()
    assert events.count("cache_misses") == 0 and events.count("cache_hits") >= 3
    assert bits(compiled.state) == bits(cached.state)
    assert compiled.evaluation["returns"].tolist() == cached.evaluation["returns"].tolist()


PLACES = {
    "devices": parallel.place,
    "threads": parallel._on_threads,
    "workers": lambda num_runs, shards: parallel.place(num_runs // shards, workers=shards),
}


@pytest.mark.parametrize("name", list(PLACES))
def test_cached_programs_donate_their_buffers(cache, events, name):
    values, results = jnp.arange(2.0 * 1234).reshape(2, 1234), []

    def function(x):
        x = jnp.sin(x) / 3
        return jax.lax.pmean(x, parallel.WORKERS) if name == "workers" else x

    for _ in range(2):
        in_new_process()
        compile_cache.enable()
        placement = PLACES[name](2, 2)
        shards = placement.split(values)
        events.clear()
        program = placement.compile(function, shards, donate=(0,))
        assert program.num_bytes is not None
        counts = [events.count(f"cache_{x}") for x in ("misses", "hits")]
        result = program(shards)
        given = [x for x in jax.tree.leaves(shards) if isinstance(x, jax.Array)]
        assert given and all(x.is_deleted() for x in given)
        results.append(np.asarray(placement.join(result)))
    assert counts == [0, 1]
    np.testing.assert_array_equal(*results)
    expected = np.sin(np.asarray(values)) / 3
    expected = np.stack([expected.mean(0)] * 2) if name == "workers" else expected
    np.testing.assert_allclose(results[0], expected, atol=1e-6)


CODE = """
import jax
import rljax
assert jax.config.jax_compilation_cache_dir is None  # not before rljax is used
rljax.train("q_learning", "rljax/Maze", total_timesteps=400, eval_episodes=0, progress=False)
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the variable of the directory is that of Linux"
)
def test_a_second_process_loads_its_programs_silently(tmp_path):
    hidden = ("RLJAX_CACHE", "JAX_")
    environment = {name: x for name, x in os.environ.items() if not name.startswith(hidden)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CODE], env=environment, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""  # XLA prints here if it doubts the processor
        directory = Path(done.stdout.strip())
        assert directory.parent == tmp_path / "rljax"
        programs = sorted(directory.glob("*-cache"))
    assert programs == sorted(directory.glob("*-cache"))
