"""One-step actor-critic, Sutton and Barto (2018), section 13.5.

    delta = r + gamma v(s') - v(s),  actor: I delta grad log pi(a | s),  critic: delta grad v(s)

with v(s') = 0 where the task ended, and no gradient through it. I = gamma^t in the book, 1 by
default as in practice. Differs from it: a batch of environments, one network, Adam.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    acting,
    actor_critic_loss,
    default_network,
    default_optimizer,
    next_values,
)
from rljax.config import config, option
from rljax.ops import returns
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class ActorCriticConfig(PolicyGradientConfig):
    num_envs: int = option(16, "environments side by side (B)", low=1)
    num_steps: int = option(1, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(1e-3, "step size of the optimizer", above=0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    discount_gradient: bool = option(False, "weigh steps by gamma^t, as the book does")


class ActorCriticState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    time: Array  # [B] int32, steps before this one in its episode


def actor_critic(
    config: ActorCriticConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a one-step actor-critic; the arguments are those of `rljax.agents.ppo.ppo`."""
    network = network or default_network(config, spec)
    optimizer = optimizer or default_optimizer(config)
    sample_noise, act, greedy = acting(network, spec)

    def init(key):
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        time = jnp.zeros(spec.num_envs, jnp.int32)
        return ActorCriticState(params, optimizer.init(params), time)

    def update(state, trajectory, key):
        del key

        def value_of(obs):
            return network.apply(state.params, obs)[1]

        value = value_of(trajectory.obs)
        next_value = next_values(value_of, trajectory, value)
        ends = trajectory.terminated, trajectory.truncated
        target = returns.lambda_returns(trajectory.reward, next_value, *ends, config.gamma, 0.0)
        advantage = target - value
        time, next_time = returns.episode_times(ends[0] | ends[1], state.time)
        if config.discount_gradient:
            advantage *= config.gamma**time

        def loss(params):
            return actor_critic_loss(
                network, config, params, trajectory.obs, trajectory.extras["raw_action"],
                advantage, target,
            )  # fmt: skip

        grads, metrics = average(jax.grad(loss, has_aux=True)(state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return ActorCriticState(params, opt_state, next_time), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
