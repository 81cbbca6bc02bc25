"""C51, https://arxiv.org/abs/1707.06887 (algorithm 1): DQN that learns the distribution of returns.

A network gives each action probabilities of evenly spaced returns; the loss is the cross-entropy
to their distributional Bellman target. Rainbow, https://arxiv.org/abs/1710.02298, is C51 with the
five other parts of DQN on; it differs from the paper in the sizes that its defaults have here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.agents.dqn import Objective, QConfig, dqn
from rljax.config import config, option
from rljax.networks import action_values
from rljax.ops import distributional, td
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class C51Config(QConfig):
    num_atoms: int = option(51, "returns that are told apart", low=2)
    v_min: float = option(-100.0, "the smallest of them")
    v_max: float = option(100.0, "the largest of them")

    def __post_init__(self):
        super().__post_init__()
        bounds = self.v_min, self.v_max
        if all(isinstance(x, (int, float, np.number)) for x in bounds) and self.v_min >= self.v_max:
            raise ValueError(
                f"`v_min` is {self.v_min}, but it must be below `v_max`, which is {self.v_max}."
            )


@config
class RainbowConfig(C51Config):
    double: bool = option(True, "the online network chooses what is bootstrapped from")
    dueling: bool = option(True, "a stream for the state and one for the actions")
    noisy: bool = option(True, "explore by learned noise in the network, not by chance")
    prioritized: bool = option(True, "replay what had large errors more often")
    n_step: int = option(3, "rewards in a target before it bootstraps", low=1)
    priority_exponent: float = option(0.5, "0: uniform; 1: in proportion to errors", low=0, high=1)


def categorical_objective(support: Array, bootstrap: Callable[..., Array]) -> Objective:
    """Logits of the returns in `support[K]`, moved to the projected target by cross-entropy.

    Replay is prioritized by the Kullback-Leibler divergence from the target, as in Rainbow.
    """

    def values(logits):
        return (jax.nn.softmax(logits) * support.reshape(*(1,) * (logits.ndim - 1), -1)).sum(-1)

    def errors(online, target, batch, discount):
        logits = td.chosen(online(batch.obs), batch.action)
        beyond = target(batch.next_obs)
        action = bootstrap(values(online(batch.next_obs)), values(beyond))
        probabilities = jax.nn.softmax(td.chosen(beyond, action))
        goal = distributional.categorical_projection(
            probabilities, batch.reward, jnp.where(batch.terminated, 0.0, discount), support
        )
        goal = jax.lax.stop_gradient(goal)
        loss = distributional.categorical_loss(logits, goal)
        divergence = loss + jax.scipy.special.xlogy(goal, goal).sum(axis=-1)
        return loss, jnp.maximum(divergence, 0.0), values(logits)

    return Objective(values, errors)


def c51(
    config: C51Config, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[..., Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a C51 agent, or with `RainbowConfig` a Rainbow agent.

    The arguments are those of `rljax.agents.dqn.dqn`; a network gives logits `[..., A, num_atoms]`.
    """
    network = network or action_values.q_network(
        spec, config.hidden_sizes, config.activation, num_outputs=config.num_atoms,
        dueling=config.dueling, noisy=config.noisy,
    )  # fmt: skip
    bootstrap = bootstrap or td.action_selection(config.double)
    support = jnp.linspace(config.v_min, config.v_max, config.num_atoms)
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay,
        objective=categorical_objective(support, bootstrap), average=average,
    )  # fmt: skip
