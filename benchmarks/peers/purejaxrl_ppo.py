"""PureJaxRL's own `purejaxrl/ppo.py`, unmodified, from a checkout: `--checkout PATH`.

Its wrappers.py imports brax and navix, which CartPole does not need: empty modules replace them if
they are missing.
It treats time limits as terminations, and its metrics hold every step of the run. With several
seeds its orthogonal initialization is a batched QR under `vmap`, which deadlocks in XLA's CPU
thread pool if that is small; NPROC enlarges it.
"""

import importlib.util
import os
import pathlib
import sys
import types

import common

UNUSED = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")


class Unused(types.ModuleType):
    """A module from which any name can be imported; only a use of the name fails."""

    __path__ = ()  # a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def load(checkout: str):
    """Returns the module `ppo` of a checkout, which imports its wrappers by package or by name."""
    folder = pathlib.Path(checkout).expanduser().resolve()
    file = folder / "purejaxrl" / "ppo.py"
    if not file.is_file():
        sys.exit(f"{file} does not exist: give the path of a checkout of PureJaxRL.")
    missing = [x for x in UNUSED if importlib.util.find_spec(x.partition(".")[0]) is None]
    sys.modules.update({name: Unused(name) for name in missing})
    sys.path[:0] = [str(folder), str(folder / "purejaxrl")]
    from purejaxrl import ppo

    return ppo


def main():
    options = common.options("PureJaxRL PPO", checkout={"required": True})
    stock = common.STOCK
    if options.num_seeds > 1 and (os.cpu_count() or 1) < 8:
        os.environ.setdefault("NPROC", "8")  # XLA reads it when JAX starts, below
    train = load(options.checkout).make_train(
        {
            "LR": stock["learning_rate"], "NUM_ENVS": stock["num_envs"],
            "NUM_STEPS": stock["num_steps"], "TOTAL_TIMESTEPS": options.timesteps,
            "UPDATE_EPOCHS": stock["update_epochs"], "NUM_MINIBATCHES": stock["num_minibatches"],
            "GAMMA": stock["gamma"], "GAE_LAMBDA": stock["gae_lambda"],
            "CLIP_EPS": stock["clip_eps"], "ENT_COEF": stock["ent_coef"],
            "VF_COEF": stock["vf_coef"], "MAX_GRAD_NORM": stock["max_grad_norm"],
            "ACTIVATION": stock["activation"], "ENV_NAME": stock["env_id"],
            "ANNEAL_LR": stock["anneal_lr"], "DEBUG": False,
        }
    )  # fmt: skip
    key = common.keys(options.num_seeds)
    program, compiling = common.compiled(common.over_seeds(train, options.num_seeds), key)
    clocks, out = common.timed(lambda: program(key), options.runs)
    updates = options.timesteps // common.ROLLOUT
    returns = out["metrics"]["returned_episode_returns"].reshape(options.num_seeds, updates, -1)
    common.answer(
        options.num_seeds * updates * common.ROLLOUT, clocks, compiling,
        final_return=float(returns[:, -max(1, updates // 50) :].mean()),
        versions=common.versions("jax", "gymnax", "flax", "distrax"), **common.jax_device(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
