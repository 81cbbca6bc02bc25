"""The configurations in which value-based agents are compared; the same in all programs."""

from typing import Any

DQN: dict[str, Any] = {  # rejax's configuration for CartPole, double and dueling
    "num_envs": 10, "num_steps": 1, "buffer_size": 50_000, "batch_size": 100,
    "learning_starts": 1_000, "train_frequency": 10, "gradient_steps": 5, "learning_rate": 1e-3,
    "gamma": 0.99, "tau": 0.02, "target_update_interval": 10, "eps_start": 1.0, "eps_end": 0.05,
    "exploration_fraction": 0.5, "max_grad_norm": 10.0, "hidden_sizes": (64, 64),
    "activation": "swish", "double": True, "dueling": True, "loss": "squared", "n_step": 1,
    "normalize_obs": False, "anneal_lr": False, "exploration_repeat": 1,
}  # fmt: skip
PQN: dict[str, Any] = {
    "num_envs": 32, "num_steps": 64, "update_epochs": 4, "num_minibatches": 16,
    "learning_rate": 5e-4, "anneal_lr": False, "gamma": 0.99, "trace_lambda": 0.95,
    "eps_start": 1.0, "eps_end": 0.05, "exploration_fraction": 0.2, "max_grad_norm": 10.0,
    "hidden_sizes": (64, 64), "activation": "relu",
}  # fmt: skip
STOCK = {"dqn": DQN, "pqn": PQN}
TIMESTEPS = {"dqn": 50_000, "pqn": 244 * 2048}  # whole rollouts
