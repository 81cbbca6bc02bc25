"""rejax's TD3 or SAC: `--algorithm td3` or `sac`, at the configuration of its pendulum.yaml.

Differs from rljax: batches are sampled without replacement, gradients are clipped element by
element, and time limits count as terminations. Its evaluations during training are disabled; one
is made afterwards, not timed.
"""

import common
import continuous_common
import jax
import rejax

NOISE = {  # of TD3, in units of the torque: bounds -2 and 2
    "exploration_noise": 0.3, "target_noise": 0.2, "target_noise_clip": 0.5,
}  # fmt: skip


def main():
    options = common.options(
        "rejax's TD3 and SAC",
        algorithm={"choices": ("td3", "sac"), "default": "td3"},
        width={"type": int, "default": 64, "help": "units of both hidden layers"},
    )
    stock = continuous_common.STOCK["rejax"][options.algorithm]
    steps, activation = options.timesteps, stock["activation"]
    shared = {name: stock[name] for name in ("num_envs", "buffer_size", "batch_size", "gamma")}
    shared |= {
        "env": continuous_common.ENV_ID, "total_timesteps": steps, "eval_freq": steps,
        "skip_initial_evaluation": True, "fill_buffer": stock["learning_starts"],
        "num_epochs": stock["gradient_steps"], "polyak": 1.0 - stock["tau"],
        "learning_rate": stock["actor_learning_rate"],
        "normalize_observations": stock["normalize_obs"],
    }  # fmt: skip
    if options.algorithm == "td3":
        algorithm = rejax.TD3.create(
            actor_kwargs={"activation": activation}, critic_kwargs={"activation": activation},
            max_grad_norm=100.0, policy_delay=stock["policy_delay"], **NOISE, **shared,
        )  # fmt: skip
    else:
        algorithm = rejax.SAC.create(agent_kwargs={"activation": activation}, **shared)
    sizes = {"hidden_layer_sizes": (options.width, options.width)}
    algorithm = algorithm.replace(
        actor=algorithm.actor.clone(**sizes), critic=algorithm.critic.clone(**sizes)
    )
    silent = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    key = common.keys(options.num_seeds)
    program, compiling = common.compiled(common.over_seeds(silent.train, options.num_seeds), key)
    clocks = []
    for _ in range(options.runs):  # no warm-up run: the program is compiled ahead of time
        with common.Clock() as clock:
            state, _ = program(key)
        clocks.append(clock)

    def evaluate(state):
        return algorithm.eval_callback(algorithm, state, state.rng)[1].mean()

    returns = jax.jit(common.over_seeds(evaluate, options.num_seeds))(state)
    common.answer(
        options.num_seeds * steps, clocks, compiling, final_return=float(returns.mean()),
        versions=common.versions("rejax", "jax", "gymnax", "flax", "distrax"),
        **common.jax_device(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
