"""Sarsa, n-step Sarsa and n-step tree backup (Sutton and Barto 2018, sections 6.4, 7.2, 7.5).

Sarsa updates q(S_t, A_t) once A_{t+n} has been selected, as in the book. When an episode ends, the
updates that are still pending are made in order. After a truncation no next action is selected:
its value is replaced by the expectation over the epsilon-greedy policy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    current_epsilon,
    epsilon_greedy,
    initial_state,
    q_table,
    tabular_agent,
    update_entry,
)
from rljax.config import config, option
from rljax.ops.epsilon_greedy import epsilon_greedy_policy, epsilon_greedy_value
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Transition, identity


@config
class NStepSarsaConfig(ControlConfig):
    """Options of n-step Sarsa."""

    n_step: int = option(4, "number of rewards in an n-step return", low=1)


@config
class TreeBackupConfig(ControlConfig):
    """Options of n-step tree backup."""

    n_step: int = option(4, "number of rewards in an n-step return", low=1)
    target_policy: str = option(
        "greedy", "target policy: greedy, or the epsilon-greedy behavior policy",
        choices=("greedy", "epsilon_greedy"),
    )  # fmt: skip


class Window(NamedTuple):
    """The last n steps of an episode, the latest step last.

    Attributes:
      obs, action, reward: `[n]`; only the last `size` entries hold steps of the episode.
      size: number of steps, int32.
    """

    obs: Array
    action: Array
    reward: Array
    size: Array

    @property
    def is_filled(self) -> Array:
        """Whether an entry holds a step of the episode, `[n]` bool."""
        n = self.obs.shape[-1]
        return jnp.arange(n) >= n - self.size


def empty_window(n: int) -> Window:
    """Returns the window at the start of an episode."""
    zeros = jnp.zeros(n, jnp.int32)
    return Window(zeros, zeros, jnp.zeros(n), jnp.int32(0))


def append(window: Window, step: Transition) -> Window:
    """Returns the window with one more step, without the earliest of n."""

    def shift(old, new):
        return jnp.concatenate([old[1:], new[None].astype(old.dtype)])

    return Window(
        shift(window.obs, step.obs), shift(window.action, step.action),
        shift(window.reward, step.reward), jnp.minimum(window.size + 1, window.obs.shape[-1]),
    )  # fmt: skip


def clear_if(done: Array, window: Window) -> Window:
    """Returns the window, emptied where the episode is done."""
    return window._replace(size=jnp.where(done, 0, window.size))


def n_step_returns(reward: Array, value: Array, gamma: Any) -> Array:
    """Returns the discounted sum of each reward, the later rewards and a final value.

        G_i = r_i + gamma G_{i+1},  G_n = value

    `[n], [] -> [n]`
    """

    def backward(next_return, reward):
        n_step_return = reward + gamma * next_return
        return n_step_return, n_step_return

    return jax.lax.scan(backward, value, reward, reverse=True, unroll=len(reward) == 1)[1]


def update_entries(
    table: Array, indices: Any, targets: Array, is_due: Array, learning_rate: Any
) -> tuple[Array, Mean]:
    """Makes the updates of n entries that are due, one after another; entries may repeat.

    Args:
      table: `[S]` or `[S, A]`.
      indices: a pytree of `[n]`, such as `(obs, action)`.
      targets, is_due: `[n]`.
      learning_rate: step size.
    """

    def update_one(table, inputs):
        index, target, is_due = inputs
        return update_entry(table, index, target, learning_rate, is_due)

    inputs = (indices, targets, is_due)
    table, metrics = jax.lax.scan(update_one, table, inputs, unroll=len(is_due) == 1)
    return table, jax.tree.map(jnp.sum, metrics)


def sarsa(
    config: ControlConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Sarsa agent (eq. 6.7), or n-step Sarsa if the config has `n_step` (eq. 7.5).

        G = r_1 + gamma r_2 + ... + gamma^(n-1) r_n + gamma^n q(s_n, a_n)
        q(s_0, a_0) += alpha (G - q(s_0, a_0))

    An n larger than the length of any episode gives Monte Carlo control.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/WindyGridworld", num_envs=1)
      >>> agent = sarsa(NStepSarsaConfig(n_step=4), env.spec)
      >>> agent.init(jax.random.key(0)).params.q.shape
      (70, 4)
    """
    n = getattr(config, "n_step", 1)

    def init_state():
        return initial_state(q_table(config, spec), empty_window(n))

    def learn(state, step, noise):
        del noise
        q, window = state.params.q, state.episode
        # the action of this step completes the return of the earliest step in the window
        target = n_step_returns(window.reward, q[step.obs, step.action], config.gamma)[0]
        earliest, is_due = (window.obs[0], window.action[0]), window.is_filled[0]
        q, metric = update_entry(q, earliest, target, config.learning_rate, is_due)
        window = append(window, step)
        done = step.terminated | step.truncated
        next_v = epsilon_greedy_value(q[step.next_obs], current_epsilon(config, state))
        next_v = jnp.where(step.terminated, 0.0, next_v)
        targets = n_step_returns(window.reward, next_v, config.gamma)
        indices, is_due = (window.obs, window.action), window.is_filled & done
        q, final_metric = update_entries(q, indices, targets, is_due, config.learning_rate)
        metric = jax.tree.map(jnp.add, metric, final_metric)
        return state._replace(params=QTable(q), episode=clear_if(done, window)), metric

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)


