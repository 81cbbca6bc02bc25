"""Networks and replay buffers that do not fit DQN and its relatives are rejected by the makers."""

import flax.linen as nn
import pytest
from flax import nnx

from rljax.agents.c51 import C51Config, c51
from rljax.agents.dqn import DQNConfig, dqn
from rljax.networks import action_values, actor_critic_network
from rljax.replay import uniform
from rljax.types import EnvSpec

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=2)
OPTIONS = {
    "hidden_sizes": (5,), "buffer_size": 40, "batch_size": 6, "learning_starts": 6, "n_step": 1,
}  # fmt: skip
CONFIG = DQNConfig(**OPTIONS)


class StateValue(nn.Module):
    """A network with one value for each observation, and none for the actions."""

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(1)(obs)[..., 0]


WRONG_NETWORKS = {
    "actor-critic": (
        actor_critic_network(SPEC, (5,)),
        ["`network` returns a tuple", "maps obs[2, 3] to an array [2, 4]", "agent such as ppo"],
    ),
    "another number of actions": (
        action_values.q_network(SPEC._replace(num_actions=5), (5,)),
        ["`network` returns an array [2, 5], but", "to an array [2, 4]"],
    ),
    "state values": (StateValue(), ["`network` returns an array [2], but", "an array [2, 4]"]),
    "nnx": (
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)),
        ["`network` is a Linear, but it must be a flax linen module", "to an array [2, 4]"],
    ),
    "function": (
        lambda obs: obs,
        ["`network` is a function, but it must be a flax linen module", "to an array [2, 4]"],
    ),
}


@pytest.mark.parametrize("kind", WRONG_NETWORKS)
def test_a_network_that_is_no_q_network_is_rejected_by_the_maker(kind):
    network, parts = WRONG_NETWORKS[kind]
    with pytest.raises(ValueError) as error:
        dqn(CONFIG, SPEC, network=network)
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message and message.count(". ") == 0 and message.endswith(".")


def test_c51_rejects_a_network_without_atoms():
    network = action_values.q_network(SPEC, (5,))
    message = r"returns an array \[2, 4\], but a Q-network maps .* to an array \[2, 4, 51\]\."
    with pytest.raises(ValueError, match=message):
        c51(C51Config(**OPTIONS), SPEC, network=network)
    c51(C51Config(**OPTIONS), SPEC, network=action_values.q_network(SPEC, (5,), num_outputs=51))


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        (uniform, "`replay` is the function `uniform` without the function `init`, but it must be"),
        (uniform(40, 6)._replace(sample=None), "of type `Replay` without the function `sample`"),
        ("prioritized", "`replay` is of type `str` without"),
    ],
)
def test_an_object_that_is_no_replay_is_rejected_by_the_maker(replay, message):
    with pytest.raises(ValueError, match=message) as error:
        dqn(CONFIG, SPEC, replay=replay)
    assert "\n" not in str(error.value)


def test_continuous_actions_are_rejected_by_the_maker():
    with pytest.raises(ValueError, match="action values need discrete actions"):
        dqn(CONFIG, SPEC._replace(num_actions=0, action_shape=(2,)))
