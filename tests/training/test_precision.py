"""A run with JAX_ENABLE_X64=1 has the bits of a run without it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from probes import bits

import rljax
from rljax.ops.precision import in_32_bits

RUNS = {  # several runs of one program are shared between threads
    "q_learning": ("rljax/Maze", {"num_seeds": 2}),
    "reinforce": ("Pendulum-v1", {"num_seeds": 2, "hidden_sizes": (4,)}),
}


def digests():
    """Trains and evaluates; returns a hash of the final states and all metrics, by agent."""
    found = {}
    for name, (env, options) in RUNS.items():
        run = rljax.train(
            name, env, total_timesteps=96, num_envs=2, num_steps=8, progress=False,
            eval_episodes=2 * (name == "q_learning"), **options,
        )  # fmt: skip
        leaves = bits((run.state, run.metrics, run.evaluation))[1]
        found[name] = hashlib.sha256(repr(leaves).encode()).hexdigest()
    return found


def test_runs_have_the_same_bits_with_64_bit_types():
    code = "import json, test_precision as t; print(json.dumps(t.digests()))"
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here, here.parent, Path(rljax.__file__).parents[1])))
    environment = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == digests()


def test_64_bit_types_are_disabled_inside_only():
    with jax.enable_x64(True):
        with pytest.raises(ZeroDivisionError):
            in_32_bits(lambda x: x // 0)(1)
        assert in_32_bits(jnp.zeros)(1).dtype == jnp.float32
        assert jnp.zeros(1).dtype == jnp.float64
