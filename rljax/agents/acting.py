"""How off-policy agents act: epsilon-greedy, and a deterministic policy with added noise."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from rljax.networks import policies
from rljax.ops import random, td
from rljax.types import Array, EnvSpec, PyTree, RecurrentObs, SampleNoise

EXPLORATION_REPEAT_HELP = "steps for which a random action, or the noise of actions, is repeated"


class Acting(NamedTuple):
    """How an agent acts: the fields `sample_noise`, `act` and `greedy` of `types.Agent`."""

    sample_noise: Callable[..., PyTree]
    act: Callable[..., tuple[Any, PyTree]]
    greedy: Callable[..., Any]


def check_discrete(spec: EnvSpec) -> None:
    """Checks that an environment has one discrete action.

    Raises:
      ValueError: the actions are continuous, or several discrete actions at once.
    """
    if isinstance(spec.num_actions, tuple):
        raise ValueError(
            f"action values need one discrete action, but {spec.env_id} has several at once, "
            f"{spec.num_actions}: use an agent with a policy, such as ppo."
        )
    if not spec.num_actions:
        raise ValueError(
            f"action values need discrete actions, but {spec.env_id} has continuous actions: use "
            "an agent with a policy, such as ppo."
        )


def epsilon_greedy(
    config: Any, spec: EnvSpec, q_values: Callable[..., Array],
    network_noise: SampleNoise | None = None,
) -> Acting:  # fmt: skip
    """Acts epsilon-greedily; ties are broken uniformly at random.

    Args:
      config: `eps_start`, `eps_end`, `exploration_fraction`.
      spec: description of the environment.
      q_values: `(state, obs[B], noise) -> [B, A]`; `noise` is one row of `network_noise`, None
        without it and in `greedy`.
      network_noise: `(key, n) -> noise[n, ...]` of a noisy network, which explores instead of
        epsilon.

    Returns:
      An `Acting` for states that have `env_steps`. The extras hold `value`, max_a Q(s, a).
    """

    def sample_noise(key, num_steps):
        noise = None
        if network_noise:
            key, network_key = random.split(key)
            noise = network_noise(network_key, num_steps)
        shape = (num_steps, spec.num_envs, spec.num_actions + 1)
        return random.uniform(key, shape), noise

    def act(state, obs, noise):
        uniform, noise_of_network = noise
        q = q_values(state, obs, noise_of_network)
        epsilon = 0.0 if network_noise else td.epsilon_schedule(
            state.env_steps.value, config.eps_start, config.eps_end,
            config.exploration_fraction * config.total_timesteps,
        )  # fmt: skip
        action = td.epsilon_greedy(q, epsilon, uniform[..., 0], uniform[..., 1:])
        return action, {"value": q.max(axis=-1)}

    def greedy(state, obs, key):
        del key
        return q_values(state, obs, None).argmax(axis=-1)

    return Acting(sample_noise, act, greedy)


class NoiseStep(Protocol):
    def __call__(self, memory: Any, normal: Array, /) -> tuple[Array, Any]:
        """Returns the noise of one step `[B, A]` and the next memory, from standard normals."""
        ...


class ActionNoise(NamedTuple):
    """Exploration noise added to actions in [-1, 1].

    Attributes:
      step: `(memory[B, A], normal[B, A]) -> (noise[B, A], next memory[B, A])`.
      has_memory: the noise depends on earlier steps of the episode. The environment then carries
        the memory (`envs.memory.carry_memory`, zeros of shape `[A]` at the start of an episode).
    """

    step: NoiseStep
    has_memory: bool = False


def noise_repeat(config: Any, noise: ActionNoise) -> int:
    """Returns `Agent.noise_repeat`: noise with a memory is correlated already, and not repeated."""
    return 1 if noise.has_memory else config.exploration_repeat


def check_action_noise(noise: Any) -> ActionNoise:
    """Returns exploration noise; raises a `ValueError` if it is no `ActionNoise`."""
    if not isinstance(noise, ActionNoise):
        raise ValueError(
            f"`action_noise` is {noise!r}, but it must be an `ActionNoise`, such as "
            "`gaussian(0.1)`."
        )
    return noise


def gaussian(std: Any) -> ActionNoise:
    """Independent normal noise of standard deviation `std`."""
    return ActionNoise(lambda memory, normal: (std * normal, memory))


def ornstein_uhlenbeck(sigma: Any = 0.2, theta: Any = 0.15, dt: Any = 1.0) -> ActionNoise:
    """Ornstein-Uhlenbeck noise, correlated within an episode.

        x_{t+1} = (1 - theta dt) x_t + sigma sqrt(dt) N(0, 1),  x = 0 at the start of an episode

    Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971 (section 7), who use the defaults.
    """

    def step(memory, normal):
        noise = (1.0 - theta * dt) * memory + sigma * jnp.sqrt(dt) * normal
        return noise, noise

    return ActionNoise(step, has_memory=True)


class Explore(Protocol):
    def __call__(
        self, state: PyTree, obs: Array, memory: Any, normal: Array, /
    ) -> tuple[Array, Any]:
        """Returns exploratory actions `[B, A]` in [-1, 1] and the next memory of the noise."""
        ...


def with_warmup(
    spec: EnvSpec, explore: Explore, policy: Callable[..., Array], warmup_steps: int,
    has_memory: bool = False,
) -> Acting:  # fmt: skip
    """Acts in a box of actions; uniformly at random during warm-up.

    Args:
      spec: description of the environment, with continuous actions.
      explore: `(state, obs[B], memory, normal[B, A]) -> (action[B, A], next memory)`, from
        standard normals.
      policy: `(state, obs[B]) -> action[B, A]`, the greedy actions.
      warmup_steps: environment steps with uniform actions in [-1, 1].
      has_memory: whether `explore` has a memory, which the environment then has to carry.

    Returns:
      An `Acting` for states that have `env_steps`; actions in [-1, 1] are mapped to the
      environment's box.

    Raises:
      ValueError: in `act` and `greedy`, if the environment does not carry the memory.
    """

    def sample_noise(key, num_steps):
        normal_key, uniform_key = random.split(key)
        normal = policies.policy_noise(spec, normal_key, num_steps)
        uniform = random.uniform(uniform_key, normal.shape, minval=-1.0, maxval=1.0)
        return normal, uniform

    def split(obs):
        if isinstance(obs, RecurrentObs):
            return obs.obs, obs.memory
        if has_memory:
            raise ValueError(
                f"the exploration noise has a memory, but {spec.env_id} does not carry it: wrap "
                "the environment with `rljax.envs.memory.carry_memory`."
            )
        return obs, None

    def act(state, obs, noise):
        normal, uniform = noise
        obs, memory = split(obs)
        action, memory = explore(state, obs, memory, normal)
        action = jnp.where(state.env_steps.value < warmup_steps, uniform, action)
        action = policies.to_box(spec, action)
        return (action if memory is None else (action, memory)), ()

    def greedy(state, obs, key):
        del key
        obs, memory = split(obs)
        action = policies.to_box(spec, policy(state, obs))
        return action if memory is None else (action, memory)

    return Acting(sample_noise, act, greedy)


def noisy_policy(
    spec: EnvSpec, policy: Callable[..., Array], noise: ActionNoise, warmup_steps: int
) -> Acting:
    """Acts by a deterministic policy with added noise; uniformly at random during warm-up.

    Args:
      spec: description of the environment, with continuous actions.
      policy: `(state, obs[B]) -> action[B, A]` in [-1, 1].
      noise: exploration noise; the sum is clipped to [-1, 1].
      warmup_steps: environment steps with uniform actions in [-1, 1].

    Returns:
      An `Acting`; see `with_warmup`, also for errors.
    """

    def explore(state, obs, memory, normal):
        perturbation, memory = noise.step(memory, normal)
        return jnp.clip(policy(state, obs) + perturbation, -1.0, 1.0), memory

    return with_warmup(spec, explore, policy, warmup_steps, noise.has_memory)
