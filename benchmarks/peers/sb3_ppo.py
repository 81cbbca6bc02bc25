"""PPO of Stable-Baselines3, or of its JAX version sbx: `--library sb3` or `sbx`.

Both step gymnasium's CartPole from Python, in one process (`DummyVecEnv`). They are some hundred
times slower, so a shorter run is timed; the rate does not depend on its length. sbx ignores
`clip_range_vf` and initializes its networks differently. On a CPU torch gets one thread, because
networks of this size are slower with more.

`--env-id BreakoutNoFrameskip-v4` takes SB3's own Atari wrappers and network (`CnnPolicy`), and as
many threads as there are cores.
"""

import common
import numpy as np


def main():
    options = common.options(
        "PPO of Stable-Baselines3 or sbx", library={"choices": ("sb3", "sbx"), "default": "sb3"},
        **{"env-id": {"default": "CartPole-v1"}, "num-envs": {"type": int, "default": 4}},
    )  # fmt: skip
    stock = common.STOCK | {"env_id": options.env_id, "num_envs": options.num_envs}
    rollout = stock["num_envs"] * stock["num_steps"]
    is_atari = "NoFrameskip" in options.env_id
    if options.num_seeds != 1:
        raise SystemExit(f"{options.library} trains one seed per process: set --num-seeds to 1.")
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    if not is_atari:
        torch.set_num_threads(1)
    if options.library == "sb3":
        from stable_baselines3 import PPO

        where = {"backend": "cpu", "device": "cpu", "num_devices": 1}
        activation, packages = torch.nn.Tanh, ("stable-baselines3", "torch", "gymnasium")
    else:
        import jax
        from sbx import PPO

        where, activation = common.jax_device(), jax.numpy.tanh
        packages = ("sbx-rl", "jax", "gymnasium")
    hidden = list(stock["hidden_sizes"])
    policy_kwargs = {
        "net_arch": {"pi": hidden, "vf": hidden}, "activation_fn": activation, "ortho_init": True,
    }  # fmt: skip
    if is_atari:
        env, policy, policy_kwargs = atari(stock), "CnnPolicy", None
    else:
        env, policy = make_vec_env(stock["env_id"], stock["num_envs"], seed=30), "MlpPolicy"
    agent = PPO(
        policy, env,
        learning_rate=lambda remaining: stock["learning_rate"] * remaining,
        n_steps=stock["num_steps"], batch_size=rollout // stock["num_minibatches"],
        n_epochs=stock["update_epochs"], gamma=stock["gamma"], gae_lambda=stock["gae_lambda"],
        clip_range=stock["clip_eps"], clip_range_vf=stock["clip_eps"], ent_coef=stock["ent_coef"],
        vf_coef=stock["vf_coef"], max_grad_norm=stock["max_grad_norm"], device="cpu", seed=30,
        policy_kwargs=policy_kwargs,
    )  # fmt: skip
    with common.Clock() as first:  # sbx compiles here
        agent.learn(2 * rollout)
    steps = options.timesteps // rollout * rollout
    clocks = []
    for _ in range(options.runs):
        with common.Clock() as clock:
            agent.learn(steps, reset_num_timesteps=False)
        clocks.append(clock)
    if options.library == "sbx":  # compiling is what the first two updates took longer
        share = 2 * rollout / steps
        first.wall = max(0.0, first.wall - share * float(np.median([x.wall for x in clocks])))
        first.cpu = max(0.0, first.cpu - share * float(np.median([x.cpu for x in clocks])))
    common.answer(
        steps, clocks, first if options.library == "sbx" else None,
        versions=common.versions(*packages), **where,
    )  # fmt: skip


def atari(stock):
    """Returns an Atari game in one process, preprocessed by SB3, with 4 frames stacked."""
    import ale_py
    import gymnasium
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env(stock["env_id"], stock["num_envs"], seed=30), 4)


if __name__ == "__main__":
    main()