def n_step_sarsa(
    config: NStepSarsaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an n-step Sarsa agent, with the arguments of `sarsa`."""
    return sarsa(config, spec, average=average)


def tree_backup(
    config: TreeBackupConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an n-step tree backup agent: off-policy learning without importance sampling.

        G_t = r_{t+1} + gamma sum_{a != a_{t+1}} pi(a|s_{t+1}) q(s_{t+1}, a)
                      + gamma pi(a_{t+1}|s_{t+1}) G_{t+1}                        (eq. 7.16)

    n = 1 is Expected Sarsa, or Q-learning with the greedy target policy.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers.
    """

    def init_state():
        return initial_state(q_table(config, spec), empty_window(config.n_step))

    def learn(state, step, noise):
        del noise
        window = append(state.episode, step)
        done = step.terminated | step.truncated
        is_greedy = config.target_policy == "greedy"
        epsilon = 0.0 if is_greedy else current_epsilon(config, state)
        is_due = window.is_filled & (done | (jnp.arange(config.n_step) == 0))

        def update_one(q, i):  # each update may change the returns of the later ones
            targets = tree_backup_returns(q, window, step, epsilon, config.gamma)
            index = window.obs[i], window.action[i]
            return update_entry(q, index, targets[i], config.learning_rate, is_due[i])

        q, metrics = jax.lax.scan(update_one, state.params.q, jnp.arange(config.n_step))
        state = state._replace(params=QTable(q), episode=clear_if(done, window))
        return state, jax.tree.map(jnp.sum, metrics)

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)


def tree_backup_returns(
    q: Array, window: Window, step: Transition, epsilon: Array | float, gamma: Any
) -> Array:
    """Returns the tree-backup returns G of eq. 7.16 for the steps of a window, `[n]`.

    Args:
      q: action values `[S, A]`.
      window: the last n steps.
      step: the latest of them.
      epsilon: of the epsilon-greedy target policy; 0 is the greedy policy.
      gamma: discount factor.
    """
    policy = epsilon_greedy_policy(q[window.obs], epsilon)  # [n, A]
    taken_probability = jnp.take_along_axis(policy, window.action[:, None], axis=-1)[:, 0]
    is_taken = jax.nn.one_hot(window.action, q.shape[-1], dtype=bool)
    is_other = ~is_taken & (policy > 0)
    others = jnp.where(is_other, policy * q[window.obs], 0.0).sum(axis=-1)

    def backward(next_v, inputs):  # next_v: backed-up value of the state that the step reached
        reward, others, taken_probability = inputs
        tree_return = reward + gamma * next_v
        return others + taken_probability * tree_return, tree_return

    next_v = epsilon_greedy_value(q[step.next_obs], epsilon)
    next_v = jnp.where(step.terminated, 0.0, next_v)
    inputs = (window.reward, others, taken_probability)
    return jax.lax.scan(backward, next_v, inputs, reverse=True)[1]
