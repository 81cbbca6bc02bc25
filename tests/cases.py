"""How each agent is tested: one row of `CASES` per row of `AGENTS`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from rljax.agents import AGENTS


class Case(NamedTuple):
    """How one agent is tested.

    Attributes:
      family: name in `test_probe_environments.FAMILIES`; None for agents that plan with a known
        model and do not learn from trajectories, which test_dynamic_programming.py tests.
      options: config values in the contract tests, in addition to `test_contract.SMALL`.
      unread: float options without effect in the plain variant of the contract tests.
      unread_full: float options without effect in the variant with all features on.
    """

    family: str | None
    options: Mapping[str, Any] = {}
    unread: frozenset[str] = frozenset()
    unread_full: frozenset[str] = frozenset()


EPSILON = frozenset({"eps_start", "eps_end", "exploration_fraction"})
PRIORITIES = frozenset({"priority_exponent", "importance_exponent"})
CORRELATION = frozenset({"noise_theta"})  # of Ornstein-Uhlenbeck noise
EXPLORATION = {"eps_end": 0.5, "exploration_fraction": 0.3, "max_grad_norm": 0.1}
REPLAY = EXPLORATION | {
    "buffer_size": 40, "batch_size": 8, "learning_starts": 12, "train_frequency": 5,
    "gradient_steps": 2, "target_update_interval": 10, "num_atoms": 7, "v_min": -2.0, "v_max": 3.0,
    "num_quantiles": 6,
}  # fmt: skip
CONTINUOUS = REPLAY | {
    "actor_learning_rate": 0.01, "critic_learning_rate": 0.02, "alpha_learning_rate": 0.03,
    "tau": 0.1,
}  # fmt: skip
TABULAR = {
    "eps_start": 0.9, "eps_end": 0.4, "initial_value": 0.5, "bonus": 0.1, "n_step": 3,
    "priority_threshold": 0.5,
}  # fmt: skip
_tabular = partial(Case, options=TABULAR)
_replay = partial(Case, options=REPLAY, unread=PRIORITIES)
_continuous = partial(Case, options=CONTINUOUS, unread=PRIORITIES)

CASES = {
    "q_learning": _tabular("one-step Q"),
    "double_q_learning": _tabular("one-step Q"),
    "sarsa": _tabular("one-step Q"),
    "expected_sarsa": _tabular("one-step Q"),
    "n_step_sarsa": _tabular("n-step Q"),
    "tree_backup": _tabular("one-step Q"),
    "sarsa_lambda": _tabular("Q(lambda)"),
    "q_lambda": _tabular("one-step Q"),
    "td": _tabular("TD(0)"),
    "n_step_td": _tabular("n-step TD"),
    "td_lambda": _tabular("TD(lambda)"),
    "true_online_td_lambda": _tabular("TD(lambda)"),
    "lambda_return": _tabular("TD(lambda)"),
    "dqn": _replay("DQN"),
    "c51": _replay("C51"),
    "qr_dqn": _replay("QR-DQN"),
    "munchausen": _replay("DQN", options=REPLAY | {"double": False, "n_step": 1}),
    "rainbow": _replay("Rainbow", unread=EPSILON, unread_full=EPSILON),
    "ddpg": _continuous("DDPG", unread=PRIORITIES | CORRELATION),
    "td3": _continuous("TD3", unread=PRIORITIES | CORRELATION),
    "sac": _continuous("SAC", unread=PRIORITIES | CORRELATION),
    "simba": _continuous(
        "SimBa", options=CONTINUOUS | {"actor_hidden_sizes": (4,)}, unread=PRIORITIES | CORRELATION
    ),
    "discrete_sac": _continuous("discrete SAC"),
    "pqn": Case("PQN", EXPLORATION),
    "reinforce": Case("Monte Carlo policy"),
    "actor_critic": Case("one-step policy"),
    "a2c": Case("GAE policy"),
    "a3c": Case("GAE policy", {"pull_period": 2}),
    "impala": Case("Monte Carlo policy", {"pull_period": 2}),
    "trpo": Case("GAE policy"),
    "ppo": Case("GAE policy", unread=frozenset({"target_kl"})),
    # `target_kl` is so small that the hinge has an effect
    "dppo": Case(
        "GAE policy", {"surrogate": "hinge", "target_kl": 2e-4}, unread=frozenset({"clip_eps"})
    ),
    "value_iteration": Case(None),
    "policy_iteration": Case(None),
    "dyna_q": _tabular("model"),
    "dyna_q_plus": _tabular("model"),
    "prioritized_sweeping": _tabular("model"),
}
LEARNERS = [name for name in AGENTS if CASES.get(name, Case(None)).family]
