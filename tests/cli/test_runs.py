"""`rljax list RUNS_DIR` and `rljax compare`: what they print."""

import subprocess
import sys

import numpy as np
import pytest
from result_helpers import SWEEP, make, with_returns

from rljax.__main__ import main
from rljax.experiment.json_lines import JsonLines
from rljax.results import compare, statistics

CONFIG = 'agent = "ppo"\nenv_id = "CartPole-v1"\nnum_seeds = 3\ntotal_timesteps = 2_000_000\n'


def unfinished(directory, rows):
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text(CONFIG)
    lines = JsonLines(directory / "metrics.jsonl", rows)
    lines.close()


def returns(*values):
    return {"charts/episodic_return": np.float32(values)}


@pytest.fixture
def runs(tmp_path, monkeypatch, capsys):
    """A directory with runs of every kind; the working directory is its parent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    directory = tmp_path / "runs"
    make(level=300.0).save(directory / "slow")
    make("dqn", level=400.0, name="double").save(directory / "fast")
    make(env_id="Acrobot-v1", sweep=SWEEP, num_seeds=2, level=-90.0).save(directory / "sweep")
    unfinished(directory / "cut", [(1000, returns(1, 1, 1)), (40_000, returns(310, 320, 330))])
    unfinished(directory / "new", [])
    make().save(directory / "bad")
    (directory / "bad" / "curves.npz").write_bytes(b"")
    (directory / "figures").mkdir()
    (directory / "curve.png").write_bytes(b"")

    def run(*words):
        code = main(words)
        return code, capsys.readouterr()

    return run


def test_the_table_of_runs(runs):
    code, out = runs("list", "runs")
    head, *lines = out.out.splitlines()
    assert code == 0
    assert head.split() == [
        "run", "agent", "environment", "seeds", "steps", "return", "seconds", "state"
    ]  # fmt: skip
    # by environment, then by return
    assert [line.split()[0] for line in lines[:5]] == ["sweep", "fast", "cut", "slow", "new"]
    assert " ppo " in lines[0] and " Acrobot-v1 " in lines[0] and " 2 x 3 settings " in lines[0]
    fast = statistics.describe(make("dqn", level=400.0).returns[:, -1])
    assert lines[1].split()[1:3] == ["double", "CartPole-v1"]
    assert fast in lines[1] and lines[1].endswith("  9        complete")
    cut = statistics.describe([310, 320, 330])
    assert f" 2M     {cut}" in lines[2] and lines[2].endswith("  -        unfinished at 40k steps")
    assert lines[4].endswith("unfinished at 0 steps")
    assert "not a run: runs/figures" in lines
    assert lines[-2].startswith("skipped: runs/bad/curves.npz is damaged")


def test_single_runs_and_directories_are_listed_together(runs):
    _, out = runs("list", "runs/slow", "runs/fast", "runs/figures")
    assert [line.split()[0] for line in out.out.splitlines()[1:3]] == ["fast", "slow"]
    assert out.out.splitlines()[-1] == "not a run: runs/figures"


def test_the_return_of_a_sweep_is_that_of_its_best_setting(runs, tmp_path):
    values = np.array([[1.0, 1.0], [7.0, 9.0], [2.0, 2.0]])[..., None].repeat(12, -1)
    result = with_returns(make(sweep=SWEEP, num_seeds=2), values, evaluation=None)
    result.save(tmp_path / "one" / "run")
    _, out = runs("list", "one")
    assert "  8 [7, 9]  " in out.out


def test_a_directory_without_runs_is_an_error(runs):
    code, out = runs("list", "runs/figures")
    assert code == 2
    assert out.err == (
        "error: there is no run in runs/figures: give a directory of runs, or a suite.\n"
    )


def test_listing_runs_needs_no_jax(runs):
    code = (
        "import sys; from rljax.__main__ import main; main(['list', 'runs']);"
        "sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_compare_prints_the_comparison_and_draws_it(runs, tmp_path):
    words = ("compare", "runs/fast", "runs/slow", "--low", "-100", "--high", "500", "-o", "all.svg")
    code, out = runs(*words)
    expected = compare(tmp_path / "runs" / "fast", tmp_path / "runs" / "slow", low=-100, high=500)
    assert (code, out.out) == (0, f"{expected}\nall.svg\n")
    assert (tmp_path / "all.svg").is_file()
    code, out = runs("compare", "runs/fast", "runs/slow", "runs/sweep", "--low", "0")
    assert (code, out.err.split(":")[1]) == (2, " no environment is common to all algorithms")


def test_compare_of_several_environments_asks_for_bounds(runs, tmp_path):
    make("ppo", "Acrobot-v1").save(tmp_path / "a")
    make("dqn", "Acrobot-v1", name="double").save(tmp_path / "b")
    _, out = runs("compare", "runs/fast", "runs/slow", "a", "b")
    assert out.out.endswith(
        "\nnormalized scores need --low and --high, or rljax.compare in Python\n"
    )
    code, out = runs("compare", "runs/cut")
    assert code == 2 and "there is no file runs/cut/result.json" in out.err
