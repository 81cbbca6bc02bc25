"""The part of an agent's state that acting depends on.

A policy is kept without the replay buffer, the optimizer, and networks that only learning needs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from rljax.ops.precision import in_32_bits
from rljax.types import Agent, PyTree, sample_one

# primitives that call a function, and the parameters that may hold it
_CALLS = {
    "jit", "pjit", "core_call", "closed_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint",
}  # fmt: skip
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@in_32_bits
def acting_leaves(agent: Agent, state: PyTree, obs: PyTree, greedy: bool = True) -> PyTree:
    """Returns for each leaf of an agent's state whether its actions depend on it.

    The dependence is that of the program: a leaf that only enters unused results does not count.

    Args:
      agent: the agent.
      state: state of one run, or its shapes and dtypes; it may be traced.
      obs: observations `[B, ...]` as the agent receives them, such as `TrainState.obs`, or their
        shapes and dtypes.
      greedy: of the actions of `agent.greedy`; False takes those of `agent.act`.

    Returns:
      A tree of bools with the structure of `state`.

    Example:
      >>> import rljax
      >>> env = rljax.build("CartPole-v1", num_envs=2)
      >>> agent = rljax.dqn(rljax.DQNConfig(), env.spec)
      >>> key = jax.random.key(0)
      >>> state, (_, obs) = jax.eval_shape(lambda: (agent.init(key), env.reset(key)))
      >>> leaves = acting_leaves(agent, state, obs)
      >>> all(jax.tree.leaves(leaves.learned.params)), any(jax.tree.leaves(leaves.replay))
      (True, False)
    """

    def actions(state, obs, key):
        if greedy:
            return agent.greedy(state, obs, key)
        return agent.act(state, obs, sample_one(agent.sample_noise, key))[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    return used_leaves(actions, state, obs, key)[0]


def used_leaves(function: Callable[..., PyTree], *arguments: PyTree) -> tuple[PyTree, ...]:
    """Returns for each leaf of the arguments whether the result of a function depends on it.

    Args:
      function: it is traced, not called.
      arguments: trees of arrays, or of their shapes and dtypes.

    Returns:
      A tree of bools for each argument.

    Example:
      >>> used_leaves(lambda x, y: x["a"] + 0 * y.shape[0], {"a": 1.0, "b": 2.0}, jnp.zeros(3))
      ({'a': True, 'b': False}, False)
    """
    structs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), arguments
    )
    jaxpr = jax.make_jaxpr(function)(*structs).jaxpr
    used = _used_inputs(jaxpr, [True] * len(jaxpr.outvars))
    return jax.tree.unflatten(jax.tree.structure(arguments), used)


def keep(state: PyTree, leaves: PyTree, num_axes: int = 0) -> PyTree:
    """Returns a state whose unused leaves are replaced by False, of the same structure.

    Args:
      state: state of one run, or of several with `num_axes` leading axes.
      leaves: bools such as `acting_leaves` returns.
      num_axes: number of leading axes, which the replaced leaves keep.
    """
    return jax.tree.map(
        lambda x, is_used: x if is_used else jnp.zeros(x.shape[:num_axes], bool), state, leaves
    )


def restore(kept: PyTree, leaves: PyTree, like: PyTree) -> PyTree:
    """Returns the state of one run that `keep` reduced, with zeros in the place of unused leaves.

    Inside a compiled program the zeros take no memory, because nothing depends on them.

    Args:
      kept: what `keep` returned.
      leaves: bools such as `acting_leaves` returns.
      like: the shapes and dtypes of the state, such as `jax.eval_shape(agent.init, key)`.
    """
    return jax.tree.map(
        lambda x, is_used, like: x if is_used else jax.lax.full_like(like, 0), kept, leaves, like
    )


def _used_inputs(jaxpr: Any, used_outputs: list[bool]) -> list[bool]:
    """Returns for each input of a jaxpr whether one of the used outputs depends on it.

    Calls are followed. All inputs of a loop or a branch count if one of its outputs is used.
    """
    used = {
        x for x, is_used in zip(jaxpr.outvars, used_outputs, strict=True)
        if is_used and not isinstance(x, core.Literal)
    }  # fmt: skip
    for eqn in reversed(jaxpr.eqns):
        outputs = [x in used for x in eqn.outvars]
        if not any(outputs) and not eqn.effects:
            continue
        inputs = _used_by_call(eqn, outputs) or [True] * len(eqn.invars)
        used |= {
            x for x, is_used in zip(eqn.invars, inputs, strict=True)
            if is_used and not isinstance(x, core.Literal)
        }  # fmt: skip
    return [x in used for x in jaxpr.invars]


def _used_by_call(eqn: Any, used_outputs: list[bool]) -> list[bool] | None:
    """Returns for each input of a call whether it is used; None if the equation is not a call."""
    if eqn.primitive.name not in _CALLS:
        return None
    called = next(eqn.params[name] for name in _CALLED if name in eqn.params)
    return _used_inputs(getattr(called, "jaxpr", called), used_outputs)  # also of a closed jaxpr
