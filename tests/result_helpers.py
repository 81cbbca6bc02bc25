"""Results of artificial numbers, for the tests of their texts, figures and files."""

import dataclasses

import numpy as np

from rljax.results.result import Best, Result

RETURN = "charts/episodic_return"
EVALUATED = "eval/episodic_return"
POINTS = 12


def make(
    agent="ppo", env_id="CartPole-v1", num_seeds=4, sweep=None, seed=0, level=400.0, **changes
):
    """Returns a result of artificial numbers; `changes` are added to its config."""
    sweep = sweep or {}
    lead = (*(len(values) for values in sweep.values()), num_seeds)
    rng = np.random.default_rng([seed, num_seeds])
    rise = np.linspace(0.1, 1.0, POINTS)
    metrics = {
        RETURN: (level * rise + rng.normal(size=(*lead, POINTS))).astype(np.float32),
        "losses/kl": rng.random((*lead, POINTS)),
    }
    evaluation = {
        "returns": (level + rng.normal(size=(*lead, 5))).astype(np.float32),
        "lengths": rng.integers(1, 500, (*lead, 5)).astype(np.int32),
        "unfinished": np.zeros(lead, np.int32),
    }
    config = {"learning_rate": 1e-3, "gamma": 0.99, "hidden_sizes": [64, 64], **changes, **sweep}
    config |= {"seed": seed, "num_seeds": num_seeds}  # as in a run directory
    steps = np.arange(1, POINTS + 1) * 10_000
    return Result(
        agent, env_id, config, sweep, num_seeds, seed, steps, metrics, evaluation,
        state=("state",), params={"w": np.ones(lead)}, compile_seconds=4.12, seconds=9.1,
    )  # fmt: skip


def with_returns(result, returns, **changes):
    metrics = {**result.metrics, RETURN: np.asarray(returns)}
    return dataclasses.replace(result, metrics=metrics, **changes)


SWEEP = {"learning_rate": [1e-4, 3e-4, 1e-3]}
GRID = {"learning_rate": [1e-4, 1e-3], "gamma": [0.9, 0.99]}


def with_best(result, episodes=5):
    """Returns a result with an evaluation during training at every other report, and its best."""
    rng = np.random.default_rng(result.seed)
    lead = np.shape(result.returns)[:-1]
    evaluated = result.returns + 50.0
    evaluated[..., ::2] = np.nan
    best = Best(
        step=rng.choice(result.steps, lead),
        returns=np.float32(450 + rng.normal(size=(*lead, episodes))),
        lengths=rng.integers(1, 500, (*lead, episodes)).astype(np.int32),
        state=("state",),
    )
    metrics = {**result.metrics, EVALUATED: evaluated}
    return dataclasses.replace(result, metrics=metrics, best=best)
