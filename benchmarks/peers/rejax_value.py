"""rejax's DQN or PQN: `--algorithm dqn` or `pqn`.

Differs from the configuration of rljax: its DQN samples batches without replacement, its PQN uses
Adam instead of RAdam, and both clip gradients element by element and count time limits as
terminations. Its evaluations during training are disabled; one is made afterwards, not timed.
"""

import common
import jax
import rejax
import value_common


def main():
    options = common.options(
        "rejax's value-based agents", algorithm={"choices": ("dqn", "pqn"), "default": "dqn"}
    )
    stock = value_common.STOCK[options.algorithm]
    rollout = stock["num_envs"] * stock["num_steps"]
    steps = options.timesteps // rollout * rollout
    shared = {name: stock[name] for name in (
        "num_envs", "learning_rate", "gamma", "max_grad_norm", "eps_start", "eps_end",
        "exploration_fraction",
    )}  # fmt: skip
    assert stock["hidden_sizes"] == (64, 64), "rejax's Q-network has fixed sizes"
    if options.algorithm == "dqn":
        algorithm = rejax.DQN.create(
            env="CartPole-v1", total_timesteps=steps, eval_freq=steps,
            skip_initial_evaluation=True, buffer_size=stock["buffer_size"],
            fill_buffer=stock["learning_starts"], batch_size=stock["batch_size"],
            num_epochs=stock["gradient_steps"], polyak=1.0 - stock["tau"],
            target_update_freq=stock["target_update_interval"], ddqn=stock["double"],
            agent="DuelingQNetwork",
            agent_kwargs={"activation": stock["activation"]}, **shared,
        )  # fmt: skip
    else:
        algorithm = rejax.PQN.create(
            env="CartPole-v1", total_timesteps=steps, eval_freq=steps,
            skip_initial_evaluation=True, num_steps=stock["num_steps"],
            num_minibatches=stock["num_minibatches"], num_epochs=stock["update_epochs"],
            td_lambda=stock["trace_lambda"], **shared,
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
