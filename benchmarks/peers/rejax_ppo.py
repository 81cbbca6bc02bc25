"""rejax's PPO.

Differs from the shared configuration: the learning rate is constant, gradients are clipped element
by element, the networks are initialized differently, and time limits count as terminations. Its
evaluations during training are disabled; one is made afterwards, not timed.
"""

import common
import jax
import rejax


def main():
    options = common.options("rejax PPO", width={"type": int, "default": 0})
    stock = common.ppo_configuration(options.width)
    steps = options.timesteps // common.ROLLOUT * common.ROLLOUT  # it would round up
    algorithm = rejax.PPO.create(
        env=stock["env_id"], num_envs=stock["num_envs"], num_steps=stock["num_steps"],
        num_epochs=stock["update_epochs"], num_minibatches=stock["num_minibatches"],
        learning_rate=stock["learning_rate"], gamma=stock["gamma"], gae_lambda=stock["gae_lambda"],
        clip_eps=stock["clip_eps"], ent_coef=stock["ent_coef"], vf_coef=stock["vf_coef"],
        max_grad_norm=stock["max_grad_norm"], total_timesteps=steps, eval_freq=steps,
        skip_initial_evaluation=True,
        agent_kwargs={
            "hidden_layer_sizes": stock["hidden_sizes"], "activation": stock["activation"],
        },
    )  # fmt: skip
    silent = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    key = common.keys(options.num_seeds)
    program, compiling = common.compiled(common.over_seeds(silent.train, options.num_seeds), key)
    clocks, (state, _) = common.timed(lambda: program(key), options.runs)

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
