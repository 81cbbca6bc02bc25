"""REINFORCE, Williams (1992), on whole episodes; Sutton and Barto (2018), sections 13.3 and 13.4.

A step waits until its episode has ended, and then counts once: to leave out the steps of episodes
under way would favour short ones. Beyond a time limit, or a wait of more than the longest episode
known, lies v(next_obs) where there is a baseline; without one the return is that of what was seen,
unbiased for the task with its limit. Waiting steps are of slightly older policies.
"""

import dataclasses
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
    normalized_advantage,
)
from rljax.config import config, option
from rljax.ops import returns
from rljax.types import Agent, Array, EnvSpec, PyTree, Transition, identity, sample_one


@config
class REINFORCEConfig(PolicyGradientConfig):
    num_envs: int = option(4, "environments side by side (B)", low=1)
    num_steps: int = option(256, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(3e-3, "step size of the optimizer", above=0)
    baseline: str = option("value", "what is subtracted", choices=("none", "value"))
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    normalize_advantage: bool = option(True, "to mean 0 and variance 1 in each update")
    discount_gradient: bool = option(False, "weigh steps by gamma^t, as the theorem has it")


class Waiting(NamedTuple):
    """Steps `[T, B]` of a rollout, and which have not been learned from yet."""

    steps: Transition
    time: Array  # int32, steps before it in its episode
    pending: Array  # bool


class REINFORCEState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    waiting: Waiting | None  # [W, B]
    time: Array  # [B] int32


def reinforce(
    config: REINFORCEConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a REINFORCE agent; the arguments are those of `rljax.agents.ppo.ppo`."""
    if config.baseline == "none":
        config = dataclasses.replace(config, vf_coef=0.0)  # no critic that nobody asks
    network = network or default_network(config, spec)
    optimizer = optimizer or default_optimizer(config)
    sample_noise, act, greedy = acting(network, spec)
    # whole rollouts, as many as an episode may reach back into
    window = -(-(spec.max_episode_steps or config.num_steps) // config.num_steps) * config.num_steps

    def init(key):
        obs = jnp.zeros((spec.num_envs, *spec.obs_shape), int if spec.num_states else float)
        params, time = network.init(key, obs[:1]), jnp.zeros(spec.num_envs, jnp.int32)
        state = REINFORCEState(params, optimizer.init(params), None, time)
        action, extras = act(state, obs, sample_one(sample_noise, key))
        reward, no = jnp.zeros(spec.num_envs), jnp.zeros(spec.num_envs, bool)
        step = Waiting(Transition(obs, action, reward, no, no, obs, extras), time, no)
        waiting = jax.tree.map(lambda x: jnp.zeros((window, *x.shape), x.dtype), step)
        return state._replace(waiting=waiting)

    def returns_of(params, steps):
        """The returns `[W + T, B]`, and the baseline."""
        value = jnp.zeros(steps.reward.shape)
        next_value = value
        if config.baseline == "value":

            def value_of(obs):
                return network.apply(params, obs)[1]

            value = value_of(steps.obs)
            next_value = next_values(value_of, steps, value)
        ends = steps.terminated, steps.truncated
        return returns.lambda_returns(steps.reward, next_value, *ends, config.gamma, 1.0), value

    def update(state, trajectory, key):
        del key
        done = trajectory.terminated | trajectory.truncated
        time, next_time = returns.episode_times(done, state.time)
        new = Waiting(trajectory, time, jnp.ones_like(done))
        steps, time, pending = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new.astype(old.dtype)]), state.waiting, new
        )
        ended = jax.lax.cummax((steps.terminated | steps.truncated).astype(int), reverse=True) > 0
        leaving = jnp.arange(len(time)) < len(done)  # it cannot wait any longer
        ready = pending & (ended | leaving[:, None])
        count = average(ready.sum().astype(jnp.float32))

        def mean(x):  # over the steps of all workers, once averaged
            return jnp.where(ready, x, 0.0).sum() / jnp.maximum(count, 1.0)

        target, value = returns_of(state.params, steps)
        advantage = target - value
        if config.normalize_advantage:
            advantage = normalized_advantage(advantage, average, mean)
        if config.discount_gradient:
            advantage *= config.gamma**time

        def loss(params):
            return actor_critic_loss(
                network, config, params, steps.obs, steps.extras["raw_action"], advantage, target,
                mean,
            )  # fmt: skip

        grads, metrics = average(jax.grad(loss, has_aux=True)(state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        waiting = jax.tree.map(lambda x: x[len(done) :], Waiting(steps, time, pending & ~ready))
        params = optax.apply_updates(state.params, updates)
        return REINFORCEState(params, opt_state, waiting, next_time), metrics

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
