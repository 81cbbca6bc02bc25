"""`rljax watch`: text in the terminal, the GIF, the value table and its figure."""

import dataclasses
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rljax
from rljax import envs
from rljax.experiment.make_plan import make_plan
from rljax.rendering import videos, watch
from rljax.types import Env, EnvSpec, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def treasure(tmp_path_factory):
    """The directory of runs of value iteration with two settings and two seeds."""
    path = tmp_path_factory.mktemp("runs") / "treasure"
    rljax.train(
        "value_iteration", "rljax/Treasure", run_dir=path, num_seeds=2, gamma=[0.5, 0.9],
        total_timesteps=320, num_reports=5, eval_episodes=0, progress=False,
    )  # fmt: skip
    return path


def test_a_text_world_is_printed_with_its_value_table(treasure, capsys, monkeypatch):
    delays = []
    monkeypatch.setattr(watch.time, "sleep", delays.append)
    path = watch.watch(treasure, run=2, show_text=True)
    lines = re.sub(r"\x1b\[\d+A\x1b\[J", "", capsys.readouterr().out).splitlines()
    assert lines[:6] == ["o----T", "-o---T", "--o--T", "---o-T", "----oT", "-----o"]
    assert lines[6] == "Episode 1: total_steps = 5"
    assert lines[7] == "gamma 0.9, seed 0: return 1, episode ended after 5 steps"
    assert lines[8] == str(treasure / "watch.gif") == str(path)
    assert lines[10] == "state     left    right"
    assert lines[11].split() == ["0", "0.590", "0.656", "→"]
    assert lines[-1] == str(treasure / "watch.png")
    np.testing.assert_allclose(delays, 0.3, atol=0.04)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (6, (432, 96))
    with Image.open(treasure / "watch.png") as figure:
        assert figure.size[0] > 4 * figure.size[1]


def test_each_run_shows_its_own_table(treasure, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    watch.watch(treasure, run=0, show_text=True, output=tmp_path / "a.gif")
    assert "    0    0.031    0.062  →" in capsys.readouterr().out
    assert (tmp_path / "a.png").is_file() and (tmp_path / "a.gif").is_file()


def test_without_a_terminal_no_text_is_printed(treasure, capsys):
    watch.watch(treasure, max_steps=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gamma 0.5, seed 0: return 0, episode not finished after 3 steps"
    assert len(lines) == 3


def test_a_table_that_does_not_fit_the_grid_is_not_shown(tmp_path, capsys, monkeypatch):
    """All states of the corridor share one observation: one row in the table, four cells."""
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    rljax.train(
        "q_learning", "rljax/ShortCorridor", run_dir=tmp_path / "run", total_timesteps=50,
        num_reports=1, eval_episodes=0, progress=False,
    )  # fmt: skip
    watch.watch(tmp_path / "run", max_steps=5, show_text=True)
    assert capsys.readouterr().out.startswith("o<-G\n")
    assert (tmp_path / "run" / "watch.gif").is_file()
    assert not (tmp_path / "run" / "watch.png").exists()


def test_training_ends_with_an_episode_only_on_terminals_and_in_text_worlds(
    treasure, capsys, monkeypatch
):
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    plan = make_plan("value_iteration", "rljax/Treasure", total_timesteps=320)
    watch.watch_after_training(plan, treasure)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    watch.watch_after_training(make_plan("ppo", "CartPole-v1"), treasure)
    assert capsys.readouterr().out == ""
    watch.watch_after_training(plan, treasure)
    assert "Episode 1: total_steps = 5" in capsys.readouterr().out


SHORT = {"eval_episodes": 0, "progress": False, "num_reports": 1}


def test_the_maze_of_a_gymnax_task_is_text_and_the_last_state_is_shown(tmp_path, capsys):
    rljax.train(
        "q_learning", "FrozenLake-misc", run_dir=tmp_path / "run", total_timesteps=40,
        env_params={"is_slippery": False, "map_name": "8x8"}, **SHORT,
    )  # fmt: skip
    path = watch.watch(tmp_path / "run", max_steps=4, show_text=True)
    lines = re.sub(r"\x1b\[\d+A\x1b\[J", "", capsys.readouterr().out).splitlines()
    assert lines[0] == "o-------" and lines[2] == "---X----"
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (5, (480, 504))  # the first state and those after steps


def test_environments_on_the_host_are_drawn_from_their_observations(tmp_path):
    pytest.importorskip("gymnasium")
    rljax.train(
        "dqn", "gymnasium/CartPole-v1", run_dir=tmp_path / "run", total_timesteps=32, num_envs=2,
        hidden_sizes=(4,), buffer_size=64, batch_size=4, learning_starts=8,
        **SHORT,
    )  # fmt: skip
    path = watch.watch(tmp_path / "run", max_steps=3, show_text=False)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (4, (480, 324))


def test_the_users_own_environment_is_drawn_as_bars_without_its_last_state(tmp_path, capsys):
    def reset(key):
        return jnp.int32(0), jnp.zeros(2)

    def step(state, action, key):
        obs = jnp.stack([state + 1.0, action.astype(float)])
        return state + 1, Step(obs, jnp.float32(1), state >= 2, jnp.bool(False), obs)

    env = envs.auto_reset(Env(EnvSpec((2,), num_actions=2, env_id="Mine"), reset, step))
    options = {"num_envs": 2, "num_steps": 4, "hidden_sizes": (4,)}
    rljax.train("a2c", env, run_dir=tmp_path / "run", total_timesteps=16, **options, **SHORT)
    path = watch.watch(tmp_path / "run", env=env)
    assert "return 3, episode ended after 3 steps" in capsys.readouterr().out
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (3, (480, 264))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": 4}, "`run` is 4, but .* has 4 runs. Choose one from 0 to 3."),
        ({"max_steps": 0}, "`max_steps` is 0, but it must be at least 1."),
    ],
)
def test_wrong_options_are_refused(treasure, options, message):
    with pytest.raises(ValueError, match=message):
        watch.watch(treasure, **options)


