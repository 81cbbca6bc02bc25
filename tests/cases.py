"""How each agent is tested: one row of `CASES` per row of `AGENTS`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from rljax.agents import AGENTS


class Case(NamedTuple):
    """How one agent is tested.

    Attributes:
      family: name in `test_probe_environments.FAMILIES`; `NO_VALUES` for agents that learn neither
        values nor a policy; None for agents that plan with a known model and do not learn from
        trajectories, which test_dynamic_programming.py tests.
      options: config values in the contract tests, in addition to `test_contract.SMALL`.
      unread: float options without effect in the plain variant of the contract tests.
      unread_full: float options without effect in the variant with all features on.
      tolerance: largest difference between runs under `vmap` and alone. A search scales action
        values to [0, 1], and with them their rounding errors. Adam enlarges those of gradients
        near 0, such as those of the noise of Rainbow.
    """

    family: str | None
    options: Mapping[str, Any] = {}
    unread: frozenset[str] = frozenset()
    unread_full: frozenset[str] = frozenset()
    tolerance: float = 1e-5


EPSILON = frozenset({"eps_start", "eps_end", "exploration_fraction"})
PRIORITIES = frozenset({"priority_exponent", "importance_exponent"})
CORRELATION = frozenset({"noise_theta"})  # of Ornstein-Uhlenbeck noise
EXPLORATION = {
    "eps_end": 0.5, "exploration_fraction": 0.3, "max_grad_norm": 0.1, "exploration_repeat": 2,
}  # fmt: skip
REPLAY = EXPLORATION | {
    "buffer_size": 40, "batch_size": 8, "learning_starts": 12, "train_frequency": 5,
    "gradient_steps": 2, "target_update_interval": 10, "num_atoms": 7, "v_min": -2.0, "v_max": 3.0,
    "num_quantiles": 6,
}  # fmt: skip
CONTINUOUS = REPLAY | {
    "actor_learning_rate": 0.01, "critic_learning_rate": 0.02, "alpha_learning_rate": 0.03,
    "tau": 0.1,
}  # fmt: skip
MODEL = {
    "num_models": 3, "num_elites": 2, "model_hidden_sizes": (4,), "model_batch_size": 4,
    "model_train_frequency": 10, "model_max_epochs": 2, "model_learning_rate": 0.01,
    "model_weight_decay": 0.1, "model_noise": 0.5,
}  # fmt: skip
MBPO = MODEL | {
    "n_step": 1, "prioritized": False, "real_batch_size": 2, "num_rollouts": 4,
    "imagined_buffer_size": 12, "final_rollout_length": 3, "rollout_length": 2,
}  # fmt: skip
PETS = MODEL | {
    "buffer_size": 40, "learning_starts": 12, "horizon": 3, "num_candidates": 6,
    "num_elite_plans": 2, "num_iterations": 2, "num_particles": 2, "smoothing": 0.2,
    "model_noise": 5.0,
}  # fmt: skip
MUZERO = REPLAY | {
    "num_simulations": 3, "num_considered_actions": 2, "unroll_steps": 2, "n_step": 3,
    "support_size": 3, "num_reanalyzed": 2, "weight_decay": 0.1,
}  # fmt: skip
TABULAR = {
    "eps_start": 0.9, "eps_end": 0.4, "initial_value": 0.5, "bonus": 0.1, "n_step": 3,
    "priority_threshold": 0.5,
}  # fmt: skip
_tabular = partial(Case, options=TABULAR)
_replay = partial(Case, options=REPLAY, unread=PRIORITIES)
_continuous = partial(Case, options=CONTINUOUS, unread=PRIORITIES)

ALPHAZERO = REPLAY | {
    "n_step": 1, "num_simulations": 4, "trace_lambda": 0.7, "learning_rate": 0.01, "tau": 0.5,
    "gumbel_scale": 3.0,
}  # fmt: skip
NO_VALUES = "no values"

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
    "munchausen": _replay("DQN", options=REPLAY | {"double": False}),
    "rainbow": _replay("Rainbow", unread=EPSILON, unread_full=EPSILON, tolerance=1e-4),
    "ddpg": _continuous("DDPG", unread=PRIORITIES | CORRELATION),
    "td3": _continuous("TD3", unread=PRIORITIES | CORRELATION),
    "sac": _continuous("SAC", unread=PRIORITIES | CORRELATION),
    "simba": _continuous(
        "SimBa",
        options=CONTINUOUS | {"actor_hidden_sizes": (4,), "normalize_obs": True},
        unread=PRIORITIES | CORRELATION,
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
    "mbpo": _continuous(
        "MBPO",
        options=CONTINUOUS | MBPO,
        unread=PRIORITIES | CORRELATION | {"target_entropy_per_dimension"},
        unread_full=PRIORITIES | {"target_entropy_scale"},
    ),
    "pets": Case(NO_VALUES, PETS),
    "alphazero": _replay(
        "AlphaZero",
        options=ALPHAZERO,
        unread=PRIORITIES | {"dirichlet_fraction"},
        unread_full=frozenset({"dirichlet_fraction"}),
    ),
    "muzero": _replay("MuZero", options=MUZERO, tolerance=1e-4),
}
LEARNERS = [name for name in AGENTS if CASES.get(name, Case(None)).family]
