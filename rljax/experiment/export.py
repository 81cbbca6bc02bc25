"""A policy in files that another program can use: parameters by name, and the compiled function.

The function is serialized by `jax.export`, with its parameters, and loads without rljax.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.experiment.load import load
from rljax.experiment.policy import Policy, policy_of
from rljax.ops.observations import action_struct
from rljax.ops.precision import in_32_bits
from rljax.results.result import Result
from rljax.results.storage import replace_file
from rljax.types import PyTree

PLATFORMS = ("cpu", "cuda", "tpu")
MAX_BATCH = 2**20  # of random policies; without a bound JAX cannot count the random numbers
FUNCTION, PARAMS, MEMORY, DESCRIPTION = (
    "policy.jaxexport",
    "params.npz",
    "memory.npy",
    "policy.json",
)
README = """{title}

{function:<17} the policy as a function of observations, with its parameters
{params:<17} the parameters by name; numpy.load("{params}")
{memory}{description:<17} shapes, dtypes, bounds, environment and versions

To use it, without rljax (pip install jax flatbuffers numpy):

{code}

{use}
"""


def export(
    run: Policy | Result | str | Path, directory: str | Path, *, setting: int = 0, seed: int = 0,
    best: bool = False,
) -> Path:  # fmt: skip
    """Writes a policy into files that another program can use, without rljax.

    `policy.jaxexport` is a function for batches of any size, on CPUs, NVIDIA GPUs and TPUs. Three
    lines load and call it:

        import jax
        policy = jax.export.deserialize(open("policy.jaxexport", "rb").read())
        action = policy.call(obs)

    A recurrent policy is called as `action, memory = policy.call(obs, memory)`, and a random one
    with a seed as the last argument. README.txt has the lines for this policy.

    Args:
      run: a `Policy`, a result with its states, or a run directory.
      directory: it is created if it does not exist; files of an earlier export are replaced.
      setting, seed, best: as those of `Result.policy`; of a `Policy` they are known.

    Returns:
      The directory.

    Raises:
      ValueError: there is no such policy (see `Result.policy`), the function cannot be exported,
        or the package flatbuffers is missing.

    Example:
      >>> import rljax, tempfile
      >>> run = rljax.train(
      ...     "dqn", "CartPole-v1", total_timesteps=400, learning_starts=100, batch_size=32,
      ...     eval_episodes=0, progress=False,
      ... )
      >>> directory = rljax.export(run, tempfile.mkdtemp() + "/policy")
      >>> sorted(path.name for path in directory.iterdir())
      ['README.txt', 'params.npz', 'policy.jaxexport', 'policy.json']
    """
    if not isinstance(run, Policy):
        run = policy_of(run if isinstance(run, Result) else load(run), setting, seed, best)
    data = serialized(run)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {**run.params}
    np.savez(directory / PARAMS, **arrays)
    if run.program.memory is not None:
        np.save(directory / MEMORY, np.asarray(run.program.memory))
    replace_file(directory / DESCRIPTION, json.dumps(description(run), indent=1).encode())
    replace_file(directory / "README.txt", _readme(run).encode())
    replace_file(directory / FUNCTION, data)
    return directory


@in_32_bits
def serialized(policy: Policy) -> bytes:
    """Returns the function of a policy as bytes of `jax.export`, with its parameters.

    Raises:
      ValueError: JAX cannot export the function, or flatbuffers is missing.
    """
    program, params = policy.program, tuple(policy.program.params.values())

    def call(obs, *rest):
        rest = list(rest)
        memory = rest.pop(0) if program.memory is not None else None
        key = policy.key(rest.pop(0) if program.is_random else 0)
        obs = jax.tree.unflatten(jax.tree.structure(program.obs), jax.tree.leaves(obs))
        action, memory = program.act(params, obs, memory, key)
        return action if program.memory is None else (action, memory)

    constraints = [f"batch <= {MAX_BATCH}"] if program.is_random else []
    (batch,) = jax.export.symbolic_shape("batch", constraints=constraints)
    arguments = [_plain(program.obs)]
    if program.memory is not None:
        arguments.append(program.memory)
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype), arguments)
    if program.is_random:
        structs.append(jax.ShapeDtypeStruct((), jnp.uint32))
    try:
        exported = jax.export.export(jax.jit(call), platforms=PLATFORMS)(*structs)
        return bytes(exported.serialize())
    except ImportError:
        raise ValueError(
            'export needs the package flatbuffers: pip install "rljax-research[export]".'
        ) from None
    except Exception as error:
        raise ValueError(
            f"JAX cannot export the policy of {policy.plan.agent} for batches of any size "
            f"({type(error).__name__}: {str(error).splitlines()[0]}): use `policy(obs)` in Python."
        ) from error


def description(policy: Policy) -> dict[str, Any]:
    """Returns what policy.json holds, as plain values."""
    plan, program, spec = policy.plan, policy.program, policy.plan.env.spec
    action = action_struct(spec)
    about: dict[str, Any] = {"shape": list(action.shape), "dtype": action.dtype.name}
    if spec.num_actions:
        about["num_actions"] = spec.num_actions
    else:
        for name in ("low", "high"):
            bound = np.broadcast_to(getattr(spec, f"action_{name}"), action.shape)
            about[name] = [x if math.isfinite(x) else str(x) for x in bound.ravel().tolist()]
    memory = None if program.memory is None else list(program.memory.shape)
    return {
        "agent": plan.agent, "env_id": plan.env_id, "env_params": _as_json(plan.env_params),
        "run": policy.name, "greedy": policy.greedy, "observation": _described(program.obs),
        "action": about, "memory_shape": memory, "has_seed": program.is_random,
        "action_mask": spec.action_mask, "platforms": list(PLATFORMS),
        "rljax": sys.modules["rljax"].__version__, "jax": jax.__version__,
    }  # fmt: skip


def _as_json(values: Any) -> Any:
    return json.loads(json.dumps(values, default=str))


def _plain(tree: PyTree) -> PyTree:
    """Returns a tree whose NamedTuples are dicts, which load without their classes."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if isinstance(tree, dict):
        return {name: _plain(x) for name, x in tree.items()}
    return type(tree)(map(_plain, tree)) if isinstance(tree, tuple | list) else tree


