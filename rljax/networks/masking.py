"""Actor-critics in environments where some actions are illegal."""

from typing import Any

import flax.linen as nn

from rljax.networks.actor_critic import memory_size_of
from rljax.networks.policies import with_legal_actions
from rljax.networks.recurrent import Unrolled
from rljax.ops.observations import environment_obs, field
from rljax.types import EnvSpec


class Masked(nn.Module):
    """An actor-critic whose policy gives illegal actions the probability 0.

    The mask is a field of the observation, so log-probabilities, entropies and KL divergences are
    those of the legal actions, in acting and in training. It has the parameters of `network`.

    Attributes:
      network: `obs -> (policy, value)`.
      action_mask: field of the observation with the legal actions.
      memory_size: size of the memory of a recurrent network, else 0.
    """

    network: nn.Module
    action_mask: str
    memory_size: int = 0

    def setup(self):
        nn.share_scope(self, self.network)

    def __call__(self, inputs):
        policy, value = self.network(inputs)
        obs = inputs.obs if isinstance(inputs, Unrolled) else environment_obs(inputs)
        return with_legal_actions(policy, field(obs, self.action_mask)), value

    def next_memory(self, obs):
        """Returns the memory after an observation, `[..., H]`."""
        return self.network.next_memory(obs)


def masked(network: Any, spec: EnvSpec) -> Any:
    """Returns an actor-critic that respects the action mask of an environment, if it has one."""
    if not spec.action_mask:
        return network
    return Masked(network, spec.action_mask, memory_size_of(network))
