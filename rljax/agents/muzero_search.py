"""The search of Gumbel MuZero: that of `search.gumbel_search`, in a learned model."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rljax.agents.search import (
    RecurrentFnOutput,
    RootFnOutput,
    Search,
    gumbel_search,
    search_discount,
)
from rljax.ops.observations import split_mask
from rljax.ops.value_supports import from_support
from rljax.types import EnvSpec


def make_search(config: Any, spec: EnvSpec, network: Any) -> Callable[..., Search]:
    """Returns the search, `(params, obs[B], key, explore) -> Search`.

    Actions that are illegal at the root are not searched. Deeper in the tree all actions are
    legal: the model has learned the rewards and values of those that were played.

    Args:
      config: a `SearchConfig`.
      spec: description of the environment; in a game of two players, values alternate their sign.
      network: the three networks of MuZero, see `networks.muzero`.

    Example:
      >>> import jax
      >>> from rljax.agents.muzero import MuZeroConfig
      >>> from rljax.networks.muzero import muzero_network
      >>> spec = EnvSpec((4,), num_actions=2)
      >>> network = muzero_network(spec, 5, (8,))
      >>> obs, action, key = jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32), jax.random.key(0)
      >>> search = make_search(MuZeroConfig(num_simulations=4), spec, network)
      >>> search(network.init(key, obs, action), obs, key, 1.0).policy.shape
      (3, 2)
    """
    discount = search_discount(spec, config.gamma)

    def predict(params, state):
        logits, value_logits = network.apply(params, state, method="predict")
        return logits, from_support(value_logits)

    def imagine(params, key, action, state):
        """The `recurrent_fn` of mctx: one step of the model."""
        del key
        state, reward_logits = network.apply(params, state, action, method="dynamics")
        logits, value = predict(params, state)
        output = RecurrentFnOutput(
            reward=from_support(reward_logits), prior_logits=logits, value=value,
            discount=jnp.broadcast_to(jnp.float32(discount), value.shape),
        )  # fmt: skip
        return output, state

    def search(params, obs, key, explore):
        state = network.apply(params, obs, method="represent")
        logits, value = predict(params, state)
        root = RootFnOutput(prior_logits=logits, value=value, embedding=state)
        mask = split_mask(spec, obs)[1]
        return gumbel_search(
            config, params, key, root, imagine, None if mask is None else ~mask, explore
        )

    return search
