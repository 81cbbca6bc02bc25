"""Flax networks: policies, action values, recurrent networks, and the layers they share."""

from rljax.networks.action_values import NoisyDense, QNetwork, q_network
from rljax.networks.layers import ACTIVATIONS, MLP, ConvTorso, flat_features, orthogonal, torso_of
from rljax.networks.policies import (
    STDS,
    ActorCritic,
    actor_critic_network,
    like,
    normal,
    parameters,
    policy_noise,
    sample,
    to_box,
)
from rljax.networks.recurrent import GRU, RecurrentActorCritic, recurrent_actor_critic_network

__all__ = [
    "ACTIVATIONS", "GRU", "MLP", "STDS", "ActorCritic", "ConvTorso", "NoisyDense", "QNetwork",
    "RecurrentActorCritic", "actor_critic_network", "flat_features", "like", "normal",
    "orthogonal", "parameters", "policy_noise", "q_network", "recurrent_actor_critic_network",
    "sample", "to_box", "torso_of",
]  # fmt: skip
