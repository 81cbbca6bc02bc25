"""How the agents that learn action values act: by the best one, and now and then by any."""

from collections.abc import Callable
from typing import Any

import jax

from rljax.agents.actor_critic import Acting
from rljax.ops import td
from rljax.types import Array, EnvSpec, drawn


def check_discrete(name: str, spec: EnvSpec) -> None:
    """That actions can be numbered.

    Raises:
      ValueError: they are continuous.
    """
    if not spec.num_actions:
        raise ValueError(
            f"{name} needs discrete actions, but those of {spec.env_id} are continuous: take an "
            "agent that has a policy, such as ppo."
        )


def acting(config: Any, spec: EnvSpec, values_of: Callable[..., Array]) -> Acting:
    """Acts epsilon-greedily by `values_of(params, obs, key) -> values[B, A]`.

    Epsilon falls with the state's `env_steps`; ties go to each of the best alike. Where
    `config.noisy`, there is no epsilon, and the key is that of the network's noise; otherwise, and
    for `greedy`, it is None. Remembers the largest value of each observation.
    """
    noisy = getattr(config, "noisy", False)

    def draw(key, num_steps):
        explore_key, order_key, noise_key = jax.random.split(key, 3)
        shape = (num_steps, spec.num_envs)
        explore = jax.random.uniform(explore_key, shape)
        order = jax.random.uniform(order_key, (*shape, spec.num_actions))
        return explore, order, jax.random.split(noise_key, num_steps) if noisy else None

    def act(state, obs, key):
        explore, order, noise_key = drawn(draw, key)
        values = values_of(state.params, obs, noise_key)
        epsilon = 0.0 if noisy else td.epsilon_schedule(
            state.env_steps.value, config.eps_start, config.eps_end,
            config.exploration_fraction * config.total_timesteps,
        )  # fmt: skip
        return td.epsilon_greedy(values, epsilon, explore, order), {"value": values.max(axis=-1)}

    def greedy(state, obs, key):
        del key
        return values_of(state.params, obs, None).argmax(axis=-1)

    return Acting(draw, act, greedy)
