"""What the agents that plan by tree search share: AlphaZero and MuZero.

The searches are those of mctx, https://github.com/google-deepmind/mctx.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from rljax.agents.policy_gradient import TORSO_HELP
from rljax.agents.replay_schedule import ReplayConfig
from rljax.config import config, option
from rljax.networks.layers import ACTIVATIONS
from rljax.ops import random
from rljax.ops.observations import split_mask
from rljax.types import Array, Env, EnvSpec, Key, PyTree, sample_one

DIRICHLET_ALPHA = 0.3  # as for chess in Silver et al. 2018
# In a search, action values are scaled to [0, 1]. Differences below 0.01 stay small, because they
# are errors of the value network: Ye et al. 2021, https://arxiv.org/abs/2111.00210 (their code).
QTRANSFORM = partial(mctx.qtransform_completed_by_mix_value, epsilon=0.01)
# type checkers do not see the fields of a dataclass of chex
RootFnOutput: Any = mctx.RootFnOutput
RecurrentFnOutput: Any = mctx.RecurrentFnOutput


class Search(NamedTuple):
    """The result of a search.

    Attributes:
      action: the action to take, `[B]` int32.
      policy: the policy that the search recommends, the target of the policy network, `[B, A]`.
      value: the value of the root, `[B]`.
      q_values: values of the actions, `[B, A]`; of those without visits, as the search sees them.
      visits: simulations that began with each action, `[B, A]` int32.
    """

    action: Array
    policy: Array
    value: Array
    q_values: Array
    visits: Array


@config
class SearchConfig(ReplayConfig):
    """Options of agents with a tree search and a network."""

    activation: str = option("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    torso: str = option("auto", TORSO_HELP, choices=("auto", "mlp", "conv"))
    num_simulations: int = option(16, "simulations of a search", low=1)
    num_considered_actions: int = option(
        16, "actions that sequential halving starts with, at the root", low=1
    )
    gumbel_scale: float = option(1.0, "scale of the Gumbel noise at the root", low=0)
    learning_rate: float = option(1e-3, "learning rate of the optimizer", above=0)
    weight_decay: float = option(1e-4, "weight decay of AdamW", low=0)
    max_grad_norm: float = option(5.0, "maximum global norm of the gradient", above=0)


def search_discount(spec: EnvSpec, gamma: Any) -> Any:
    """Returns the factor of the value of the next state in the value of a state.

    In a game of two players it is negative: the next state is valued by the opponent, and what
    the opponent gains, the player loses.

    Example:
      >>> search_discount(EnvSpec(num_actions=9, num_players=2), 1.0)
      -1.0
    """
    return -gamma if spec.num_players == 2 else gamma


def gumbel_search(
    config: Any, params: PyTree, key: Key, root: mctx.RootFnOutput, step: Callable[..., Any],
    illegal: Array | None, explore: Any,
) -> Search:  # fmt: skip
    """Searches with Gumbel noise and sequential halving at the root.

    Danihelka et al. 2022, https://openreview.net/forum?id=bERaNdoegnO (sections 3 and 4). The value
    is that of the improved policy over the visited actions.

    Args:
      config: a `SearchConfig`.
      params, key, root, step: as those of `mctx.gumbel_muzero_policy`, whose `recurrent_fn` is
        `step`.
      illegal: actions that are illegal at the root, `[B, A]` bool, or None.
      explore: 1 with noise at the root, 0 without; then the best action is taken.
    """
    output: Any = mctx.gumbel_muzero_policy(
        params, key, root, step, config.num_simulations, illegal, qtransform=QTRANSFORM,
        gumbel_scale=explore * config.gumbel_scale,
        max_num_considered_actions=config.num_considered_actions,
    )  # fmt: skip
    tree: Any = output.search_tree.summary()
    value = improved_value(output.action_weights, tree.qvalues, tree.visit_counts)
    return Search(output.action, output.action_weights, value, tree.qvalues, tree.visit_counts)


def puct_search(
    config: Any, params: PyTree, key: Key, root: mctx.RootFnOutput, step: Callable[..., Any],
    illegal: Array | None, explore: Any,
) -> Search:  # fmt: skip
    """Searches with the rule PUCT and Dirichlet noise at the root; arguments as `gumbel_search`.

    Silver et al. 2018, https://arxiv.org/abs/1712.01815. The policy is the share of the visits.
    With noise an action is sampled from it, without noise it is the most visited one.
    """
    output: Any = mctx.muzero_policy(
        params, key, root, step, config.num_simulations, illegal,
        dirichlet_fraction=explore * config.dirichlet_fraction, dirichlet_alpha=DIRICHLET_ALPHA,
        temperature=explore,
    )  # fmt: skip
    tree: Any = output.search_tree.summary()
    policy = tree.visit_probs
    return Search(output.action, policy, tree.value, tree.qvalues, tree.visit_counts)


SEARCHES = {"gumbel": gumbel_search, "puct": puct_search}


def make_search(
    config: Any, spec: EnvSpec, network: Callable[..., Any], model: Env
) -> Callable[..., Search]:  # fmt: skip
    """Returns a search in a known environment, `(params, obs[B], state[B], key, explore)`.

    Each simulation steps the environment once, with its own random numbers. The value of a state
    where the episode terminates is 0; where a time limit ends it, that of the network.

    Args:
      config: `gamma`, `search`, and the options of the search.
      spec: description of the environment.
      network: `(params, obs[B]) -> (policy, value[B])`.
      model: the single environment; its `step` does not need to reset.
    """
    discount = search_discount(spec, config.gamma)

    def evaluate(params, obs):
        policy, value = network(params, obs)
        return policy.logits, value

    def simulate(params, key, action, state):
        """The `recurrent_fn` of mctx: one step of the environment."""
        keys = random.split(key, action.shape[0])
        noise = jax.vmap(lambda key: sample_one(model.sample_noise, key))(keys)
        state, step = jax.vmap(model.step)(state, action, noise)
        logits, value = evaluate(params, step.next_obs)
        reward = step.reward + jnp.where(step.truncated, discount * value, 0.0)
        done = step.terminated | step.truncated
        output = RecurrentFnOutput(
            reward=reward, discount=jnp.where(done, 0.0, discount), prior_logits=logits,
            value=jnp.where(done, 0.0, value),
        )  # fmt: skip
        return output, state

    def search(params, obs, state, key, explore):
        logits, value = evaluate(params, obs)
        root = RootFnOutput(prior_logits=logits, value=value, embedding=state)
        mask = split_mask(spec, obs)[1]
        illegal = None if mask is None else ~mask
        return SEARCHES[config.search](config, params, key, root, simulate, illegal, explore)

    return search


def improved_value(policy: Array, q: Array, visits: Array) -> Array:
    """Returns the value of the improved policy over the visited actions, `[..., A] -> [...]`.

        sum_a pi(a) q(a) / sum_a pi(a),  over actions with visits

    The mean over visits, which MuZero uses, would be too low: sequential halving gives bad actions
    as many visits as good ones.

    Example:
      >>> arrays = jnp.array([0.6, 0.2, 0.2]), jnp.array([1.0, 5.0, 99.0]), jnp.array([3, 1, 0])
      >>> improved_value(*arrays).round(3)
      Array(2., dtype=float32)
    """
    weight = jnp.where(visits > 0, jnp.maximum(policy, jnp.finfo(policy.dtype).tiny), 0.0)
    return (weight * q).sum(axis=-1) / weight.sum(axis=-1)
