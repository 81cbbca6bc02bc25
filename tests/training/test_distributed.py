"""Runs over several processes: the same as over one, and none of them waits for the dead."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import rljax
from rljax.training import distributed
from rljax.types import params_of

RUN = [
    "dppo", "CartPole-v1", "--devices=4", "--num-envs=8", "--num-steps=8", "--hidden-sizes=8",
    "--num-minibatches=2", "--update-epochs=2", "--num-reports=40", "--no-progress",
    "--eval-episodes=2", "--save-seconds=0",
]  # fmt: skip
UPDATES = 100


def start(words, errors):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "rljax", *words]
    with open(errors, "w") as file:
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=file
        )  # fmt: skip


def two(words, folder):
    """Two processes of two devices each, which meet on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = [*words, f"--coordinator=127.0.0.1:{port}", "--num-processes=2"]
    return [start([*meet, f"--process-id={i}"], Path(folder) / f"errors.{i}") for i in range(2)]


def updates_done(run_dir):
    found = re.findall(r"\d+", " ".join(p.name for p in run_dir.glob("checkpoint/*")))
    return max(map(int, found), default=0)


def last_params(run_dir):
    return jax.tree.leaves(params_of(rljax.load_states(run_dir)[1].agent))


def test_a_run_over_two_processes_ends_when_one_is_killed_and_goes_on_to_the_same(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = f"--total-timesteps={8 * 8 * UPDATES}"
    alone = start(["train", *RUN, steps, f"--run-dir={whole}"], tmp_path / "errors")
    assert alone.wait(240) == 0, (tmp_path / "errors").read_text()

    processes = two(["train", *RUN, steps, f"--run-dir={parts}"], tmp_path)
    try:
        while updates_done(parts) < 10:
            assert all(process.poll() is None for process in processes), [
                (tmp_path / f"errors.{i}").read_text() for i in range(2)
            ]
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        assert processes[0].wait(60) != 0
        assert time.monotonic() - killed < 60
    finally:
        for process in processes:
            process.kill()
    said = (tmp_path / "errors.0").read_text()
    assert "process 1" in said
    assert f"rljax resume {parts}" in said
    assert updates_done(parts) < UPDATES

    ends = [process.wait(240) for process in two(["resume", str(parts), "--no-progress"], tmp_path)]
    assert ends == [0, 0], (tmp_path / "errors.0").read_text()
    for x, y in zip(last_params(parts), last_params(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_one_process_agrees_with_itself():
    np.testing.assert_array_equal(distributed.agree(1.5, 0.0), [[1.5, 0.0]])
    tree = {"x": np.arange(3)}
    assert distributed.from_first(tree) is tree
    assert distributed.text_from_first("rows") == "rows"
    assert distributed.text_from_first(None) is None
    assert distributed.is_first()
    with distributed.together("saved"), pytest.raises(KeyError), distributed.together("saved"):
        raise KeyError


def test_mistakes_are_told_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="before"):
        distributed.join("127.0.0.1:1", 1, 0)  # the tests have used JAX already
    words = ["train", "ppo", "CartPole-v1", f"--run-dir={tmp_path / 'run'}"]
    for more, message in (
        (["--distributed"], "give `coordinator`, `num_processes` and `process_id`"),
        (["--num-processes=2"], "`num_processes` needs a `coordinator`"),
        (["--devices=3"], "`num_envs` is 8, but the 3 devices share them out"),
    ):
        process = start([*words, *more], tmp_path / "errors")
        assert process.wait(120) == 2
        said = (tmp_path / "errors").read_text()
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


class Store(dict):
    """The coordinator's key-value store, in one process."""

    def key_value_set(self, key, word, allow_overwrite):
        assert allow_overwrite
        self[key] = word

    def key_value_try_get(self, key):
        return self[key]


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def watch(monkeypatch):
    """The watch of process 0 of three, with a short patience; it is run in this thread."""
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    for name, value in (("BEAT", 0.01), ("SILENCE", 0.3), ("STANDSTILL", 0.6)):
        monkeypatch.setattr(distributed, name, value)
    watch = distributed._Watch("saved: rljax resume here")
    watch._store = Store()

    def end(what):
        raise Ended(what)

    monkeypatch.setattr(watch, "_end", end)
    monkeypatch.setattr(watch, "passed", 7)
    return watch


class Peer:
    """Beats when it is asked, as long as it lives."""

    def __init__(self, watch, number, *, dies_after=10**9, stands_at=10**9):
        self.asked = 0
        self.word = f"rljax/{number}"
        self.dies_after, self.stands_at, self.watch = dies_after, stands_at, watch

    def beat(self):
        self.asked += 1
        if self.asked < self.dies_after:
            point = min(self.watch.passed, self.stands_at)
            self.watch._store[self.word] = f"{self.asked} {point}"


def listen(watch, *peers):
    ask = watch._ask

    def beat_then_ask(number):
        peers[number - 1].beat()
        return ask(number)

    watch._ask = beat_then_ask
    with pytest.raises(Ended) as ended:
        watch.run()
    return str(ended.value)


def test_a_silent_process_is_taken_for_dead(watch):
    said = listen(watch, Peer(watch, 1), Peer(watch, 2, dies_after=5))
    assert said.startswith("process 2 of 3 has not been heard of")


def test_a_process_that_stands_still_is_given_up(watch):
    said = listen(watch, Peer(watch, 1, stands_at=6), Peer(watch, 2))
    assert said.startswith("process 1 of 3 lives, but has let the others wait")


def test_a_process_that_failed_tells_why(watch):
    watch._store["rljax/2"] = "failed: ValueError: too large"
    said = listen(watch, Peer(watch, 1), Peer(watch, 2, dies_after=0))
    assert said == "process 2 failed: ValueError: too large"


def test_who_left_is_not_waited_for(watch, monkeypatch):
    watch._store |= {"rljax/1": "left", "rljax/2": "left"}
    watch.start()
    time.sleep(1.0)
    assert watch.is_alive()
    watch.stop("left")
    watch.join(5)
    assert not watch.is_alive()
    assert watch._store["rljax/0"] == "left"
