"""A run that is killed or interrupted resumes with the same bits as an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time

import pytest

OPTIONS = [
    "--total-timesteps", "4096", "--num-seeds", "2", "--num-envs", "2", "--num-steps", "16",
    "--update-epochs", "1", "--num-minibatches", "1", "--hidden-sizes", "8", "--num-reports", "16",
]  # fmt: skip
HOW = ["--save-seconds", "0.001", "--eval-episodes", "2", "--no-progress"]


def start(*words):
    environment = os.environ | {"XLA_FLAGS": ""}  # one device, whose cores the seeds share
    command = [sys.executable, "-W", "ignore", "-m", "rljax", *map(str, words), *HOW]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finished(process):
    process.communicate(timeout=600)
    return process.returncode


def wait_for_checkpoint(process, folder):
    """Waits until there is a checkpoint, or the process ends."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if any(folder.glob("checkpoint/*.rljax")):
            return
        time.sleep(0.001)


def files(folder):
    """Returns the bytes of the metrics, the curves and the last checkpoint."""
    last = max(folder.glob("checkpoint/*.rljax"))
    return {
        path.name: path.read_bytes()
        for path in (folder / "metrics.jsonl", folder / "curves.npz", last)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = start("train", "ppo", "CartPole-v1", "--run-dir", folder, *OPTIONS)
    assert finished(process) == 0
    return files(folder)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_stopped_run_resumes_to_the_same_bits(number, code, whole, tmp_path):
    folder = tmp_path / "stopped"
    process = start("train", "ppo", "CartPole-v1", "--run-dir", folder, *OPTIONS)
    wait_for_checkpoint(process, folder)
    process.send_signal(number)
    _, message = process.communicate(timeout=300)
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert f"rljax resume {folder}" in message
    assert not (folder / "result.json").exists()  # it was not complete
    assert finished(start("resume", folder)) == 0
    assert files(folder) == whole


def test_resuming_with_another_config_is_refused_by_name(tmp_path):
    folder = tmp_path / "run"
    process = start("train", "ppo", "CartPole-v1", "--run-dir", folder, *OPTIONS)
    wait_for_checkpoint(process, folder)
    process.kill()
    process.communicate()
    again = start("resume", folder, "--gamma", "0.9", "--clip-eps", "0.3")
    _, message = again.communicate(timeout=300)
    assert again.returncode == 2
    assert "gamma = 0.99" in message
    assert "clip_eps = 0.2" in message
    assert len(message.strip().splitlines()) == 1
