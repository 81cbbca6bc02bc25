"""Agents with replay in programs of many runs: no copies of the buffer, and exact resumption."""

import pytest
from probes import bits, walk
from replay_helpers import sizes_in_programs

import rljax
from rljax.experiment import checkpoint
from rljax.experiment.make_plan import make_plan
from rljax.training import parallel, runs

pytestmark = pytest.mark.usefixtures("quick_compiles")

CAPACITY, NUM_RUNS = 977, 3


def plan_of_three_runs():
    options = {
        "num_envs": 2, "num_steps": 3, "total_timesteps": 600, "hidden_sizes": (5,), "gamma": 0.9,
        "buffer_size": CAPACITY, "batch_size": 6, "learning_starts": 12, "train_frequency": 6,
        "target_update_interval": 6, "tau": 0.25, "max_grad_norm": 0.3, "double": True,
        "prioritized": True, "n_step": 2, "learning_rate": [0.001, 0.01, 0.03],
    }  # fmt: skip
    return make_plan("dqn", walk(), **options)


def test_no_cond_and_no_copy_of_the_ring_in_a_program_of_many_runs():
    """In a program that starts with `init`, and in one that starts with the states of runs."""
    plan = plan_of_three_runs()
    for sizes in sizes_in_programs(plan, NUM_RUNS):
        names = [name for name, _ in sizes]
        assert "cond" not in names and "while" in names and "scatter" in names
        assert max(size for _, size in sizes) >= NUM_RUNS * CAPACITY  # the ring is among them
        selects = [size for name, size in sizes if name == "select_n"]
        assert selects and max(selects) < CAPACITY


def test_many_runs_resume_bit_for_bit(tmp_path):
    """With rings, trees and counters, through a checkpoint file."""
    plan = plan_of_three_runs()

    def new_runs():
        placement = parallel.place(plan.num_runs, 1)
        make, inits = plan.make_learner(), plan.run_inits()
        return runs.Runs(make, plan.config, inits, placement, cache_key="test_dqn")

    uninterrupted = new_runs()
    uninterrupted.advance(9)
    first = new_runs()
    first.advance(4)
    path = checkpoint.save(tmp_path, first.snapshot(), {}, step=4)
    template = runs.template(plan.make_learner(), plan.config, plan.run_inits())
    second = new_runs()
    second.restore(checkpoint.load(path, template)[0])
    second.advance(5)
    assert bits(second.snapshot()) == bits(uninterrupted.snapshot())


SMALL_RUN = {
    "num_envs": 2, "total_timesteps": 400, "buffer_size": 200, "batch_size": 8,
    "learning_starts": 32, "hidden_sizes": (4,), "progress": False, "eval_episodes": 0,
    "env_params": {"max_episode_steps": 20},
}  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "env_id", "options"),
    [
        ("dqn", "CartPole-v1", {"double": True, "dueling": True}),
        ("td3", "Pendulum-v1", {"noise": "ornstein_uhlenbeck"}),
    ],
)
def test_train_and_resume_give_the_same_bits(agent, env_id, options, tmp_path):
    options = options | {"prioritized": True, "n_step": 3} | SMALL_RUN
    uninterrupted = rljax.train(agent, env_id, num_seeds=2, **options)

    saved = rljax.train(agent, env_id, num_seeds=2, run_dir=tmp_path, save_seconds=0.0, **options)
    assert bits(saved.state) == bits(uninterrupted.state)
    for path in (tmp_path / "result.json", checkpoint.checkpoints(tmp_path / "checkpoint")[0]):
        path.unlink()  # as if it had been killed before the last checkpoint
    resumed = rljax.resume(tmp_path, progress=False, eval_episodes=0)
    assert bits(resumed.state) == bits(uninterrupted.state)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("Pendulum-v1", {}, "needs discrete actions"),
        ("CartPole-v1", {"buffer_size": 2**31 - 1}, "`buffer_size` is 2,147,483,647"),
        ("CartPole-v1", {"buffer_size": 32}, "`buffer_size` is 32"),
        (
            "CartPole-v1",
            {"learning_starts": 60_000, "buffer_size": 50_000},
            "`learning_starts` is 60000",
        ),
        (
            "CartPole-v1",
            {"total_timesteps": 500, "learning_starts": 1000},
            "`learning_starts` is 1000",
        ),
        ("CartPole-v1", {"loss": "hubert"}, "did you mean 'huber'"),
    ],
)
def test_bad_input_is_rejected_in_one_sentence_before_compiling(env, options, message):
    with pytest.raises(ValueError) as error:
        rljax.train("dqn", env, progress=False, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
