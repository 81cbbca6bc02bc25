"""Runs on several processes: equal to runs on one; a lost process ends the run."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
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


def start_two(words, folder):
    """Starts two connected processes of two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connected = [*words, f"--coordinator=127.0.0.1:{port}", "--num-processes=2"]
    return [
        start([*connected, f"--process-id={i}"], Path(folder) / f"errors.{i}") for i in range(2)
    ]


def updates_done(run_dir):
    found = re.findall(r"\d+", " ".join(p.name for p in run_dir.glob("checkpoint/*")))
    return max(map(int, found), default=0)


def last_params(run_dir):
    return jax.tree.leaves(params_of(rljax.load_states(run_dir)[1].agent))


def test_a_run_on_two_processes_ends_if_one_is_killed_and_resumes_to_the_same_result(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = f"--total-timesteps={8 * 8 * UPDATES}"
    alone = start(["train", *RUN, steps, f"--run-dir={whole}"], tmp_path / "errors")
    assert alone.wait(240) == 0, (tmp_path / "errors").read_text()

    processes = start_two(["train", *RUN, steps, f"--run-dir={parts}"], tmp_path)
    try:
        while updates_done(parts) < 10:
            assert all(process.poll() is None for process in processes), [
                (tmp_path / f"errors.{i}").read_text() for i in range(2)
            ]
            time.sleep(0.05)
        processes[0].send_signal(signal.SIGKILL)  # which JAX's coordinator has to survive
        killed = time.monotonic()
        assert processes[1].wait(60) == distributed.EXIT_PEER_LOST
        assert time.monotonic() - killed < 60
    finally:
        for process in processes:
            process.kill()
    message = (tmp_path / "errors.1").read_text().splitlines()[-1]
    assert message.startswith("error: process 0 of 2 sent no heartbeat for 20 seconds")
    assert message.endswith(f"rljax resume {parts}")
    assert updates_done(parts) < UPDATES

    resumed = start_two(["resume", str(parts), "--no-progress"], tmp_path)
    assert [process.wait(240) for process in resumed] == [0, 0], (tmp_path / "errors.0").read_text()
    for x, y in zip(last_params(parts), last_params(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_collective_operations_of_one_process_return_their_input():
    np.testing.assert_array_equal(distributed.all_gather(1.5, 0.0), [[1.5, 0.0]])
    tree = {"x": np.arange(3)}
    assert distributed.broadcast(tree) is tree
    assert distributed.broadcast_text("rows") == "rows"
    assert distributed.broadcast_text(None) is None
    assert distributed.is_first()
    with distributed.monitored("hint"), pytest.raises(KeyError), distributed.monitored("hint"):
        raise KeyError


def test_wrong_arguments_are_reported_before_training(tmp_path):
    assert jax.devices()
    with pytest.raises(ValueError, match="before"):
        distributed.join("127.0.0.1:1", 1, 0)  # JAX is initialized already
    words = ["train", "ppo", "CartPole-v1", f"--run-dir={tmp_path / 'run'}"]
    for more, message in (
        (["--distributed"], "give `coordinator`, `num_processes` and `process_id`"),
        (["--wait-seconds=5"], "`wait_seconds` is 5, but this is a run on one process"),
        (
            [
                "--coordinator=127.0.0.1:1",
                "--num-processes=2",
                "--process-id=1",
                "--wait-seconds=1",
            ],
            "waiting for process 0 of this run at 127.0.0.1:1 took more than 1 s: start all",
        ),
        (["--num-processes=2"], "`num_processes` and `process_id` need `coordinator`"),
        (["--devices=3"], "`num_envs` is 8, but it must be a multiple of the 3 devices"),
    ):
        process = start([*words, *more], tmp_path / "errors")
        assert process.wait(120) == 2
        output = (tmp_path / "errors").read_text()
        assert message in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_a_process_says_what_it_waits_for_and_gives_up(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "SILENT_SECONDS", 0.01)
    connected = threading.Event()
    with pytest.raises(TimeoutError, match="^waiting for process 0 took more than 0.1 s$"):
        distributed._call(connected.wait, 0.1, "waiting for process 0")
    waiting = "waiting for process 0, at most 0.1 s (--wait-seconds)\n"
    assert capsys.readouterr().err == waiting
    connected.set()
    distributed._call(connected.wait, 10.0, "waiting for process 0")
    assert capsys.readouterr().err == ""

    def fail():
        raise RuntimeError("no address")

    with pytest.raises(RuntimeError, match="no address"):
        distributed._call(fail, 10.0, "waiting")


class Store(dict):
    """A key-value store like that of the coordinator, in one process."""

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self[key] = value

    def key_value_try_get(self, key):
        return self[key]


class Exited(BaseException):
    """Raised instead of ending the process."""


@pytest.fixture
def heartbeat(monkeypatch):
    """The heartbeat of process 0 of three, with short timeouts; it runs in this thread."""
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    seconds = {"HEARTBEAT_SECONDS": 0.01, "TIMEOUT_SECONDS": 0.3, "STALL_SECONDS": 0.6}
    for name, value in seconds.items():
        monkeypatch.setattr(distributed, name, value)
    heartbeat = distributed._Heartbeat("To continue: rljax resume here")
    heartbeat._store = Store()

    def exit(reason):
        raise Exited(reason)

    monkeypatch.setattr(heartbeat, "_exit", exit)
    monkeypatch.setattr(heartbeat, "progress", 7)
    return heartbeat


class Peer:
    """Another process, which sends a heartbeat whenever its message is read."""

    def __init__(self, heartbeat, process, *, lost_after=10**9, stalls_at=10**9):
        self.heartbeat, self.key, self.count = heartbeat, f"rljax/{process}", 0
        self.lost_after, self.stalls_at = lost_after, stalls_at

    def send(self):
        self.count += 1
        if self.count < self.lost_after:
            progress = min(self.heartbeat.progress, self.stalls_at)
            self.heartbeat._store[self.key] = f"{self.count} {progress}"


def exit_reason(heartbeat, *peers):
    """Runs the heartbeat until it ends the process, and returns the reason."""
    receive = heartbeat._receive

    def send_then_receive(process):
        peers[process - 1].send()
        return receive(process)

    heartbeat._receive = send_then_receive
    with pytest.raises(Exited) as exited:
        heartbeat.run()
    return str(exited.value)


def test_a_process_without_heartbeats_is_lost(heartbeat):
    reason = exit_reason(heartbeat, Peer(heartbeat, 1), Peer(heartbeat, 2, lost_after=5))
    assert reason.startswith("process 2 of 3 sent no heartbeat for")


def test_a_process_without_progress_is_stalled(heartbeat):
    reason = exit_reason(heartbeat, Peer(heartbeat, 1, stalls_at=6), Peer(heartbeat, 2))
    assert reason.startswith("process 1 of 3 is alive but has made no progress for")


def test_the_error_of_a_failed_process_is_reported(heartbeat):
    heartbeat._store["rljax/2"] = "failed: ValueError: too large"
    reason = exit_reason(heartbeat, Peer(heartbeat, 1), Peer(heartbeat, 2, lost_after=0))
    assert reason == "process 2 failed: ValueError: too large"


def test_finished_processes_need_no_heartbeat(heartbeat):
    heartbeat._store |= {"rljax/1": "finished", "rljax/2": "finished"}
    heartbeat.start()
    time.sleep(1.0)
    assert heartbeat.is_alive()
    heartbeat.stop("finished")
    heartbeat.join(5)
    assert not heartbeat.is_alive()
    assert heartbeat._store["rljax/0"] == "finished"


def test_no_heartbeat_follows_the_final_message(heartbeat, monkeypatch):
    """The main thread finishes while the other thread is about to send."""
    heartbeat._store |= {"rljax/1": "finished", "rljax/2": "finished"}
    is_sending, messages = threading.Event(), []

    def slow_send(message):
        if message != "finished":
            is_sending.set()
            time.sleep(0.2)
        messages.append(message)

    monkeypatch.setattr(heartbeat, "_send", slow_send)
    heartbeat.start()
    assert is_sending.wait(5)
    heartbeat.stop("finished")
    heartbeat.join(5)
    assert messages[-1] == "finished"
