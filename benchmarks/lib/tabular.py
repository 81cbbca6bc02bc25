"""Helpers of sutton_barto.py: many runs in one compiled call, and judged quantities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from lib.harness import Table

from rljax.agents import AGENTS
from rljax.envs import build
from rljax.training.episodes import Episodes, learn_episodes
from rljax.training.evaluate import evaluate
from rljax.training.learner import make_learner


class Quantity(NamedTuple):
    """A measured quantity and the range of its mean.

    Attributes:
      name: what is measured.
      values: one per run, or a single number.
      low, high: range of the mean; infinite where it is not judged.
      source: origin of the expected value.
    """

    name: str
    values: Any
    low: float = -np.inf
    high: float = np.inf
    source: str = ""


def about(name: str, values: Any, expected: float, tolerance: float, source: str = "") -> Quantity:
    """Returns a quantity whose mean must be `expected` up to `tolerance`."""
    return Quantity(name, values, expected - tolerance, expected + tolerance, source)


def judge(study: str, quantity: Quantity, table: Table) -> bool:
    """Adds a row to the table. Returns whether the mean is out of its range."""
    values = np.asarray(quantity.values, np.float64).ravel()
    mean, error = values.mean(), values.std() / np.sqrt(len(values))
    bounds = ["" if np.isinf(x) else f"{x:g}" for x in (quantity.low, quantity.high)]
    is_judged = bounds != ["", ""]
    passed = quantity.low <= mean <= quantity.high
    verdict = ("pass" if passed else "FAIL") if is_judged else ""
    shown_error = f"{error:.2g}" if len(values) > 1 else ""
    name = f"{study}: {quantity.name}"
    table.add(name, f"{mean:.6g}", shown_error, *bounds, verdict, quantity.source)
    return is_judged and not passed


def make(name: str, env_id: str, env_params: Any = None, **options: Any) -> tuple[Any, Any, Any]:
    """Returns an agent, its environment and their learner, with one step per update."""
    row = AGENTS[name]
    env = build(env_id, 1, **(env_params or {}))
    agent = row.make(row.config(**{"total_timesteps": 10**7} | options), env.spec)
    return agent, env, make_learner(agent, env, 1)


def learn(
    name: str, env_id: str, num_runs: int, num_episodes: int, *,
    record: Callable[[Any], Any] = lambda state: (), **options: Any,
) -> Episodes:  # fmt: skip
    """Returns the first training episodes of many runs, computed in one compiled call."""
    *_, learner = make(name, env_id, **options)
    keys = jax.random.split(jax.random.key(0), num_runs)
    run = jax.jit(lambda keys: learn_episodes(learner, keys, num_episodes, record=record))
    episodes = run(keys)
    assert (episodes.num_finished >= num_episodes).all()
    return episodes


def greedy_returns(
    name: str, env_id: str, state: Any, *, num_episodes: int = 1, max_steps: int | None = None,
    **options: Any,
) -> np.ndarray:  # fmt: skip
    """Returns the mean return of greedy episodes with the final table of each run, `[R]`."""
    agent, env, _ = make(name, env_id, **options)
    keys = jax.random.split(jax.random.key(1), len(state.num_updates))

    def mean_return(state, key):
        return evaluate(agent, env, state, key, num_episodes, max_steps).returns.mean()

    return np.asarray(jax.jit(jax.vmap(mean_return))(state.agent, keys))