def _described(tree: PyTree) -> Any:
    """Returns the shapes and dtypes of a tree of arrays as plain values."""
    return jax.tree.map(lambda x: {"shape": list(x.shape), "dtype": x.dtype.name}, _plain(tree))


def _readme(policy: Policy) -> str:
    """Returns README.txt, whose lines load and call the policy."""
    program = policy.program
    code = [f'policy = jax.export.deserialize(open("{FUNCTION}", "rb").read())']
    notes = [f"obs: {_shown(_plain(program.obs))}, B observations of {policy.plan.env_id}"]
    inputs, outputs, memory = ["obs"], "action", ""
    if program.memory is not None:
        inputs, outputs = ["obs", "memory"], "action, memory"
        first = f'numpy.load("{MEMORY}")[None].repeat(len(obs), axis=0)'
        code = ["import numpy", *code, f"memory = {first}  # at the start of episodes"]
        memory = f"{MEMORY:<17} memory at the start of an episode\n"
    if program.is_random:
        inputs.append("seed")
        notes.append("seed: numpy.uint32, another one for each call")
    notes.append("action: [B, ...], within the bounds in policy.json")
    code = ["import jax", *code, f"{outputs} = policy.call({', '.join(inputs)})"]
    return README.format(
        title=f"{policy.plan.agent} on {policy.plan.env_id}, {policy.name}", function=FUNCTION,
        params=PARAMS, memory=memory, description=DESCRIPTION,
        code="\n".join("    " + line for line in code), use="\n".join(notes),
    )  # fmt: skip


def _shown(tree: PyTree) -> str:
    """Returns the dtypes and shapes of a batch of observations as text."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{name}": {_shown(x)}' for name, x in tree.items()) + "}"
    if isinstance(tree, tuple | list):
        return "(" + ", ".join(map(_shown, tree)) + ")"
    return f"{tree.dtype.name} [{', '.join(['B', *map(str, tree.shape)])}]"
