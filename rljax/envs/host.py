"""Environments on the host, such as those of gymnasium, as environments of compiled programs.

A pool steps a batch of environments in Python or C++, and one callback a step calls it from the
compiled program. The state of such a batch is the number of its pool and of the steps taken; the
pool itself is made by `reset` and stays on the host until `close`, or as long as its `Env`.

The callback has no effect in the sense of JAX, because effects such as those of `io_callback` are
not allowed in a `while_loop` whose condition differs between runs. The order of the steps follows
from the state, and a repeated call returns the same result. On a CPU it is a `buffer_callback`,
which takes 10 us, and elsewhere a `pure_callback`, which takes 50 to 100 us.
"""

import itertools
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import io_callback

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # an older version of JAX
    buffer_callback = None

from rljax.ops.observations import action_struct, obs_structs
from rljax.types import Array, Env, EnvSpec, PyTree, Step, identity

NUM_SEEDS = 2**31 - 1  # seeds are int32, from 0


class HostState(NamedTuple):
    """The state of a batch of environments on the host.

    Attributes:
      pool: number of the pool that holds the environments, int32.
      time: number of steps that the pool has taken, int32.
    """

    pool: Array
    time: Array


class Pool(Protocol):
    """B environments on the host that reset themselves at the step that ends an episode."""

    def reset(self, seeds: np.ndarray, /) -> PyTree:
        """Seeds and resets all environments; returns the observations `[B, ...]`."""
        ...

    def step(self, action: np.ndarray, /) -> Step:
        """Takes one step in all environments; the fields are NumPy arrays `[B, ...]`."""
        ...

    def close(self) -> None:
        """Closes the environments."""
        ...


class _Opened:
    """An open pool, the number of its steps, and the last of them."""

    def __init__(self, pool: Pool):
        self.pool, self.time = pool, 0
        self.action: Any = None
        self.last: Any = None


_OPEN: dict[int, _Opened] = {}
# the state of another process, restored from a checkpoint, should not name a pool of this one
_numbers = itertools.count(1 + int.from_bytes(os.urandom(3), "big") * 64)


def host_env(
    spec: EnvSpec, make_pool: Callable[[int], Pool], info: Mapping[str, Any] | None = None,
    decode: Callable[[PyTree], PyTree] = identity, host_obs: PyTree = None,
) -> Env:  # fmt: skip
    """Returns an environment on the host, with `Env.batch`.

    Args:
      spec: description of a single environment.
      make_pool: `num_envs -> Pool`.
      info: dtypes of the further quantities in `Step.info`, each a number for each environment.
      decode: `obs[B, ...] -> obs[B, *obs_shape]`, applied in the compiled program.
      host_obs: shapes and dtypes of one observation before `decode`; None if there is no `decode`.
    """

    pools = _Pools()

    def batch(num_envs):
        host = _Host(make_pool, num_envs, action_struct(spec), pools)
        return _batch(spec._replace(num_envs=num_envs), host, info or {}, decode, host_obs)

    one = batch(1)

    def reset(key):
        state, obs = one.reset(key)
        return state, jax.tree.map(lambda x: x[0], obs)

    def step(state, action, noise):
        state, step = one.step(state, jnp.expand_dims(action, 0), noise)
        return state, jax.tree.map(lambda x: x[0], step)

    return Env(spec, reset, step, batch=batch)


def _batch(spec: EnvSpec, host: "_Host", info: Any, decode: Any, host_obs: PyTree) -> Env:
    def array(dtype: Any, shape: tuple[int, ...] = ()) -> Any:
        return jax.ShapeDtypeStruct((spec.num_envs, *shape), dtype)

    obs_struct = jax.tree.map(
        lambda x: array(x.dtype, x.shape), obs_structs(spec) if host_obs is None else host_obs
    )
    number, flag = jax.ShapeDtypeStruct((), jnp.int32), array(jnp.bool)
    further = {name: array(dtype) for name, dtype in info.items()}
    step_struct = Step(obs_struct, array(jnp.float32), flag, flag, obs_struct, further)
    dtype = action_struct(spec).dtype

    def reset(key):
        seeds = jax.random.randint(key, (spec.num_envs,), 0, NUM_SEEDS)
        pool, obs = _callback(host.reset, (number, obs_struct), seeds)
        return HostState(pool, jnp.int32(0)), decode(obs)

    def step(state, action, noise):
        del noise
        bits = jax.lax.bitcast_convert_type(jnp.asarray(action, dtype), jnp.int32)
        call = jnp.concatenate([jnp.stack(state), bits.ravel()])  # one array is copied faster
        time, step = _callback(host.step, (number, step_struct), call)
        step = step._replace(obs=decode(step.obs), next_obs=decode(step.next_obs))
        return HostState(state.pool, time), step

    return Env(spec, reset, step)


