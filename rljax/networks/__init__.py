"""Flax networks: policies, action values, recurrent networks, and the layers they share."""

from rljax.networks.action_values import NoisyDense, QNetwork, check_q_network, q_network
from rljax.networks.actor_critic import (
    STDS,
    ActorCritic,
    actor_critic_network,
    check_actor_critic,
)
from rljax.networks.cells import GRU, LSTM, MEMORIES, S5, MemoryCell
from rljax.networks.convolutions import MinAtarConvolution, NatureConvolution
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import ACTIVATIONS, MLP, orthogonal
from rljax.networks.nnx_modules import from_nnx
from rljax.networks.policies import (
    MultiCategorical,
    from_box,
    like,
    normal,
    parameters,
    policy_noise,
    sample,
    to_box,
)
from rljax.networks.recurrent import RecurrentActorCritic, recurrent_actor_critic_network

__all__ = [
    "ACTIVATIONS", "GRU", "LSTM", "MEMORIES", "MLP", "S5", "STDS", "ActorCritic", "Encoder",
    "Inputs", "MemoryCell", "MinAtarConvolution", "MultiCategorical", "NatureConvolution",
    "NoisyDense", "QNetwork", "RecurrentActorCritic", "actor_critic_network", "check_actor_critic",
    "check_q_network", "example_obs", "from_box", "from_nnx", "inputs_of", "like", "normal",
    "orthogonal", "parameters", "policy_noise", "q_network", "recurrent_actor_critic_network",
    "sample", "to_box",
]  # fmt: skip
