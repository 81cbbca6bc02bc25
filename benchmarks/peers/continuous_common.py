"""The configurations in which agents are compared on Pendulum; the same in all programs."""

from typing import Any

ENV_ID = "Pendulum-v1"
REPLAY: dict[str, Any] = {  # of both libraries: one gradient step after every environment step
    "num_envs": 1, "num_steps": 1, "train_frequency": 1, "gradient_steps": 1, "gamma": 0.99,
    "hidden_sizes": (64, 64),
}  # fmt: skip
REJAX: dict[str, dict[str, Any]] = {  # its configs/gymnax/pendulum.yaml
    "td3": REPLAY | {
        "buffer_size": 10_000, "batch_size": 100, "learning_starts": 1_000, "tau": 0.05,
        "policy_delay": 2, "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3,
        "activation": "swish", "normalize_obs": True,
        "noise_std": 0.15, "target_noise": 0.1, "target_noise_clip": 0.25,
    },
    "sac": REPLAY | {
        "buffer_size": 10_000, "batch_size": 256, "learning_starts": 256, "tau": 0.02,
        "actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2, "alpha_learning_rate": 1e-2,
        "activation": "swish", "normalize_obs": True, "exploration_repeat": 1,
    },
}  # fmt: skip
RLTOOLS: dict[str, dict[str, Any]] = {  # its defaults
    "td3": REPLAY | {
        "buffer_size": 20_000, "batch_size": 100, "learning_starts": 100, "tau": 0.005,
        "policy_delay": 2, "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3,
        "activation": "relu",
    },
    "sac": REPLAY | {
        "buffer_size": 20_000, "batch_size": 100, "learning_starts": 100, "tau": 0.005,
        "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "alpha_learning_rate": 1e-3,
        "initial_alpha": 0.5, "activation": "relu", "exploration_repeat": 1,
    },
    "ppo": {  # not its defaults: those of its examples, with larger batches
        "num_envs": 64, "num_steps": 128, "num_minibatches": 8, "update_epochs": 1, "gamma": 0.9,
        "gae_lambda": 0.95, "clip_eps": 0.2, "ent_coef": 0.0, "learning_rate": 1e-3,
        "anneal_lr": False, "hidden_sizes": (32, 32), "activation": "tanh",
        "normalize_obs": True, "normalize_reward": False,
    },
}  # fmt: skip
DDPG = {name: x for name, x in RLTOOLS["td3"].items() if name != "policy_delay"} | {
    "noise": "gaussian", "noise_std": 0.1,
}  # fmt: skip
STOCK = {"rejax": REJAX, "rltools": RLTOOLS, "-": {"ddpg": DDPG}}


def timesteps(peer: str, agent: str) -> int:
    """Returns the environment steps of a seed."""
    if agent == "ppo":
        return 300 * RLTOOLS["ppo"]["num_envs"] * RLTOOLS["ppo"]["num_steps"]
    return 10_000 if peer == "rejax" else 20_000
