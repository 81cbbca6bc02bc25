"""n-step returns as a wrapper around any replay buffer, which then stores n-step transitions.

    G_t = r_{t+1} + gamma r_{t+2} + ... + gamma^(k-1) r_{t+k},  target G_t + gamma^k V(s_{t+k})

where k is n, or the number of steps to the end of the episode if that is smaller (Sutton and Barto
2018, eq. 7.1).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.config import check_range
from rljax.replay.checks import check_replay, shapes
from rljax.types import Array, PyTree, Replay, Shared, Transition


class NStepState(NamedTuple):
    """The state of n-step replay.

    Attributes:
      replay: state of the wrapped buffer.
      window: latest steps, whose returns are not complete, `[n - 1, B]`.
      num_empty: number of rows of the window, its first, that hold no step yet, int32.
    """

    replay: PyTree
    window: Transition
    num_empty: Shared


def n_step(replay: Replay, n: int, gamma: Any, num_envs: int) -> Replay:
    """Makes a replay buffer of n-step transitions; items added to it are single steps.

    Each step is stored n - 1 steps later, when its return is complete, with its own observation
    and action, G as the reward, and `terminated`, `truncated` and `next_obs` of the last step of G.
    G stops where an episode ends, by termination or truncation. `extras["discount"]` is gamma^k,
    the discount of the value of `next_obs`.

    Args:
      replay: buffer of the n-step transitions; its `add` must accept `skip`.
      n: number of rewards in a return; 1 changes nothing but the extras.
      gamma: discount in [0, 1]; may be a tracer.
      num_envs: number of parallel environments, B.

    Returns:
      A `Replay` of `Transition`s.

    Raises:
      ValueError: `replay` is not a `Replay`, `n` or `num_envs` is below 1, or `gamma` is not in
        [0, 1]; in `init`, if the extras of a transition are neither empty nor a mapping.

    Example:
      >>> from rljax.replay import uniform
      >>> from rljax.types import sample_one
      >>> buffer = n_step(uniform(capacity=10, batch_size=2), n=3, gamma=0.5, num_envs=1)
      >>> obs, flags = jnp.arange(3.0)[:, None], jnp.zeros((3, 1), bool)
      >>> steps = Transition(obs, flags, jnp.ones((3, 1)), flags, flags, obs + 1)
      >>> state = buffer.init(jax.tree.map(lambda x: x[0, 0], steps))
      >>> state = buffer.add(state, steps)
      >>> int(buffer.size(state))
      1
      >>> noise = sample_one(buffer.sample_noise, jax.random.key(0))
      >>> batch = buffer.sample(state, noise).transitions
      >>> batch.reward.tolist(), batch.next_obs.tolist(), batch.extras["discount"].tolist()
      ([1.75, 1.75], [3.0, 3.0], [0.125, 0.125])
    """
    check_replay(replay)
    check_range("n_step", n, low=1)
    check_range("num_envs", num_envs, low=1)
    check_range("gamma", gamma, low=0, high=1)

    def init(item):
        item = shapes(item)
        window = jax.tree.map(lambda x: jnp.zeros((n - 1, num_envs, *x.shape), x.dtype), item)
        stored = item._replace(extras=_with_discount(item.extras, jnp.float32(1)))
        return NStepState(replay.init(stored), window, Shared(jnp.int32(n - 1)))

    def add(state, items, skip=0):
        if not (isinstance(skip, int) and skip == 0):
            raise ValueError(
                "n-step replay cannot skip items, so it cannot be wrapped in n-step replay: use "
                "one `n_step` with a larger n."
            )
        steps = jax.tree.map(lambda *parts: jnp.concatenate(parts), state.window, items)
        num_steps = items.reward.shape[0]
        skip = jnp.minimum(state.num_empty.value, num_steps)
        inner = replay.add(state.replay, n_step_items(steps, n, gamma), skip * num_envs)
        window = jax.tree.map(lambda x: x[num_steps:], steps)
        return NStepState(inner, window, Shared(state.num_empty.value - skip))

    def sample(state, noise):
        return replay.sample(state.replay, noise)

    def reprioritize(state, slots, td_error):
        return state._replace(replay=replay.reprioritize(state.replay, slots, td_error))

    def size(state):
        return replay.size(state.replay)

    return Replay(init, add, sample, reprioritize, size, replay.sample_noise)


def n_step_items(steps: Transition, n: int, gamma: Any) -> Transition:
    """Returns the n-step transitions that start at the first T of T + n - 1 steps.

    Steps after the end of an episode do not change its returns, even if they are NaN or infinite.

    Args:
      steps: single steps, `[T + n - 1, B]`.
      n: number of rewards in a return.
      gamma: discount.

    Returns:
      n-step transitions, `[T, B]`.
    """
    num_steps = steps.reward.shape[0] - (n - 1)
    done = steps.terminated | steps.truncated
    ongoing = jnp.ones(done[:num_steps].shape, bool)
    n_step_return = jnp.zeros_like(steps.reward[:num_steps])
    discount, last = jnp.ones_like(n_step_return), jnp.zeros(ongoing.shape, jnp.int32)
    for k in range(n):
        row = slice(k, k + num_steps)
        n_step_return = jnp.where(
            ongoing, n_step_return + discount * steps.reward[row], n_step_return
        )
        discount = jnp.where(ongoing, discount * gamma, discount)
        last = jnp.where(ongoing, k, last)
        ongoing = ongoing & ~done[row]

    rows = jnp.arange(num_steps)[:, None] + last
    columns = jnp.arange(done.shape[1])[None]
    terminated, truncated, next_obs = jax.tree.map(
        lambda x: x[rows, columns], (steps.terminated, steps.truncated, steps.next_obs)
    )
    obs, action, extras = jax.tree.map(
        lambda x: x[:num_steps], (steps.obs, steps.action, steps.extras)
    )
    extras = _with_discount(extras, discount)
    return Transition(obs, action, n_step_return, terminated, truncated, next_obs, extras)


def _with_discount(extras: PyTree, discount: Array) -> dict[str, Any]:
    if not isinstance(extras, Mapping) and extras != ():
        raise ValueError(
            f"n-step replay adds `discount` to the extras of a transition, but they are a "
            f"{type(extras).__name__}: let `act` return a dict, or ()."
        )
    return {**(extras or {}), "discount": discount}
