"""Seeds above 32 bits: each has its own run, everywhere that a seed is given."""

import jax
import numpy as np
import pytest

import rljax
from rljax.experiment.make_plan import MAX_SEEDS, make_plan
from rljax.experiment.play import play
from rljax.rendering.watch import watch

BIG = 2**32  # equal to 0 modulo 2^32


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "run"
    rljax.train(
        "q_learning", "rljax/Maze", total_timesteps=64, num_envs=2, num_steps=8, seed=BIG,
        run_dir=path, eval_episodes=0, progress=False,
    )  # fmt: skip
    return path


def test_seeds_that_are_equal_modulo_2_to_the_32_give_different_runs(run_dir):
    def keys(seed):
        inits = make_plan("q_learning", "rljax/Maze", num_seeds=2, seed=seed).run_inits()
        return jax.random.key_data(inits.key).tolist()

    assert len({str(keys(seed)) for seed in (0, BIG, 2 * BIG, BIG + 1, 2**63 - 1)}) == 5
    assert keys(7) == [
        jax.random.key_data(jax.random.fold_in(jax.random.key(7), i)).tolist() for i in range(2)
    ]
    assert rljax.load_states(run_dir)[0].seed == BIG  # config.toml holds it without loss


def test_evaluation_takes_large_seeds_and_refuses_others(run_dir):
    small, big = (
        rljax.evaluate(run_dir, 20, seed=seed, greedy=False)["lengths"] for seed in (0, BIG)
    )
    assert not np.array_equal(small, big)
    for seed in (-1, 2**63, 2**64):
        with pytest.raises(ValueError, match=f"`seed` is {seed}, but it must be at"):
            rljax.evaluate(run_dir, 2, seed=seed)


@pytest.mark.parametrize("use", [watch, play])
def test_watch_and_play_refuse_seeds_out_of_range(use, run_dir):
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=f"`seed` is {seed}, but it must be at"):
            use(run_dir, seed=seed)


def test_training_refuses_seeds_and_numbers_of_seeds_out_of_range():
    for name, most in (("seed", 2**63 - 1), ("num_seeds", MAX_SEEDS)):
        for value in (most + 1, 2**64, 10**12 if name == "num_seeds" else 10**30):
            with pytest.raises(ValueError, match=f"`{name}` is {value}, but it must be at most"):
                make_plan("ppo", "CartPole-v1", **{name: value})
