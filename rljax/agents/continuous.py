"""What DDPG, TD3 and SAC share: options, networks with their optimizers, and checks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.agents.acting import (
    EXPLORATION_REPEAT_HELP,
    ActionNoise,
    gaussian,
    ornstein_uhlenbeck,
)
from rljax.agents.replay_schedule import ReplayConfig
from rljax.config import config, option
from rljax.networks import continuous as networks
from rljax.networks.encoder import example_obs
from rljax.networks.layers import ACTIVATIONS
from rljax.ops import optimizers, td
from rljax.ops.diagnostics import q_value_metrics
from rljax.ops.precision import in_32_bits
from rljax.types import Array, EnvSpec, Metrics, PyTree


@config
class ActorCriticReplayConfig(ReplayConfig):
    """Options of off-policy actor-critic algorithms.

    The defaults are those that the papers share: one environment, one gradient step per step, a
    buffer of 1e6 transitions, Polyak averaging. Actions are uniform until `learning_starts`, 1,000
    steps in most tasks of Fujimoto et al. 2018.
    """

    total_timesteps: int = option(1_000_000, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "number of parallel environments", low=1)
    buffer_size: int = option(1_000_000, "capacity of the replay buffer, in transitions", low=1)
    batch_size: int = option(256, "transitions per gradient step", low=1)
    train_frequency: int = option(1, "environment steps between two updates", low=1)
    tau: float = option(0.005, "target-network update rate; 1 copies the parameters", low=0, high=1)
    target_update_interval: int = option(
        1, "environment steps between two target-network updates", low=1
    )
    hidden_sizes: tuple[int, ...] = option((256, 256), "units of each hidden layer", low=1)
    actor_learning_rate: float = option(3e-4, "learning rate of the policy", above=0)
    critic_learning_rate: float = option(3e-4, "learning rate of the critics", above=0)
    exploration_repeat: int = option(1, EXPLORATION_REPEAT_HELP, low=1)
    normalize_obs: bool = option(False, "normalize observations by running mean and variance")
    activation: str = option("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))


NOISES = ("gaussian", "ornstein_uhlenbeck")
NOISE_HELP = "exploration noise of the actions"
NOISE_THETA_HELP = "mean reversion of Ornstein-Uhlenbeck noise per step"


@config
class DeterministicConfig(ActorCriticReplayConfig):
    """Options of algorithms with a deterministic policy.

    Noise is added to actions in [-1, 1], which is then mapped to the bounds of the environment.
    """

    noise: str = option("gaussian", NOISE_HELP, choices=NOISES)
    noise_std: float = option(0.1, "scale of the exploration noise, in half action ranges", low=0)
    noise_theta: float = option(0.15, NOISE_THETA_HELP, low=0, high=1)


def exploration_noise(config: DeterministicConfig) -> ActionNoise:
    """Returns the exploration noise that a config describes."""
    if config.noise == "gaussian":
        return gaussian(config.noise_std)
    return ornstein_uhlenbeck(config.noise_std, config.noise_theta)


@in_32_bits
def standard_noise(config: Any) -> ActionNoise:
    """Returns exploration noise of variance 1 for a stochastic policy.

    Ornstein-Uhlenbeck noise is scaled so that its stationary variance is 1: actions at each step
    have the distribution of the policy, but those of neighboring steps are correlated.
    """
    if config.noise == "gaussian":
        return gaussian(1.0)
    theta = config.noise_theta
    return ornstein_uhlenbeck(jnp.sqrt(theta * (2.0 - theta)), theta)


def noise_memory(config: Any, spec: EnvSpec) -> Array | None:
    """Returns the memory of the exploration noise at the start of an episode, `[A]`, or None."""
    return None if config.noise == "gaussian" else jnp.zeros(networks.action_size(spec))


class ActorCritic(NamedTuple):
    """A pair for the policy and the critics: parameters, optimizers or their states."""

    actor: PyTree
    critic: PyTree


def example_inputs(spec: EnvSpec) -> tuple[PyTree, Array]:
    """Returns observations and actions of zeros, to initialize networks with."""
    return example_obs(spec), jnp.zeros((1, networks.action_size(spec)))


class Critics(NamedTuple):
    """K independent critics as one network; parameters have a leading axis `[K]`.

    Attributes:
      init: `(key, *inputs) -> params[K, ...]`.
      q_values: `(params[K, ...], *inputs) -> Q[K, ...]`.
      first_q_value: `(params[K, ...], *inputs) -> Q[...]`, of the first critic alone.
    """

    init: Callable[..., PyTree]
    q_values: Callable[..., Array]
    first_q_value: Callable[..., Array]


def make_critics(critic: Any, num_critics: int) -> Critics:
    """Makes independent critics from one flax module: one matrix product a layer for all of them.

    Args:
      critic: flax module, for example `obs[N, *obs_shape], action[N, A] -> Q[N]`.
      num_critics: number of critics, K.
    """

    def init(key, *inputs):
        return jax.vmap(lambda key: critic.init(key, *inputs))(jax.random.split(key, num_critics))

    def q_values(params, *inputs):
        # each critic gets its own copy of the inputs: with shared inputs, XLA merges the first
        # layers into one product and then transposes its outputs, which takes longer (measured)
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_critics, *x.shape)), inputs)
        return jax.vmap(critic.apply)(params, *copies)

    def first_q_value(params, *inputs):
        return critic.apply(jax.tree.map(lambda x: x[0], params), *inputs)

    return Critics(init, q_values, first_q_value)


def smallest(q: Array) -> Array:
    """Returns the smallest value of K critics, `[K, N] -> [N]`, with the gradient of its critic.

    The gradient of `jnp.min` divides by the number of critics that are equal to the minimum. It is
    0/0 where XLA computes the values twice and rounds them differently (observed on a CPU).

    Example:
      >>> smallest(jnp.array([[1.0, 3.0], [2.0, -1.0]])).tolist()
      [1.0, -1.0]
    """
    return functools.reduce(lambda x, y: jnp.where(y < x, y, x), list(q))


def critic_loss(
    q: Array, td_target: Array, weight: Array
) -> tuple[Array, tuple[Array, dict[str, Array]]]:
    """The sum over critics of their mean squared TD errors.

    Args:
      q: values of K critics, `[K, N]`.
      td_target: TD targets, `[N]`.
      weight: importance-sampling weights, `[N]`.

    Returns:
      The loss `[]`, and the pair of the absolute TD error, mean over critics, `[N]`, and the
      metrics of the values.

    Example:
      >>> q = jnp.array([[1.0, 2.0], [3.0, 2.0]])
      >>> loss, (td_error, metrics) = critic_loss(q, jnp.array([3.0, 2.0]), jnp.ones(2))
      >>> float(loss), td_error.tolist(), float(metrics["losses/q_value"])
      (1.0, [1.0, 0.0], 2.0)
    """
    td_error = td_target[None] - q
    loss = (weight[None] * td.squared(td_error)).mean(axis=-1).sum()
    return loss, (jnp.abs(td_error).mean(axis=0), q_value_metrics(q))


def make_optimizers(
    config: Any, actor_optimizer: Any, critic_optimizer: Any
) -> tuple[ActorCritic, Callable[[Any], Metrics]]:
    """Returns the optimizers of the policy and of the critics, and the metric of their rates.

    The default is Adam, or AdamW where the config has a `weight_decay`. The metric is a function of
    the states of the optimizers; see `optimizers.learning_rate_metric`.

    Raises:
      ValueError: an argument is not an optax `GradientTransformation`.
    """

    def checked(optimizer, rate, name):
        if optimizer is not None:
            optimizers.check_optimizer(optimizer, f"{name}_optimizer")
            rate = None  # not known
        elif hasattr(config, "weight_decay"):
            optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
        else:
            optimizer = optax.adam(rate)
        return optimizer, optimizers.learning_rate_metric(rate, f"charts/{name}_learning_rate")

    actor, actor_rate = checked(actor_optimizer, config.actor_learning_rate, "actor")
    critic, critic_rate = checked(critic_optimizer, config.critic_learning_rate, "critic")

    def rate_metrics(opt_state):
        return {**actor_rate(opt_state.actor), **critic_rate(opt_state.critic)}

    return ActorCritic(actor, critic), rate_metrics


def check_continuous(spec: EnvSpec) -> None:
    """Checks that an environment has continuous actions with finite bounds.

    Raises:
      ValueError: the actions are discrete, or a bound is infinite or NaN.
    """
    if spec.num_actions:
        raise ValueError(
            f"{spec.env_id} has discrete actions, but this algorithm needs continuous ones: use "
            "an agent such as dqn, discrete_sac or ppo."
        )
    for name in ("action_low", "action_high"):
        bound = np.asarray(getattr(spec, name))
        if not np.isfinite(bound).all():
            raise ValueError(
                f"`{name}` of {spec.env_id} is {bound.tolist()}, but a squashed policy needs "
                "finite bounds: set `action_low` and `action_high` of the EnvSpec to the range "
                "of actions to explore."
            )
