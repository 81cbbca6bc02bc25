"""How the agents that learn action values act: by the best one, and now and then by any."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rljax.ops import td
from rljax.types import Array, EnvSpec, PyTree


class Acting(NamedTuple):
    """How an agent acts: the fields `sample_noise`, `act` and `greedy` of `types.Agent`."""

    sample_noise: Callable[..., PyTree]
    act: Callable[..., tuple[Array, PyTree]]
    greedy: Callable[..., Array]


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
    """Acts epsilon-greedily by `values_of(state, obs, key) -> values[B, A]`.

    Epsilon falls with the state's `env_steps`; ties go to each of the best alike. Where
    `config.noisy`, there is no epsilon, and the key is that of the network's noise; otherwise, and
    for `greedy`, it is None. Remembers the largest value of each observation.
    """
    noisy = getattr(config, "noisy", False)

    def sample_noise(key, num_steps):
        noise_keys = None
        if noisy:
            key, noise_key = jax.random.split(key)
            noise_keys = jax.random.split(noise_key, num_steps)
        return jax.random.uniform(key, (num_steps, spec.num_envs, spec.num_actions + 1)), noise_keys

    def act(state, obs, noise):
        uniform, noise_key = noise
        values = values_of(state, obs, noise_key)
        epsilon = 0.0 if noisy else td.epsilon_schedule(
            state.env_steps.value, config.eps_start, config.eps_end,
            config.exploration_fraction * config.total_timesteps,
        )  # fmt: skip
        action = td.epsilon_greedy(values, epsilon, uniform[..., 0], uniform[..., 1:])
        return action, {"value": values.max(axis=-1)}

    def greedy(state, obs, key):
        del key
        return values_of(state, obs, None).argmax(axis=-1)

    return Acting(sample_noise, act, greedy)