def _callback(function: Callable[[np.ndarray], PyTree], struct: PyTree, x: Array) -> PyTree:
    """Calls a function on the host; under `vmap` once, with the axes of the runs in front."""
    if buffer_callback is None or jax.default_backend() != "cpu":
        return jax.pure_callback(function, struct, x, vmap_method="broadcast_all")

    def write(context, out, x):
        del context
        values = jax.tree.leaves(function(np.asarray(x).copy()))
        for buffer, value in zip(jax.tree.leaves(out), values, strict=True):
            np.asarray(buffer)[...] = value

    return buffer_callback(write, struct, vmap_method="broadcast_all")(x)


class _Pools:
    """The numbers of the pools of an `Env` and its batches, closed when these are deleted."""

    def __init__(self):
        self.numbers: list[int] = []
        weakref.finalize(self, _close, self.numbers)


class _Host:
    """The callbacks of one batch."""

    def __init__(
        self, make_pool: Callable[[int], Pool], num_envs: int, action: Any, pools: _Pools
    ):  # fmt: skip
        self._make_pool, self._num_envs, self._action = make_pool, num_envs, action
        self._pools = pools

    def reset(self, seeds: Any) -> tuple[np.ndarray, PyTree]:
        """Opens one pool for each row of `seeds[..., B]`."""
        return _over_rows(self._reset_one, np.asarray(seeds))

    def step(self, call: Any) -> tuple[np.ndarray, Step]:
        """Steps the pool of each row of `call[..., :]`: its number, its time and the actions."""
        return _over_rows(self._step_one, np.asarray(call))

    def _reset_one(self, seeds):
        pool, number = self._make_pool(self._num_envs), next(_numbers)
        _OPEN[number] = _Opened(pool)
        self._pools.numbers.append(number)
        return np.int32(number), pool.reset(seeds)

    def _step_one(self, call):
        number, time = call[:2].tolist()
        opened = _OPEN.get(number)
        if opened is None:
            raise RuntimeError(
                "the environments of this state are closed or belong to another process: `reset` "
                "makes new ones."
            )
        action = call[2:].view(self._action.dtype).reshape(self._num_envs, *self._action.shape)
        if time == opened.time:
            opened.action, opened.last = action, opened.pool.step(action)
            opened.time += 1
        elif time != opened.time - 1 or not np.array_equal(action, opened.action):
            raise RuntimeError(
                f"the environments have taken {opened.time} steps, but the state is that after "
                f"{time}: environments on the host cannot go back to an earlier state."
            )
        return np.int32(opened.time), opened.last


def _over_rows(function: Callable[[np.ndarray], PyTree], rows: np.ndarray) -> PyTree:
    """Maps a function of `[N]` over `rows[..., N]`."""
    if rows.ndim == 1:
        return function(rows)
    results = [function(row) for row in rows.reshape(-1, rows.shape[-1])]
    return jax.tree.map(lambda *x: np.stack(x).reshape(rows.shape[:-1] + x[0].shape), *results)


def _close(pools: Any) -> None:
    for number in np.ravel(pools).tolist():
        if opened := _OPEN.pop(number, None):
            opened.pool.close()


def close(tree: PyTree) -> None:
    """Closes the pools of all host environments whose states are in a tree, also under `jit`."""
    for state in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, HostState)):
        if isinstance(state, HostState):
            if isinstance(state.pool, Tracer):
                # `pool` alone is known before the steps that it must wait for
                io_callback(lambda pool, time: _close(pool), None, state.pool, state.time)
            else:
                _close(state.pool)
