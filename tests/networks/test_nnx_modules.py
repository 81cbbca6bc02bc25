"""flax.nnx modules as networks: equal to the same network in linen, in acting and in training."""

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from probes import walk

from rljax import AGENTS
from rljax.envs import wrappers
from rljax.networks import from_nnx
from rljax.networks.continuous import check_network
from rljax.networks.masking import masked
from rljax.training.learner import make_learner
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")


class LinenQ(nn.Module):
    def setup(self):
        self.hidden, self.out = nn.Dense(5), nn.Dense(3)

    def __call__(self, obs):
        return self.out(nn.tanh(self.hidden(obs)))


class NNXQ(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 5, rngs=rngs)
        self.out = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, obs):
        return self.out(nnx.tanh(self.hidden(obs)))


class LinenActorCritic(nn.Module):
    def setup(self):
        self.hidden, self.logits, self.value = nn.Dense(5), nn.Dense(3), nn.Dense(1)

    def __call__(self, obs):
        x = nn.tanh(self.hidden(obs))
        return distrax.Categorical(self.logits(x)), self.value(x)[..., 0]


class NNXActorCritic(nnx.Module):
    def __init__(self, size, *, rngs):
        self.hidden = nnx.Linear(3, size, rngs=rngs)
        self.logits = nnx.Linear(size, 3, rngs=rngs)
        self.value = nnx.Linear(size, 1, rngs=rngs)

    def __call__(self, obs):
        x = nnx.tanh(self.hidden(obs))
        return distrax.Categorical(self.logits(x)), self.value(x)[..., 0]


PPO = {"num_envs": 4, "num_steps": 8, "update_epochs": 2, "num_minibatches": 2}
DQN = {"num_envs": 4, "num_steps": 8, "buffer_size": 64, "batch_size": 8, "learning_starts": 16}
CASES = {
    "ppo": (PPO, LinenActorCritic(), from_nnx(lambda rngs: NNXActorCritic(5, rngs=rngs))),
    "dqn": (DQN, LinenQ(), from_nnx(NNXQ)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_agent_learns_the_same_as_with_the_network_in_linen(name):
    """From equal parameters: equal actions, losses, and parameters after gradient steps."""
    options, *networks = CASES[name]
    row = AGENTS[name]
    config = row.config(total_timesteps=1000, **options)
    env = wrappers.batched(walk(), 4)
    ends = []
    for network in networks:
        learner = make_learner(row.make(config, env.spec, network=network), env, 8)
        state = jax.jit(learner.init)(jax.random.key(0))
        if not ends:
            start = state
        assert jax.tree.structure(state) == jax.tree.structure(start)
        step = jax.jit(learner.step)
        before, metrics = step(start), None
        state, metrics = step(before[0])
        ends.append((state, metrics, before[1]))
    assert any(name.startswith("losses/") for name in ends[0][1])
    for x, y in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = map(jax.random.key_data, (x, y))
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    params = jax.tree.leaves(ends[0][0].agent)[0], jax.tree.leaves(start.agent)[0]
    assert not np.array_equal(*params)


def test_gradients_and_parameters_have_the_names_of_the_module():
    network = CASES["dqn"][2]
    obs = jnp.ones((2, 3))
    params = network.init(jax.random.key(0), obs)
    assert jax.tree.map(jnp.shape, params) == {
        "params": {
            "hidden": {"bias": (5,), "kernel": (3, 5)}, "out": {"bias": (3,), "kernel": (5, 3)},
        }
    }  # fmt: skip

    def loss(apply):
        return lambda params: jnp.square(apply(params, obs)).sum()

    grads = jax.grad(loss(network.apply))(params)
    expected = jax.grad(loss(LinenQ().apply))(params)
    jax.tree.map(np.testing.assert_array_equal, grads, expected)
    other = network.init(jax.random.key(1), obs)
    assert not np.array_equal(other["params"]["out"]["kernel"], params["params"]["out"]["kernel"])


class Stack(nnx.Module):
    """A module with a list of modules and a parameter of its own."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.scale = nnx.Param(jnp.full(3, 2.0))

    def __call__(self, obs, action):
        x = obs + action
        for layer in self.layers:
            x = layer(x)
        return x @ self.scale[...]


def test_nested_modules_and_several_inputs():
    network = from_nnx(Stack)
    inputs = jnp.ones((2, 3)), jnp.ones((2, 3))
    params = network.init(jax.random.key(0), *inputs)["params"]
    assert sorted(params["layers"]) == ["0", "1"] and (params["scale"] == 2.0).all()
    x = np.full((2, 3), 2.0)
    for layer in jax.tree.map(np.asarray, params["layers"]).values():
        x = x @ layer["kernel"] + layer["bias"]
    result = network.apply({"params": params}, *inputs)
    np.testing.assert_allclose(result, 2 * x.sum(axis=-1), rtol=1e-5)
    assert check_network("critic", network, inputs, (2,)) is network


def test_illegal_actions_are_masked():
    spec = EnvSpec({"legal": (3,), "x": (3,)}, num_actions=3, action_mask="legal")

    class OfTree(NNXActorCritic):
        def __call__(self, obs):
            return super().__call__(obs["x"])

    network = masked(from_nnx(lambda rngs: OfTree(4, rngs=rngs)), spec)
    obs = {"legal": jnp.array([True, False, True]), "x": jnp.ones(3)}
    params = network.init(jax.random.key(0), obs)
    probs = network.apply(params, obs)[0].probs
    assert probs[1] == 0.0 and (probs[::2] > 0.0).all()


class Normalized(NNXQ):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)


class Dropped(NNXQ):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)


REFUSED = {
    "a module": (
        NNXQ(nnx.Rngs(0)),
        r"type NNXQ, .* each seed .*: lambda rngs: NNXQ\(rngs",
    ),
    "a number": (3, "type int, but it must be a function"),
    "batch normalization": (Normalized, "Normalized has the BatchStat `norm.mean`, .* nnx.LayerN"),
    "dropout": (Dropped, "Dropped has the RngCount `drop.rngs.count`, .* only parameters"),
    "another result": (lambda rngs: 3, "something other than a flax.nnx.Module: give"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_network_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        from_nnx(make)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", [NNXQ, NNXQ(nnx.Rngs(0))], ids=["class", "module"])
@pytest.mark.parametrize("name", ["ppo", "dqn", "pqn"])
def test_agents_name_the_cure_for_a_bare_nnx_module(name, network):
    row = AGENTS[name]
    cure = r"; wrap it: `rljax.networks.from_nnx\(lambda rngs: NNXQ\(..., rngs=rngs\)\)`\.$"
    with pytest.raises(ValueError, match=cure):
        row.make(row.config(), walk().spec, network=network)


def test_continuous_agents_name_it_too():
    row = AGENTS["sac"]
    with pytest.raises(ValueError, match=r"`policy` is .*; wrap it: `rljax.networks.from_nnx"):
        row.make(row.config(), walk(continuous=True).spec, policy=NNXQ(nnx.Rngs(0)))
