"""Auto-reset: environments that start the next episode themselves."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rljax.envs.wrapped import check_not_on_host, check_single, inner_functions
from rljax.ops import platform
from rljax.types import Array, Env, Key, PyTree


class AutoResetState(NamedTuple):
    """The state of `auto_reset`.

    Attributes:
      env: state of the wrapped environment.
      reserve: `(state, obs)` that the next episode starts from.
      reserve_used: the reserve has started an episode and must be drawn again, bool.
      key: random key of the next reserve.
    """

    env: PyTree
    reserve: PyTree
    reserve_used: Array
    key: Key


class Persistent(NamedTuple):
    """A part of the state that `auto_reset` keeps; if obs depends on it, set `Env.observe`."""

    value: PyTree


def auto_reset(env: Env) -> Env:
    """Makes an environment reset itself where an episode ends.

    `Step.obs` is then the first observation of the next episode, and `Step.next_obs` stays the
    last observation of the episode that ended.

    An initial state depends on the key of `reset` alone, so it can be drawn ahead. Each copy
    holds one in reserve. If an episode ends in a copy whose reserve is used up, all used
    reserves of the batch are drawn again in one call. Most steps therefore compute no reset;
    one reset for every copy at every step takes most of the time of a light environment. On a
    GPU, where the host has to wait for the condition, used reserves are drawn again at each step;
    the episodes are the same, because those of a copy depend on its key alone.

    Args:
      env: a single environment whose `step` does not reset.

    Raises:
      ValueError: `env` is a batch.

    Example:
      >>> from rljax.envs import time_limit, worlds
      >>> env = auto_reset(time_limit(worlds.from_id("Treasure"), 2))
      >>> state, obs = env.reset(jax.random.key(0))
      >>> for noise in env.sample_noise(jax.random.key(1), 2):
      ...     state, step = env.step(state, 1, noise)
      >>> bool(step.truncated), int(step.next_obs), int(step.obs)
      (True, 2, 0)
    """
    check_single(env)
    check_not_on_host(env)

    def draw_reserves(keys):
        """`keys[N] -> (reserve[N], next keys[N])`."""
        keys = jax.vmap(jax.random.split)(keys)
        return jax.vmap(env.reset)(keys[:, 0]), keys[:, 1]

    def redraw_used(reserves):
        reserve, used, keys = reserves
        new_reserve, new_keys = draw_reserves(keys)
        keys = jnp.where(used, new_keys, keys)
        return _where(used, new_reserve, reserve), jnp.zeros_like(used), keys

    @_over_all_copies
    def ensure_reserves(done, *reserves):
        def must_redraw(reserves):
            return (done & reserves[1]).any()

        if platform.is_gpu():
            return redraw_used(reserves)
        # not `cond`: under `vmap` it computes both branches at every step
        return jax.lax.while_loop(must_redraw, redraw_used, reserves)

    def reset(key):
        pair = draw_reserves(jax.random.split(key))  # one call, so that `reset` is compiled once
        (state, obs), _ = jax.tree.map(lambda x: x[0], pair)
        reserve, key = jax.tree.map(lambda x: x[1], pair)
        return AutoResetState(state, reserve, jnp.zeros((), bool), key), obs

    def step(state, action, noise):
        inner, step = env.step(state.env, action, noise)
        done = step.terminated | step.truncated
        batch_of_one = jax.tree.map(
            lambda x: x[None], (done, state.reserve, state.reserve_used, state.key)
        )
        reserve, used, key = jax.tree.map(lambda x: x[0], ensure_reserves(*batch_of_one))
        inner, obs = _where(done, reserve, (inner, step.next_obs))
        obs = obs if env.observe is None else env.observe(inner)
        return AutoResetState(inner, reserve, used | done, key), step._replace(obs=obs)

    functions = inner_functions(env) | {"before_reset": env}
    return env._replace(reset=reset, step=step, **functions)


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns `new` where `condition[...]` holds, leaf by leaf `[..., *]`; keeps `Persistent`."""

    def where(new, old):
        if isinstance(new, Persistent):
            return old
        axes = (1,) * (jnp.ndim(new) - condition.ndim)
        return jnp.where(condition.reshape(*condition.shape, *axes), new, old)

    return jax.tree.map(where, new, old, is_leaf=lambda x: isinstance(x, Persistent))


def _over_all_copies(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Makes `vmap` over M copies call a function of `[N, ...]` once, on `[M * N, ...]`.

    The default rule would turn M loops into one `while_loop` that runs its body for all copies
    and keeps the result only in those whose condition holds. Here all copies keep the result.
    """
    flat_function = custom_vmap(function)

    @flat_function.def_vmap
    def over_all(size, batched, *args):
        def flatten(is_batched, x):
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])  # not -1: arrays may have size 0

        out = flat_function(*jax.tree.map(flatten, tuple(batched), args))
        out = jax.tree.map(lambda x: x.reshape(size, len(x) // size, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return flat_function
