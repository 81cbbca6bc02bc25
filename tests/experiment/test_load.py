"""`rljax.load`: the result of a run with its states."""

import jax
import numpy as np
import pytest
from probes import DriftConfig, bits, drift

import rljax
from rljax.__main__ import main
from rljax.envs import make

pytestmark = pytest.mark.usefixtures("quick_compiles")
OPTIONS = {
    "total_timesteps": 800, "num_envs": 2, "num_reports": 4, "eval_episodes": 3, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("load") / "run"
    run = rljax.train(
        "q_learning", "rljax/Maze", num_seeds=2, learning_rate=[0.1, 0.5], eval_interval=400,
        run_dir=run_dir, **OPTIONS,
    )  # fmt: skip
    return run, run_dir


def assert_same_result(loaded, run):
    """Asserts that two results have the same curves, states and best policies, bit for bit."""
    np.testing.assert_array_equal(loaded.steps, run.steps)
    assert bits(loaded.metrics) == bits(run.metrics)
    assert bits(loaded.state) == bits(run.state)
    assert bits(loaded.params) == bits(run.params)
    assert bits(loaded.best.state) == bits(run.best.state)
    assert loaded.sweep == run.sweep and loaded.plan.agent == run.plan.agent


def test_a_complete_run_is_loaded_with_its_states(complete):
    run, run_dir = complete
    loaded = rljax.load(run_dir)
    assert_same_result(loaded, run)
    assert bits(loaded.evaluation) == bits(run.evaluation)
    assert bits(loaded.best) == bits(run.best)
    states = np.arange(16)
    for best in (False, True):
        own, again = (x.policy(1, 1, best=best) for x in (run, loaded))
        np.testing.assert_array_equal(own(states), again(states))


def test_a_result_that_is_damaged_or_missing_comes_from_the_checkpoint(complete, tmp_path):
    run, run_dir = complete
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.toml").write_bytes((run_dir / "config.toml").read_bytes())
    (copy / "checkpoint").symlink_to(run_dir / "checkpoint")
    loaded = rljax.load(copy)
    assert_same_result(loaded, run)
    assert loaded.evaluation is None and loaded.best.returns.shape == (2, 2, 0)
    np.testing.assert_array_equal(loaded.best.step, run.best.step)
    (copy / "result.json").write_text("{")
    with pytest.warns(UserWarning, match="the result is that of the last checkpoint"):
        assert_same_result(rljax.load(copy), run)


def test_an_interrupted_run_is_loaded_up_to_its_checkpoint(tmp_path):
    """The curves are those of the first half of a run; the policy acts."""

    class Stop(Exception):
        pass

    def stop(report):
        if report.step >= 400:
            raise Stop

    with pytest.raises(Stop):
        rljax.train("q_learning", "rljax/Maze", run_dir=tmp_path / "run", on_report=stop, **OPTIONS)
    whole = rljax.train("q_learning", "rljax/Maze", **OPTIONS)
    loaded = rljax.load(tmp_path / "run")
    assert loaded.steps.tolist() == whole.steps[:2].tolist() == [200, 400]
    assert bits(loaded.returns) == bits(whole.returns[:, :2])
    assert loaded.evaluation is None and loaded.seconds > 0
    assert int(loaded.state.num_updates[0]) * 2 == 400
    assert loaded.policy()(0) in range(4)


def test_own_pieces_are_given_again(tmp_path):
    """The environment, the agent and a piece of it; without them one sentence names what lacks."""
    env = make("rljax/Treasure")
    options = OPTIONS | {"eval_episodes": 0}
    agent = DriftConfig, drift
    run = rljax.train(
        agent, env, run_dir=tmp_path / "run", initial_weights=jax.random.uniform, **options
    )
    with pytest.raises(ValueError, match="made with its own `agent`.*pass `agent=` again"):
        rljax.load(tmp_path / "run", env=env, initial_weights=jax.random.uniform)
    with pytest.raises(ValueError, match="made with its own `env`"):
        rljax.load(tmp_path / "run", agent=agent, initial_weights=jax.random.uniform)
    loaded = rljax.load(tmp_path / "run", env=env, agent=agent, initial_weights=jax.random.uniform)
    assert bits(loaded.state) == bits(run.state)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no run in"):
        rljax.load(tmp_path)


def test_settings_of_several_programs_are_loaded_with_their_policies(tmp_path):
    """`hidden_sizes` needs a program for each value; a policy is that of its setting."""
    settings = [
        {"hidden_sizes": (4,), "gamma": 0.9}, {"hidden_sizes": (8,), "gamma": 0.9},
        {"hidden_sizes": (4,), "gamma": 0.8},
    ]  # fmt: skip
    options = OPTIONS | {"eval_episodes": 0, "buffer_size": 64, "batch_size": 4}
    run = rljax.train(
        "dqn", "CartPole-v1", settings=settings, num_seeds=2, learning_starts=16,
        run_dir=tmp_path / "run", **options,
    )  # fmt: skip
    loaded = rljax.load(tmp_path / "run")
    assert bits(loaded.metrics) == bits(run.metrics) and len(loaded.parts) == 2
    name = "learned/params/params/value/kernel"
    kernels = [[loaded.policy(i, seed).params[name] for seed in (0, 1)] for i in range(3)]
    sizes = [len(kernel) for row in kernels for kernel in row]
    assert sizes == [4, 4, 8, 8, 4, 4]
    assert len({kernel.tobytes() for row in kernels for kernel in row}) == 6
    own = run.policy(2, 1).params[name]
    np.testing.assert_array_equal(own, kernels[2][1])
    first = run.parts[0].params["params"]["value"]["kernel"]  # settings 0 and 2
    np.testing.assert_array_equal(own, first[1, 1])
    with pytest.raises(ValueError, match="`setting` is 3, but the run has 3 settings"):
        run.policy(3)


def test_the_best_policies_are_evaluated_and_exported(complete, tmp_path, capsys):
    run, run_dir = complete
    for source in (run, run_dir):  # in the environments of the evaluation after training
        best = rljax.evaluate(source, num_episodes=3, best=True)
        np.testing.assert_array_equal(best["returns"], run.best.returns)
    with pytest.raises(ValueError, match="kept for greedy actions alone"):
        rljax.evaluate(run, best=True, greedy=False)
    pytest.importorskip("flatbuffers")
    words = ["export", str(run_dir), "--setting", "1", "--seed", "1", "--best", "-o"]
    assert not main([*words, str(tmp_path / "policy")])
    shown = capsys.readouterr().out
    assert "q_learning on rljax/Maze, learning_rate 0.5, seed 1" in shown
    assert "action = policy.call(obs, seed)" in shown
    with np.load(tmp_path / "policy" / "params.npz") as params:
        np.testing.assert_array_equal(params["params/q"], run.best.state.params.q[1, 1])
