"""Lists of settings, in one compiled program and in several; longer runs; initial parameters."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from climb import CLIMB, ENV, ClimbState
from probes import DRIFT, bits, walk

import rljax
from rljax.config import load
from rljax.experiment.initial_params import replace_params
from rljax.training import programs, runs

pytestmark = pytest.mark.usefixtures("quick_compiles")

QUIET = {"progress": False, "eval_episodes": 2, "num_reports": 5}


def train(**options):
    return rljax.train(CLIMB, ENV, **QUIET | {"num_seeds": 2} | options)


def resume(run_dir, **options):
    return rljax.resume(run_dir, ENV, CLIMB, progress=False, **options)


def assert_equal(x, y):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.fixture
def compilations(monkeypatch):
    """A list with one entry for each compiled training program."""
    compiled, original = [], runs.Runs.__init__

    def init(*args, **kwargs):
        compiled.append(args)
        original(*args, **kwargs)

    monkeypatch.setattr(runs.Runs, "__init__", init)
    return compiled


# Settings


def test_settings_of_floats_are_trained_in_one_program(compilations):
    run = train(settings=[{"rate": 0.1, "until": 50.0}, {"rate": 0.05}])
    assert len(compilations) == 1
    assert run.settings == [{"rate": 0.1, "until": 50.0}, {"rate": 0.05, "until": 1e9}]
    assert run.returns.shape == (2, 2, 5) and run.parts == ()
    for i, rate in enumerate((0.1, 0.05)):
        alone = train(rate=rate)
        np.testing.assert_allclose(run.metric("losses/x")[i], alone.metric("losses/x"), rtol=1e-5)


def test_settings_of_other_options_are_trained_one_program_after_another(tmp_path, compilations):
    settings = [{"copies": 1}, {"copies": 2, "rate": 0.05}, {"copies": 1, "rate": 0.2}]
    run = train(settings=settings, until=[50.0, 60.0], run_dir=tmp_path / "run", eval_interval=64)
    assert len(compilations) == 2
    assert run.metric("losses/x").shape == (3, 2, 2, 5)
    assert run.best.step.shape == (3, 2, 2) and run.evaluation["returns"].shape == (3, 2, 2, 2)
    for i, rate in enumerate((0.1, 0.05, 0.2)):
        alone = train(rate=rate)
        for j in range(2):
            np.testing.assert_allclose(
                run.metric("losses/x")[i, j], alone.metric("losses/x"), rtol=1e-5
            )
    assert run.settings[2] == {"copies": 2, "rate": 0.05, "until": 50.0}
    assert run.settings[4] == {"copies": 1, "rate": 0.2, "until": 50.0}
    assert [part.params["unused"].shape for part in run.parts] == [(2, 2, 2, 1), (1, 2, 2, 2)]
    again = resume(tmp_path / "run")
    assert len(compilations) == 2 + 3  # only the runs alone were compiled since
    assert bits(again.metric("losses/x")) == bits(run.metric("losses/x"))
    saved = rljax.load_result(tmp_path / "run")
    assert saved.settings == run.settings and bits(saved.returns) == bits(run.returns)


def test_a_run_of_several_programs_is_resumed_where_it_was_interrupted(tmp_path):
    settings = [{"copies": 1}, {"copies": 2}, {"copies": 3}]
    whole = train(settings=settings)

    def interrupt(report):
        if report.plan.config.copies == 2 and report.step == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings=settings, run_dir=tmp_path / "run", on_report=interrupt)
    assert load(tmp_path / "run" / "config.toml")["settings"] == settings
    resumed = resume(tmp_path / "run")
    for name, values in whole.metrics.items():
        assert bits(values) == bits(resumed.metric(name)), name
    with pytest.raises(ValueError, match="already contains a run: resume it"):
        train(settings=settings, run_dir=tmp_path / "run")


def test_pieces_may_be_settings():
    def low(key):
        return jax.random.uniform(key, minval=-3.0, maxval=-2.0)

    run = train(settings=[{"start": None}, {"start": low}])
    assert run.settings == [{"start": "default"}, {"start": "low"}]
    assert (run.metric("losses/x")[1] < run.metric("losses/x")[0]).all()


def test_reports_of_programs_with_other_update_sizes_differ_by_less_than_an_update():
    run = train(settings=[{"num_envs": 2}, {"num_envs": 3}])
    first, second = run.parts
    assert (np.maximum(first.steps, second.steps) == run.steps).all()
    assert (np.abs(first.steps - second.steps) < 12).all() and run.returns.shape == (2, 2, 5)


def test_the_best_setting_is_written_as_a_file_to_train_with(tmp_path):
    run = train(settings=[{"rate": 0.001}, {"rate": 0.05, "copies": 2}])
    assert run.best_setting(tmp_path / "best.toml") == {"rate": 0.05, "copies": 2}
    assert {"rate": 0.05, "copies": 2}.items() <= load(tmp_path / "best.toml").items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": []}, r"`settings` is \[\], but it must be a list of dicts"),
        ({"settings": [1]}, r"`settings` is \[1\], but it must be a list of dicts"),
        ({"settings": [{"rat": 1.0}]}, "has no option `rat`: did you mean `rate`"),
        ({"settings": [{"rate": [1.0, 2.0]}]}, "`rate` = .* but a setting has one value"),
        ({"settings": [{"rate": 1.0}], "rate": 2.0}, "`rate` is in `settings` and is also given"),
        ({"settings": [{"total_timesteps": 80}]}, "all settings are trained for equally many"),
        ({"settings": [{"copies": 1}, {"copies": 0}]}, "`copies` is 0, but it must be at least 1"),
    ],
)
def test_settings_are_checked_before_anything_is_compiled(options, message, monkeypatch):
    monkeypatch.setattr(programs, "compile_lowered", lambda *_: pytest.fail("it compiles"))
    with pytest.raises(ValueError, match=message):
        train(**options)


# Longer runs


def test_a_run_without_schedules_is_lengthened_to_the_same_bits(tmp_path):
    train(run_dir=tmp_path / "run", eval_interval=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = resume(tmp_path / "run", total_timesteps=320)
    whole = train(total_timesteps=320, num_reports=10, eval_interval=32)
    assert run.steps.tolist() == whole.steps.tolist() == [32 * i for i in range(1, 11)]
    for name, values in whole.metrics.items():
        assert bits(values) == bits(run.metric(name)), name
    assert bits(run.best.step) == bits(whole.best.step)
    assert bits(resume(tmp_path / "run").params["x"]) == bits(whole.params["x"])


def test_an_interrupted_longer_run_is_not_complete(tmp_path):
    train(run_dir=tmp_path / "run")

    def interrupt(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "run", total_timesteps=320, on_report=interrupt)
    assert not (tmp_path / "run" / "result.json").exists()
    assert int(resume(tmp_path / "run").state.num_updates[0]) == 40


def test_a_run_that_stopped_early_continues_when_it_is_lengthened(tmp_path):
    options = {"eval_interval": 32, "stop_at": -0.4}
    first = train(run_dir=tmp_path / "run", **options)
    assert np.isfinite(first.stopped).all()
    run = resume(tmp_path / "run", total_timesteps=320)
    assert (run.stopped > first.stopped).all() and int(run.state.num_updates[0]) > 4


@pytest.mark.parametrize(
    ("agent", "options", "message"),
    [
        ("q_learning", {"num_envs": 1}, r"epsilon \(`exploration_fraction`\) of q_learning"),
        ("dppo", {"num_steps": 4}, r"the learning rate \(`anneal_lr`\) of dppo"),
    ],
)
def test_schedules_that_change_are_named(tmp_path, agent, options, message):
    env = "rljax/Maze" if agent == "q_learning" else "CartPole-v1"
    steps = {"total_timesteps": 64, "num_reports": 2, "eval_episodes": 0, "progress": False}
    rljax.train(agent, env, run_dir=tmp_path / "run", **steps, **options)
    with pytest.warns(UserWarning, match=f"{message} depends on `total_timesteps`: after step 64"):
        run = rljax.resume(tmp_path / "run", total_timesteps=128, progress=False)
    assert run.steps.tolist() == [32, 64, 96, 128]


def test_a_run_cannot_be_shortened(tmp_path):
    train(run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="`total_timesteps` is 80, but the run was planned for 16"):
        resume(tmp_path / "run", total_timesteps=80)


# Initial parameters


def test_a_run_starts_from_the_parameters_of_another():
    first = train()
    second = train(initial_params=first)
    x = np.asarray(first.params["x"])
    np.testing.assert_allclose(np.asarray(second.params["x"]), x + 20 * 0.1, atol=1e-5)
    one = jax.tree.map(lambda x: x[0], first.params)
    both = train(initial_params=one)
    np.testing.assert_allclose(np.asarray(both.params["x"]), x[0] + 2.0, atol=1e-5)
    swept = train(rate=[0.1, 0.2], initial_params=one)
    np.testing.assert_allclose(swept.params["x"][:, 0], [x[0] + 2, x[0] + 4], atol=1e-5)


def test_target_networks_start_from_the_parameters_too(tmp_path):
    """Of dqn and sac, whose targets are copies; the optimizer starts anew."""
    options = {"total_timesteps": 512, "num_envs": 4, "learning_starts": 256, "hidden_sizes": (8,)}
    for agent, env in (("dqn", "CartPole-v1"), ("sac", "Pendulum-v1")):
        rljax.train(
            agent, env, run_dir=tmp_path / agent, eval_episodes=0, progress=False, **options
        )
        seen = []
        rljax.train(
            agent, env, initial_params=tmp_path / agent, progress=False, eval_episodes=0,
            on_report=lambda report, seen=seen: seen.append(report.state.agent), num_reports=64,
            **options,
        )  # fmt: skip
        source = rljax.load(tmp_path / agent).params
        learned = seen[0].learned  # before the first gradient step
        assert_equal(learned.params, source)
        networks = source.critic if agent == "sac" else source
        assert_equal(learned.target_params, networks)
        assert all(
            not np.any(x) for x in jax.tree.leaves(learned.opt_state) if x.dtype == np.float32
        )


def test_the_moments_of_observations_come_with_the_parameters():
    options = {"num_steps": 8, "total_timesteps": 64, "normalize_obs": True, "progress": False}
    first = rljax.train("ppo", "Pendulum-v1", eval_episodes=3, **options)
    again = rljax.train(
        "ppo", "Pendulum-v1", initial_params=first, eval_episodes=0, learning_rate=1e-30,
        anneal_lr=False, num_reports=1, **options,
    )  # fmt: skip
    counts = [np.asarray(run.state.agent.obs.num_samples) for run in (first, again)]
    assert (counts[1] == 2 * counts[0]).all()


def test_copies_are_found_by_structure_and_values():
    params = {"actor": {"w": jnp.ones((1, 2)), "b": jnp.zeros((1, 2))}, "scale": jnp.ones((1,))}
    moments = jax.tree.map(jnp.zeros_like, params)
    new = jax.tree.map(lambda x: x + 5, params)
    state = ClimbState(params, (params["actor"], moments), moments)
    replaced = replace_params(state, new)
    assert_equal(replaced, ClimbState(new, (new["actor"], moments), moments))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"y": jnp.zeros(())}, r"`initial_params` do not fit climb: only one .*`\['unused'\]`"),
        ({"x": jnp.zeros((3,)), "unused": jnp.zeros((3, 1))}, r"are of runs \(3,\), but this run"),
        ({"x": jnp.zeros(()), "unused": jnp.zeros((2,))}, r"have `\['unused'\]` of shape \(2,\)"),
    ],
)
def test_initial_parameters_are_checked(params, message, monkeypatch):
    monkeypatch.setattr(programs, "compile_lowered", lambda *_: pytest.fail("it compiles"))
    with pytest.raises(ValueError, match=message):
        train(initial_params=params)
    with pytest.raises(ValueError, match="`initial_params` do not fit"):
        rljax.train(DRIFT, walk(), initial_params=params, progress=False)
