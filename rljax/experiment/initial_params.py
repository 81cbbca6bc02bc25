"""The parameters of another run as the initial ones: `train(..., initial_params=...)`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.experiment.evaluator import acting_part
from rljax.experiment.plan import Plan
from rljax.ops.moments import Moments
from rljax.results.result import Result
from rljax.training.runs import Runs
from rljax.types import PyTree, Shared, params_of


def loaded(source: Any) -> Any:
    """Returns the `Result` of a run directory, or anything else as it is.

    Raises:
      ValueError: there is no run in the directory, or see `rljax.load`.
    """
    if not isinstance(source, (str, Path)):
        return source
    from rljax.experiment.load import load

    if not (Path(source) / "config.toml").is_file():
        raise ValueError(
            f"`initial_params` is {str(source)!r}, but it must be the directory of a run."
        )
    return load(source)


def checked_agent_states(plan: Plan, source: Any) -> tuple[PyTree, PyTree]:
    """Returns initial parameters, and the agent states that they come from, with an axis of runs.

    Args:
      plan: the runs that start from them.
      source: a `Result` with parameters, a run directory, or a tree of parameters: of one run
        without a leading axis, or of all runs with the axes `[*sweep, seeds]`.

    Returns:
      Parameters `[1 or R, ...]`, and agent states of the same axis, or None for a tree.

    Raises:
      ValueError: the structure or a shape differs from that of the agent's parameters, or they are
        of another number of runs.
    """
    source = loaded(source)
    states = source.state.agent if isinstance(source, Result) and source.state else None
    params = source.params if isinstance(source, Result) else source
    if params is None:
        raise ValueError(
            "`initial_params` is a result without parameters: pass the result of `rljax.train` or "
            "of `rljax.load`."
        )
    like = params_of(acting_part(plan).like)
    named = [_named(x) for x in (params, like)]
    if named[0].keys() != named[1].keys():
        differs = sorted(named[0].keys() ^ named[1].keys())[0]
        raise ValueError(
            f"`initial_params` do not fit {plan.agent}: only one of the two has `{differs}`. Train "
            "with the same network options, such as `hidden_sizes`."
        )
    for name, struct in named[1].items():
        shape = np.shape(named[0][name])
        if shape[len(shape) - struct.ndim :] != struct.shape:
            raise ValueError(
                f"`initial_params` have `{name}` of shape {shape}, but {plan.agent} has "
                f"{struct.shape}: train with the same network options, and in an environment of "
                "the same observations and actions."
            )
    (lead,) = {np.shape(named[0][name])[: -x.ndim or None] for name, x in named[1].items()}
    if np.prod(lead, dtype=int) != 1 and lead != plan.leading_shape:
        raise ValueError(
            f"`initial_params` are of runs {lead}, but this run has {plan.leading_shape}: give the "
            "parameters of one run, or of as many."
        )

    def with_axis(tree):
        return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[len(lead) :])), tree)

    params = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(params))
    return with_axis(params), None if states is None else with_axis(states)


def start_from(plan: Plan, runs: Runs, params: PyTree, states: PyTree) -> None:
    """Replaces the initial parameters of runs, and the target networks that are copies of them.

    Of agent states also the rest that acting depends on is taken: the moments that standardize
    observations. The optimizer, the replay buffer and all counters start anew.

    Args:
      plan: the experiment.
      runs: its compiled runs, before the first update.
      params, states: what `checked_agent_states` returns.
    """
    snapshot = runs.snapshot()
    agent = snapshot.state.agent
    entries = len(snapshot.state.num_updates)

    def for_all(x):
        return jnp.repeat(x, entries // len(x), axis=0, total_repeat_length=entries)

    new = replace_params(agent, jax.tree.map(for_all, params))
    given = {} if states is None else _named(states)

    def take(path, own, is_used):
        if isinstance(own, Shared) or not any(jax.tree.leaves(is_used)):
            return own
        leaves = {jax.tree_util.keystr(path) + name: leaf for name, leaf in _named(own).items()}
        found = [given.get(name) for name in leaves]  # of moments also the number of samples
        if any(
            x is None or x.shape[1:] != y.shape[1:]
            for x, y in zip(found, leaves.values(), strict=True)
        ):
            return own
        return jax.tree.unflatten(jax.tree.structure(own), map(for_all, found))

    new = jax.tree_util.tree_map_with_path(
        take, new, acting_part(plan).leaves, is_leaf=lambda x: isinstance(x, (Shared, Moments))
    )
    runs.restore(snapshot._replace(state=snapshot.state._replace(agent=new)))


def replace_params(agent_state: PyTree, new: PyTree) -> PyTree:
    """Returns an agent's state with other parameters, also in the copies of target networks.

    A part of the state counts as a copy if it has the structure and the values of the parameters,
    or of one of the networks in them.
    """
    old = params_of(agent_state)
    parts = [(old, new), *zip(_children(old), _children(new), strict=True)]

    def copied(node):
        """Returns the new value of a node, or None if it is no copy."""
        for part, replacement in parts:
            if jax.tree.structure(node) == jax.tree.structure(part) and _equal(node, part):
                return replacement
        return None

    return jax.tree.map(
        lambda node: node if (found := copied(node)) is None else found, agent_state,
        is_leaf=lambda node: copied(node) is not None,
    )  # fmt: skip


def _children(tree: PyTree) -> list[PyTree]:
    """Returns the subtrees one level below the root that have several leaves."""
    children = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree)
    return [x for x in children if len(jax.tree.leaves(x)) > 1]


def _equal(x: PyTree, y: PyTree) -> bool:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _named(tree: PyTree) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
