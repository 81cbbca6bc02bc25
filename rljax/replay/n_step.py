"""Returns over n steps as a wrapper of `add`: replay then holds n-step transitions.

G = r_1 + gamma r_2 + ... + gamma^(k-1) r_k, to be followed by gamma^k times the value of what was
reached, k being n or what is left of the episode (Sutton and Barto, section 7.1).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.replay.ring import check_option, shapes
from rljax.types import Array, PyTree, Replay, Shared, Transition


class NStepState(NamedTuple):
    replay: PyTree
    window: Transition  # [n - 1, B] the steps whose return still waits for those to come
    missing: Shared  # int32, how many rows of the window, its first, no step was put into yet


def n_step(replay: Replay, n: int, gamma: Any, num_envs: int) -> Replay:
    """Replay of n-step transitions, made from the `Transition`s of single steps that it is given.

    Every step becomes one item, exactly n - 1 steps later, when all that it needs is known: its
    own observation and action, G as the reward, and `terminated`, `truncated` and `next_obs` of
    the last step of G. At an end of an episode, a death or a time limit, G and k stop short; no
    item reaches beyond it. `extras["discount"]` is gamma^k, the weight of the value of `next_obs`.

    Args:
      replay: what stores the items: `add` must take `skip`.
      n: steps of a return; 1 leaves transitions as they are, but for their extras.
      gamma: the discount; may be a tracer.
      num_envs: how many environments run side by side (B), as the window holds steps of each.
    Raises:
      ValueError: `n` or `num_envs` is below 1, or `gamma` not in [0, 1]; in `init`: the extras of
        a transition are neither empty nor a mapping.
    """
    check_option("n_step", n, 1, float("inf"))
    check_option("num_envs", num_envs, 1, float("inf"))
    check_option("gamma", gamma, 0, 1)
    store: Callable[..., PyTree] = replay.add

    def init(item):
        item = shapes(item)
        window = jax.tree.map(lambda x: jnp.zeros((n - 1, num_envs, *x.shape), x.dtype), item)
        stored = item._replace(extras=_with_discount(item.extras, jnp.float32(1)))
        return NStepState(replay.init(stored), window, Shared(jnp.int32(n - 1)))

    def add(state, items, skip=0):
        if not (isinstance(skip, int) and skip == 0):
            raise ValueError("n-step replay cannot be wrapped in n-step replay: use one, larger n.")
        steps = jax.tree.map(lambda *parts: jnp.concatenate(parts), state.window, items)
        num_steps = items.reward.shape[0]
        skip = jnp.minimum(state.missing.value, num_steps)
        inner = store(state.replay, n_step_items(steps, n, gamma), skip * num_envs)
        window = jax.tree.map(lambda x: x[num_steps:], steps)
        return NStepState(inner, window, Shared(state.missing.value - skip))

    def sample(state, noise):
        return replay.sample(state.replay, noise)

    def reprioritize(state, indices, td_error):
        return state._replace(replay=replay.reprioritize(state.replay, indices, td_error))

    def size(state):
        return replay.size(state.replay)

    return Replay(init, add, sample, reprioritize, size, replay.sample_noise)


def n_step_items(steps: Transition, n: int, gamma: Any) -> Transition:
    """The n-step transitions that begin at the first T of T + n - 1 steps.

    `[T + n - 1, B] -> [T, B]`. NaN and infinity beyond the end of an episode do not matter.
    """
    num_steps = steps.reward.shape[0] - (n - 1)
    done = steps.terminated | steps.truncated
    going = jnp.ones(done[:num_steps].shape, bool)
    total = jnp.zeros_like(steps.reward[:num_steps])
    discount, last = jnp.ones_like(total), jnp.zeros(going.shape, jnp.int32)
    for ahead in range(n):
        row = slice(ahead, ahead + num_steps)
        total = jnp.where(going, total + discount * steps.reward[row], total)
        discount = jnp.where(going, discount * gamma, discount)
        last = jnp.where(going, ahead, last)
        going = going & ~done[row]

    rows = jnp.arange(num_steps)[:, None] + last
    columns = jnp.arange(done.shape[1])[None]
    terminated, truncated, next_obs = jax.tree.map(
        lambda x: x[rows, columns], (steps.terminated, steps.truncated, steps.next_obs)
    )
    obs, action, extras = jax.tree.map(
        lambda x: x[:num_steps], (steps.obs, steps.action, steps.extras)
    )
    extras = _with_discount(extras, discount)
    return Transition(obs, action, total, terminated, truncated, next_obs, extras)


def _with_discount(extras: PyTree, discount: Array) -> dict[str, Any]:
    if not isinstance(extras, Mapping) and extras != ():
        raise ValueError(
            f"n-step replay adds `discount` to the extras of a transition, but they are a "
            f"{type(extras).__name__}: let `act` return a dict, or ()."
        )
    return {**(extras or {}), "discount": discount}
