"""Acting depends on the leaves that `acting_leaves` finds, and on no other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from probes import bits, circle, walk, with_memory
from test_contract import config_of, has_full_variant

from rljax.agents import AGENTS
from rljax.envs import make, wrappers
from rljax.ops.memory import tree_bytes
from rljax.training.acting import acting_leaves, keep, restore
from rljax.types import Agent, Shared, is_key, params_of, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")
VARIANTS = [
    (name, is_full) for name in AGENTS for is_full in (False, True)
    if has_full_variant(name) or not is_full
]  # fmt: skip
LEARNING = ("replay", "opt", "running_return", ".reward.", "episode", "trace", "imagined")


def agent_and_shapes(name, is_full):
    """Returns an agent, the shapes of its state, and those of its observations."""
    row, config = AGENTS[name], config_of(name, is_full)
    if hasattr(config, "buffer_size"):
        config = dataclasses.replace(config, buffer_size=200)  # sequences of 16 environments fit
    continuous = "discrete" not in row.actions or (is_full and "continuous" in row.actions)
    env = circle() if row.tabular else walk(continuous=continuous)
    env = make("rljax/Maze") if CASES[name].family is None else env  # it has a model
    env = wrappers.batched(with_memory(row, config, env), 16)
    agent = row.make(config, env.spec)
    state, (_, obs) = jax.eval_shape(lambda key: (agent.init(key), env.reset(key)), KEY)
    return agent, state, obs


KEY = jax.random.key(0)


def random_like(tree, seed):
    """Returns normal floats, positive variances, and integers in {0, 1}, which are valid states."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(rng.integers(0, 2, x.shape), x.dtype)
        normal = rng.normal(size=x.shape)
        is_variance = path and getattr(path[-1], "name", "") in ("variance", "std")
        return jnp.asarray(np.abs(normal) if is_variance else normal, x.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def garbage_like(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.lax.full_like(x, 7)
    return jnp.full(x.shape, jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 1, x.dtype)


@pytest.mark.parametrize(("name", "is_full"), VARIANTS)
def test_actions_depend_on_the_kept_leaves_alone(name, is_full):
    agent, shapes, obs_shapes = agent_and_shapes(name, is_full)
    leaves = acting_leaves(agent, shapes, obs_shapes)
    obs = random_like(obs_shapes, seed=0)
    state = random_like(shapes, seed=1)
    garbage = jax.tree.map(
        lambda x, is_used: x if is_used else garbage_like(x), state, leaves
    )  # fmt: skip
    act = jax.jit(agent.greedy)
    expected = act(state, obs, KEY)
    assert bits(act(garbage, obs, KEY)) == bits(expected)
    restored = restore(keep(state, leaves), leaves, shapes)
    assert bits(act(restored, obs, KEY)) == bits(expected)
    if any(jax.tree.leaves(leaves)):
        zeros = jax.tree.map(lambda _: False, leaves)
        empty = restore(keep(state, leaves), zeros, shapes)
        assert bits(act(empty, obs, KEY)) != bits(expected)
    for path, is_used in jax.tree_util.tree_leaves_with_path(leaves):
        field = jax.tree_util.keystr(path)
        assert not (is_used and any(word in field for word in LEARNING)), field
    kept = jax.eval_shape(lambda: keep(jax.tree.map(garbage_like, shapes), leaves))
    unused = sum(not used for used in jax.tree.leaves(leaves))
    # a policy is at most its parameters and the moments of observations and of a model
    assert tree_bytes(kept) - unused <= tree_bytes(params_of(shapes)) + 200


def test_sampling_depends_on_more_than_greedy_actions():
    agent, shapes, obs = agent_and_shapes("dqn", False)
    greedy, sampling = (acting_leaves(agent, shapes, obs, greedy=x) for x in (True, False))
    assert not greedy.env_steps.value and sampling.env_steps.value  # epsilon is annealed
    assert all(jax.tree.leaves(sampling.learned.params))


def test_dependence_is_that_of_the_program():
    """Of calls, loops, derivatives and branches; by hand."""

    @jax.jit
    def called(a, b):
        return a + 1, b + 1

    @jax.custom_jvp
    def custom(a, b):
        return a * 2

    custom.defjvp(lambda x, t: (x[0], t[0]))

    def greedy(state, obs, key):
        looped = jax.lax.scan(lambda c, _: (c + state["scan"], None), 0.0, length=2)[0]
        branch = jax.lax.cond(state["predicate"], lambda: state["branch"], lambda: 0.0)
        first, _ = called(state["call"], state["other result"])
        unused = state["unused"] * obs  # noqa: F841
        noise = jax.random.normal(state["key"])
        double = custom(state["custom"], state["unused argument"])
        return obs + looped + branch + first + double + noise + state["shared"].value

    names = ["scan", "branch", "call", "other result", "unused", "custom", "unused argument"]
    state = dict.fromkeys(names, jnp.float32(1)) | {
        "predicate": jnp.bool_(True), "key": KEY, "shared": Shared(jnp.float32(1)),
        "unused key": KEY,
    }  # fmt: skip
    agent = Agent(None, None, greedy, None)  # type: ignore
    leaves = acting_leaves(agent, state, jnp.zeros(3))
    unused = {"other result", "unused", "unused argument", "unused key"}
    assert leaves == {name: name not in unused for name in state} | {"shared": Shared(True)}
    kept = keep(state, leaves)
    assert jax.tree.structure(kept) == jax.tree.structure(state)
    assert kept["unused key"].dtype == bool and is_key(kept["key"])
    again = restore(kept, leaves, state)
    assert bits(greedy(again, jnp.zeros(3), KEY)) == bits(greedy(state, jnp.zeros(3), KEY))


def test_leading_axes_are_kept_also_inside_a_program():
    agent, shapes, obs = agent_and_shapes("dqn", False)
    leaves = acting_leaves(agent, shapes, obs)
    states = jax.vmap(agent.init)(jax.random.split(KEY, 3))
    kept = keep(states, leaves, num_axes=1)
    assert {x.shape[0] for x in jax.tree.leaves(kept)} == {3}
    mapped = jax.jit(jax.vmap(lambda state: keep(state, leaves)))(states)
    assert bits(mapped) == bits(kept)
    assert tree_bytes(kept) < tree_bytes(states) / 3


def test_noise_of_sampling_comes_from_the_agent():
    agent, shapes, obs = agent_and_shapes("sac", False)
    leaves = acting_leaves(agent, shapes, obs, greedy=False)
    state = random_like(shapes, seed=1)
    noise = sample_one(agent.sample_noise, KEY)
    act = jax.jit(agent.act)
    expected, _ = act(state, random_like(obs, seed=0), noise)
    again, _ = act(restore(keep(state, leaves), leaves, shapes), random_like(obs, seed=0), noise)
    assert bits(again) == bits(expected)
