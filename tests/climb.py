"""An agent whose policy follows a known line, so that all its evaluations are known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from probes import ARM, TARGET, probe

from rljax.config import RunConfig, config, option
from rljax.types import Agent

ENV = probe(ARM, 1, continuous=True)  # one step; the return is -|action - TARGET|


@config
class ClimbConfig(RunConfig):
    num_envs: int = option(2, "number of parallel environments", low=1)
    num_steps: int = option(4, "rollout length per environment", low=1)
    total_timesteps: int = option(160, "environment steps of the whole run", low=1)
    rate: float = option(0.1, "increase of the action in each update")
    until: float = option(1e9, "number of updates after which the parameters are NaN")
    copies: int = option(1, "number of unused parameters", low=1)


class ClimbState(NamedTuple):
    params: Any
    target: Any
    memory: Any  # which acting does not use


def climb(config, spec, *, start=None) -> Agent:
    """The action is `x`, which starts at `start(key)`, in [-1, 0], and increases in each update."""
    start = start or (lambda key: jax.random.uniform(key, minval=-1.0, maxval=0.0))

    def init(key):
        params = {"x": start(key), "unused": jnp.zeros(config.copies)}
        return ClimbState(params, params, jnp.zeros((1000,)))

    def greedy(state, obs, key):
        return jnp.broadcast_to(state.params["x"], (len(obs), 1))

    def act(state, obs, noise):
        return greedy(state, obs, noise), ()

    def update(state, trajectory, key):
        x = state.params["x"] + config.rate
        x = jnp.where(x > config.until, jnp.nan, x)
        return state._replace(params=state.params | {"x": x}), {"losses/x": x}

    return Agent(init, act, greedy, update)


CLIMB = (ClimbConfig, climb)


def starts(run) -> np.ndarray:
    """Returns the first action of each run, `[*sweep, seeds]`."""
    first = run.metric("losses/x")  # means over the updates of a report
    rates = np.array([setting.get("rate", 0.1) for setting in run.settings])
    rates = rates.reshape(*first.shape[:-2], 1)
    per_report = 20 / first.shape[-1]
    return first[..., 0] - rates * (per_report + 1) / 2


def expected(run, rates) -> np.ndarray:
    """Returns the return of the policy after each report, `[*sweep, seeds, P]`."""
    updates = run.steps / 8
    x = starts(run)[..., None] + np.asarray(rates, np.float32)[..., None, None] * updates
    return -np.abs(x - TARGET)
