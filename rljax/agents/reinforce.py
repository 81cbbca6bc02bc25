"""REINFORCE, Williams (1992), on whole episodes; Sutton and Barto (2018), sections 13.3 and 13.4.

Steps are kept until their episode has ended and are then used once; dropping the steps of
unfinished episodes would favor short episodes. The return is bootstrapped from v(next_obs) at time
limits, and where the window of kept steps is full, if there is a baseline; otherwise it ends
there. The gradient at a kept step ignores that the policy has changed since.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.acting import Acting
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    actor_critic_loss,
    network_or_default,
    normalized_advantage,
    optimizer_or_default,
    stochastic_policy,
    trajectory_values,
)
from rljax.config import config, option
from rljax.networks import example_obs, recurrent
from rljax.ops import returns
from rljax.ops.diagnostics import action_saturation, explained_variance
from rljax.ops.optimizers import apply_gradients, norm_of_taken_step, skip_where
from rljax.types import Agent, Array, EnvSpec, PyTree, Transition, identity, sample_one


@config
class REINFORCEConfig(PolicyGradientConfig):
    num_envs: int = option(4, "number of parallel environments", low=1)
    num_steps: int = option(256, "rollout length per environment", low=1)
    learning_rate: float = option(3e-3, "learning rate of the optimizer", above=0)
    baseline: str = option("value", "baseline of the return", choices=("none", "value"))
    vf_coef: float = option(0.5, "value loss coefficient", low=0)
    normalize_advantage: bool = option(
        True, "normalize advantages to mean 0 and variance 1 in each update"
    )
    discount_gradient: bool = option(
        False, "weight the policy gradient of step t of an episode by gamma^t"
    )


class Window(NamedTuple):
    """Recent steps `[W, B]`, oldest first.

    Attributes:
      steps: the transitions.
      time: time of each step within its episode, int32.
      pending: the step has not been used in an update, bool.
    """

    steps: Transition
    time: Array
    pending: Array


class REINFORCEState(NamedTuple):
    """The state of REINFORCE.

    Attributes:
      params: parameters of policy and baseline.
      opt_state: state of the optimizer.
      waiting: steps kept from earlier rollouts, `[W, B]`.
      time: time of the next step within its episode, `[B]` int32.
    """

    params: PyTree
    opt_state: PyTree
    waiting: Window | None
    time: Array


def reinforce(
    config: REINFORCEConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a REINFORCE agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default Adam with clipped gradients and annealed learning rate.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Example:
      >>> agent = reinforce(REINFORCEConfig(baseline="none"), EnvSpec((4,), num_actions=2))
    """
    if config.baseline == "none":
        config = dataclasses.replace(config, vf_coef=0.0)  # without a baseline no value is learned
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    sequences = recurrent.memoryless(spec)
    acting = stochastic_policy(network, spec, sequences)

    def init(key):
        params = network.init(key, sequences.example_obs)
        time = jnp.zeros(spec.num_envs, jnp.int32)
        state = REINFORCEState(params, optimizer.init(params), None, time)
        return state._replace(waiting=empty_window(config, spec, acting, state, key))

    def update(state, trajectory, key):
        del key
        window, ready, next_time = complete_episodes(state, trajectory)
        count = average(ready.sum().astype(jnp.float32))

        def mean(x):  # over the ready steps of all workers, once it is averaged
            return jnp.where(ready, x, 0.0).sum() / jnp.maximum(count, 1.0)

        value, target, advantage = monte_carlo_advantages(
            network, config, state.params, window, average, mean
        )

        def loss(params):
            return actor_critic_loss(
                network, config, params, window.steps.obs, window.steps.extras["raw_action"],
                advantage, target, mean,
            )  # fmt: skip

        grads, metrics = average(jax.grad(loss, has_aux=True)(state.params))
        old = state.params, state.opt_state
        new = apply_gradients(optimizer, grads, state.opt_state, state.params)
        params, opt_state = skip_where(count == 0, new, old)  # no episode has ended
        norm = norm_of_taken_step(grads, count == 0)
        metrics = {**metrics, "losses/grad_norm": norm, **rate_metric(opt_state)}
        if config.baseline == "value":
            variance = explained_variance(value, target, average, mean)
            metrics["losses/explained_variance"] = variance
        if not spec.num_actions:
            saturation = action_saturation(trajectory.extras["raw_action"])
            metrics["charts/action_saturation"] = average(saturation)
        window = window._replace(pending=window.pending & ~ready)
        waiting = jax.tree.map(lambda x: x[len(trajectory.reward) :], window)
        return REINFORCEState(params, opt_state, waiting, next_time), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)


def empty_window(
    config: REINFORCEConfig, spec: EnvSpec, acting: Acting, state: REINFORCEState, key: Any
) -> Window:
    """Returns a window without pending steps.

    Its length W is the longest episode, rounded up to whole rollouts; one rollout if unknown.
    """
    longest_episode = spec.max_episode_steps or config.num_steps
    length = -(-longest_episode // config.num_steps) * config.num_steps
    # standardized observations are float32
    obs_dtype = "float32" if config.normalize_obs else spec.obs_dtype
    obs = example_obs(spec._replace(obs_dtype=obs_dtype), (spec.num_envs,))
    action, extras = acting.act(state, obs, sample_one(acting.sample_noise, key))
    reward, no = jnp.zeros(spec.num_envs), jnp.zeros(spec.num_envs, bool)
    step = Window(Transition(obs, action, reward, no, no, obs, extras), state.time, no)
    return jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), step)


def complete_episodes(state: REINFORCEState, trajectory: Transition) -> tuple[Window, Array, Array]:
    """Appends a trajectory to the waiting steps and finds the steps to learn from.

    Returns:
      The window `[W + T, B]`; the steps that are ready, `[W + T, B]` bool: pending steps whose
      episode has ended, or that leave the window now; and the time `[B]` of the next step.
    """
    done = trajectory.terminated | trajectory.truncated
    time, next_time = returns.episode_times(done, state.time)
    new = Window(trajectory, time, jnp.ones_like(done))
    window = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new.astype(old.dtype)]), state.waiting, new
    )
    ends = window.steps.terminated | window.steps.truncated
    has_ended = jax.lax.cummax(ends.astype(int), reverse=True) > 0
    leaves = jnp.arange(len(window.time)) < len(done)
    return window, window.pending & (has_ended | leaves[:, None]), next_time


def monte_carlo_advantages(
    network: Any, config: REINFORCEConfig, params: PyTree, window: Window,
    average: Callable[[PyTree], PyTree], mean: Callable[[Array], Array],
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Returns values, returns G and advantages, G minus the baseline, weighted, `[W + T, B]`."""
    steps = window.steps
    value = next_value = jnp.zeros(steps.reward.shape)
    if config.baseline == "value":
        value, next_value = trajectory_values(network, params, steps)
    ends = steps.terminated, steps.truncated
    target = returns.lambda_returns(steps.reward, next_value, *ends, config.gamma, 1.0)
    advantage = target - value
    if config.normalize_advantage:
        advantage = normalized_advantage(advantage, average, mean)
    if config.discount_gradient:
        advantage *= config.gamma**window.time
    return value, target, advantage
