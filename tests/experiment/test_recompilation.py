"""Which changes of a call compile anew: those of shapes and of the structure of the program."""

import flax.linen as nn
import jax.monitoring
import numpy as np
import optax
import pytest

import rljax
from rljax.config import run
from rljax.experiment.make_plan import make_plan
from rljax.experiment.plan import is_comparable
from rljax.replay import uniform

COMPILED = "/jax/core/compile/backend_compile_duration"
SMALL = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (8,), "progress": False}
REPLAY = SMALL | {"learning_starts": 40, "batch_size": 8, "buffer_size": 400}
AGENTS = {
    "ppo": ("CartPole-v1", SMALL | {"num_minibatches": 2}),
    "dqn": ("CartPole-v1", REPLAY),
    "sac": ("Pendulum-v1", REPLAY),
    "q_learning": ("rljax/Maze", {"progress": False}),
}


@pytest.fixture
def compiled():
    """A list with one entry for each program that has been compiled."""
    events = []

    def listen(event, duration, **kwargs):
        if event == COMPILED:
            events.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", AGENTS)
def test_other_numbers_compile_nothing(name, compiled):
    env_id, options = AGENTS[name]
    options = options | {"num_seeds": 2, "eval_episodes": 2}
    rljax.train(name, env_id, total_timesteps=640, **options)
    assert compiled
    rate = "actor_learning_rate" if name == "sac" else "learning_rate"
    for change in (
        {"seed": 5}, {"total_timesteps": 1280}, {"gamma": 0.9, rate: 0.01}, {"num_reports": 3},
    ):  # fmt: skip
        compiled.clear()
        again = rljax.train(name, env_id, **{"total_timesteps": 640} | options | change)
        assert not compiled, change
        assert again.steps[-1] == change.get("total_timesteps", 640)


class Network(nn.Module):
    units: int = 8

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(2)(nn.relu(nn.Dense(self.units)(obs)))


def test_equal_pieces_compile_nothing(compiled):
    """Modules with equal attributes are equal; a function is equal to itself alone."""
    optimizer = optax.sgd(0.01)

    def train(units, optimizer, **options):
        rljax.train(
            "dqn", "CartPole-v1", network=Network(units), optimizer=optimizer, num_seeds=2,
            eval_episodes=2, **REPLAY | {"total_timesteps": 640} | options,
        )  # fmt: skip
        was_compiled = bool(compiled)
        compiled.clear()
        return was_compiled

    assert train(8, optimizer)
    assert not train(8, optimizer, seed=3, gamma=0.9)
    assert train(9, optimizer)
    assert train(8, optax.sgd(0.02))
    assert train(8, optimizer, total_timesteps=1280)  # a schedule may be made for the length
    assert not train(8, optimizer)


def test_objects_that_may_have_changed_are_not_compared():
    class Changing:
        def __call__(self, obs):
            return obs

    assert is_comparable(optax.adam(1e-3))
    assert is_comparable(uniform(100, batch_size=8))
    assert not is_comparable(Changing())
    assert not is_comparable((Changing(), 1))
    assert not is_comparable(nn.Dense(2, kernel_init=np.zeros((4, 2))))


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_schedules_have_the_length_of_the_run(name):
    """The learning rate reaches 0 at the end of each run, though the program is the same."""
    env_id, options = AGENTS[name]
    rates = []
    for total in (640, 1280):
        result = rljax.train(
            name, env_id, total_timesteps=total, num_reports=total // 32, eval_episodes=0,
            learning_rate=0.5, max_grad_norm=1e-6, **options,
        )  # fmt: skip
        rates.append(result.metric("charts/learning_rate")[0])
    for rate in rates:
        steps = rate[np.isfinite(rate)][1:]  # the first report may be a mean of several steps
        assert 0 < steps[-1] <= 1.5 * 0.5 / len(steps)
        np.testing.assert_allclose(np.diff(steps, 2), 0, atol=1e-6)


def test_a_run_of_more_steps_than_an_int32_has_its_own_program():
    length = 2**31 * 4
    plan = make_plan("ppo", "CartPole-v1", num_envs=8, total_timesteps=length)
    assert plan.program_config is plan.config
    short = make_plan("ppo", "CartPole-v1", num_envs=8)
    assert isinstance(short.program_config, run.ProgramConfig)
    assert run.with_values(short.program_config, {}) == short.config