def test_a_result_gives_frames_or_a_file_of_the_best_policy(tmp_path, monkeypatch, capsys):
    """The policy that is shown is the best one, which always goes left and never arrives."""
    run = rljax.train(
        "q_learning", "rljax/Treasure", total_timesteps=400, eval_interval=200, eval_episodes=2,
        num_reports=2, progress=False, run_dir=tmp_path / "run",
    )  # fmt: skip
    left = jnp.broadcast_to(jnp.array([1.0, 0.0]), run.params.q.shape)
    state = run.best.state._replace(params=run.params._replace(q=left))
    worse = dataclasses.replace(run, best=run.best._replace(state=state))
    frames = watch.watch(worse, best=True, max_steps=9, show_text=False)
    assert "return 0, episode not finished after 9 steps" in capsys.readouterr().out
    assert len(frames) == 10 and frames[0].dtype == np.uint8
    path = watch.watch(tmp_path / "run", best=True, max_steps=9, show_text=False)
    assert path == tmp_path / "run" / "watch.gif"
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        watch.watch(run, output=tmp_path / "a.avi")
    with pytest.raises(ValueError, match="does not exist"):
        watch.watch(run, output=tmp_path / "folder" / "a.gif")
    with pytest.raises(ValueError, match="no best policies: train with `eval_interval`"):
        watch.watch(dataclasses.replace(run, best=None), best=True)


def test_mp4_videos_hold_the_frames(tmp_path, monkeypatch):
    """ffmpeg reads as many frames of the even size, in the colors that were written."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((31, 40, 3), 60 * i, np.uint8) for i in range(5)]
    path = tmp_path / "a.mp4"
    videos.write_animation(frames, path, fps=10)
    command = [ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"h264" in done.stderr and b"40x32" in done.stderr and b"10 fps" in done.stderr
    read = np.frombuffer(done.stdout, np.uint8).reshape(5, 32, 40, 3)
    for frame, written in zip(read, frames, strict=True):
        assert abs(frame.mean() - written.mean()) < 4
    with pytest.raises(ValueError, match="ffmpeg could not write"):
        videos.write_animation([np.zeros((0, 2, 3), np.uint8)], path)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r'pip install "rljax-research\[video\]"'):
        videos.check_animation(path)
