"""`rljax.train`, `resume` and `evaluate`: seeds, reports, sweeps, errors, signals and files."""

import inspect
import os
import signal
import sys
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import DRIFT, DriftConfig, bits, coin, drift, walk

import rljax
from rljax import config as configs
from rljax import envs, replay
from rljax.envs import build
from rljax.experiment import checkpoint, divergence, json_lines, loop
from rljax.experiment.make_plan import make_plan
from rljax.experiment.options import RUN_OPTIONS
from rljax.experiment.run_plan import run_plan
from rljax.results import statistics
from rljax.training import programs, runs
from rljax.training.learner import make_learner
from rljax.types import Env, EnvSpec, Mean, Replay, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")

NUM_ENVS, NUM_STEPS, UPDATES = 2, 4, 20
BATCH = NUM_ENVS * NUM_STEPS
SMALL = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "total_timesteps": BATCH * UPDATES}
QUIET = {"progress": False, "eval_episodes": 0}
POLE = "CartPole-v1"


def train(env=POLE, agent=DRIFT, **options):
    """Trains a small agent; runs of equal shapes share one program, whatever their floats."""
    return rljax.train(agent, env, **SMALL | QUIET | {"num_reports": 5} | options)


@pytest.fixture(scope="module")
def four():
    return train(num_seeds=4)


def assert_close(x, y):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def counted():
    """Returns an agent, and a list with one entry for each time its update was traced."""
    traces = []

    def maker(config, spec):
        agent = drift(config, spec)

        def update(*args):
            traces.append(args)
            return agent.update(*args)

        return agent._replace(update=update)

    return (DriftConfig, maker), traces


# Seeds


def test_more_seeds_never_change_earlier_ones(four):
    two = train(num_seeds=2)
    assert_close(two.params, jax.tree.map(lambda x: x[:2], four.params))
    for name, values in two.metrics.items():
        np.testing.assert_allclose(values, four.metrics[name][:2], rtol=1e-5, err_msg=name)
    assert bits(two.state.key) == bits(four.state.key[:2])
    assert len({row.tobytes() for row in four.metric("losses/noise")}) == 4


def test_the_key_of_run_i_is_fold_in_of_seed_and_i():
    def keys(**options):
        plan = make_plan(DRIFT, POLE, **SMALL | options)
        return jax.random.key_data(plan.run_inits().key)

    many = keys(num_seeds=9, seed=3)
    for i in range(9):
        expected = jax.random.key_data(jax.random.fold_in(jax.random.key(3), i))
        np.testing.assert_array_equal(many[i], expected)
    for seeds in (1, 2, 5):
        np.testing.assert_array_equal(keys(num_seeds=seeds, seed=3), many[:seeds])
        swept = keys(num_seeds=seeds, seed=3, learning_rate=[0.1, 0.2], gamma=[0.5, 0.9, 1.0])
        np.testing.assert_array_equal(swept.reshape(6, seeds, -1), [many[:seeds]] * 6)
    assert not (keys(num_seeds=9, seed=4) == many).all(axis=1).any()


# Reports


def test_reports_are_evenly_spaced_and_the_last_is_at_the_end(four):
    assert four.steps.tolist() == [BATCH * 4 * i for i in range(1, 6)]
    assert all(values.shape == (4, 5) for values in four.metrics.values())
    assert (np.asarray(four.state.num_updates) == UPDATES).all()


def test_a_run_takes_at_most_total_timesteps():
    run = train(total_timesteps=BATCH * 7 + BATCH - 1, num_reports=3)
    assert (run.steps / BATCH).tolist() == [2, 5, 7]
    assert int(run.state.num_updates[0]) == 7
    assert run.metric("losses/loss").shape == (1, 3)


@pytest.mark.parametrize("max_size", [1.0, 2.5, 1e9])
@pytest.mark.parametrize(
    ("updates", "num_reports", "expected"),
    [(7, 3, [2, 5, 7]), (3, 50, [1, 2, 3]), (5, 1, [5]), (1, 4, [1]), (10, 4, [2, 5, 8, 10])],
)
def test_chunks_of_any_size_end_at_the_reports(updates, num_reports, expected, max_size):
    """From the start, and from any update a run is resumed at."""
    options = SMALL | {"total_timesteps": BATCH * updates, "num_reports": num_reports}
    report_ends = loop.report_updates(make_plan(DRIFT, POLE, **options))
    for start in range(updates):
        done, ends = start, []
        while done < updates:
            size, is_report = loop.next_chunk(report_ends, done, max_size)
            assert 1 <= size <= max(max_size, 1)
            done += size
            ends += [done] * is_report
        assert done == updates
        assert ends == [end for end in expected if end > start]


def test_a_run_equals_a_plain_python_loop(four):
    """In every metric of every report of every seed, and in the final state."""
    config = DriftConfig(**SMALL)
    env = build(POLE, NUM_ENVS)
    learner = make_learner(drift(config, env.spec), env, NUM_STEPS)
    step = jax.jit(learner.step)
    for seed in range(2):
        state = learner.init(jax.random.fold_in(jax.random.key(0), seed))
        ended = np.zeros(NUM_ENVS, bool)
        for report in range(5):
            rows = []
            for _ in range(UPDATES // 5):
                before = np.asarray(state.episodes[1])
                state, metrics = step(state)
                ended |= np.asarray(state.episodes[1]) < before + NUM_STEPS
                rows.append(jax.device_get(metrics))
            for name, values in four.metrics.items():
                updates = [row[name] for row in rows]
                if isinstance(updates[0], Mean):
                    weight = sum(x.weight for x in updates)
                    expected = sum(x.total for x in updates) / weight if weight else np.nan
                    is_last = report == 4
                    expected = expected if ended.all() or is_last else np.nan
                    if np.isnan(expected) and report:
                        expected = values[seed, report - 1]
                else:
                    expected = np.mean(updates)
                np.testing.assert_allclose(values[seed, report], expected, rtol=1e-4, err_msg=name)
        assert_close(state.agent, jax.tree.map(lambda x, seed=seed: x[seed], four.state.agent))


def test_the_return_is_that_of_the_latest_episodes():
    run = train(coin(short=9, long=9), num_reports=UPDATES)
    lengths = run.metric("charts/episodic_length")[0]
    assert np.isnan(lengths).tolist() == [True] * 2 + [False] * (UPDATES - 2)
    assert (lengths[2:] == 9).all()  # also in reports in which no episode ended
    np.testing.assert_array_equal(run.returns[0], lengths)


def test_the_return_is_nan_until_every_environment_has_completed_an_episode():
    """Of 16 environments about half have short episodes, which end first."""
    sixteen = {"num_envs": 16, "total_timesteps": 16 * NUM_STEPS * UPDATES}
    run = train(unequal(short=3, long=30), num_reports=UPDATES, **sixteen)
    lengths = run.metric("charts/episodic_length")[0]
    first = 30 // NUM_STEPS  # index of the report in which the long episodes end
    assert np.isnan(lengths).tolist() == [True] * first + [False] * (UPDATES - first)
    assert lengths[first] > 3


def test_returns_of_a_report_by_hand():
    nan, names = np.nan, loop.EPISODE_METRICS
    means = {name: np.float32([1, nan, 3, nan]) for name in names} | {"other": np.float32([nan])}
    previous = {name: np.float32([5, 6, nan, nan]) for name in names}
    loop.with_latest_episodes(means, previous, np.array([True, True, False, False]))
    for name in names:
        np.testing.assert_array_equal(means[name], [1, 6, nan, nan])
    assert np.isnan(means["other"]).all()


def test_the_return_is_the_same_in_the_bar_the_table_and_the_result(capfd):
    run = train(num_seeds=3, progress=True, eval_episodes=0)
    last = statistics.describe(run.returns[:, -1])
    assert f"  return {last}\n" in capfd.readouterr().err
    assert run.summary().splitlines()[1] == f"  return {last}"


def test_the_size_of_the_run_state_does_not_depend_on_the_number_of_steps():
    def sizes(updates):
        plan = make_plan(DRIFT, POLE, **SMALL | {"total_timesteps": BATCH * updates}, num_reports=5)
        state = runs.template(plan.make_learner(), plan.config, plan.run_inits())
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), state)

    assert sizes(10) == sizes(10_000_000)


# Sweeps


def test_a_sweep_is_an_axis_and_compiles_once(four):
    agent, traces = counted()
    train(agent=agent)
    once = len(traces)
    assert once > 0
    traces.clear()
    rates = [0.1 * 0.5**i for i in range(8)]
    run = train(agent=agent, learning_rate=rates, num_seeds=4)
    assert len(traces) == once + 1  # and one to check that the field has an effect
    assert run.sweep == {"learning_rate": rates} and run.returns.shape == (8, 4, 5)
    assert run.params["w"].shape == (8, 4, 2)
    assert_close(
        jax.tree.map(lambda x: x[0], run.params), four.params
    )  # the default rate is the first
    alone = train(learning_rate=rates[3], num_seeds=4)
    assert_close(jax.tree.map(lambda x: x[3], run.params), alone.params)
    for name, values in alone.metrics.items():
        np.testing.assert_allclose(run.metric(name)[3], values, rtol=1e-5, err_msg=name)
    assert len(np.unique(np.asarray(run.params["w"])[:, 0, 0])) == 8


def test_two_sweeps_are_two_axes(four):
    run = train(learning_rate=[0.1, 0.05], gamma=np.array([0.5, 0.9, 0.99]), num_seeds=2)
    assert list(run.sweep) == ["learning_rate", "gamma"] and run.returns.shape == (2, 3, 2, 5)
    assert_close(
        jax.tree.map(lambda x: x[0, 2], run.params), jax.tree.map(lambda x: x[:2], four.params)
    )
    assert run.settings[3] == {"learning_rate": 0.05, "gamma": 0.5}


# The environment


def test_the_environment_is_built_and_checked_once(monkeypatch):
    """For planning, training and evaluation together."""
    calls = []
    for name in ("make", "check_shapes"):
        original = getattr(envs, name)

        def counted_call(*args, name=name, original=original, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(envs, name, counted_call)
    run = train("Acrobot-v1", eval_episodes=2)
    assert sorted(calls) == ["check_shapes", "make"]
    rljax.evaluate(run, 2, agent=DRIFT)  # a new plan
    assert sorted(calls) == ["check_shapes", "check_shapes", "make", "make"]


def test_the_environment_of_a_plan_carries_the_memory_of_a_recurrent_agent():
    plan = make_plan("ppo", POLE, memory="gru", memory_size=3)
    _, obs = plan.env.reset(jax.random.key(0))
    assert obs.memory.shape == (3,) and plan.env.spec.num_envs == 1
    _, obs = plan.build_env(5).reset(jax.random.key(0))
    assert obs.memory.shape == (5, 3) and obs.obs.shape == (5, 4)


# The cache


def test_the_same_program_is_not_compiled_again():
    agent, traces = counted()

    def again(**options):
        traces.clear()
        run = train(agent=agent, **options)
        return run, len(traces)

    first, compiled = again(num_steps=5)
    assert compiled > 0
    same, count = again(num_steps=5)
    assert count == 0
    assert bits((same.state, same.params)) == bits((first.state, first.params))
    other, count = again(num_steps=5, learning_rate=0.01, seed=1, num_reports=2)
    assert count == 0
    assert bits(other.params) != bits(first.params)
    assert again(num_steps=5, size=3)[1] > 0
    run, count = again(num_steps=5, env_params={"max_steps_in_episode": 3})
    assert count > 0 and np.nanmax(run.metric("charts/episodic_length")) == 3


def test_programs_of_custom_environments_are_not_shared():
    """Two environments with equal names and shapes, but different dynamics."""
    first = train(coin(short=3, long=3)).metric("charts/episodic_length")
    second = train(coin(short=2, long=2)).metric("charts/episodic_length")
    assert (first == 3).all() and (second == 2).all()


# Custom pieces


class Linear(nn.Module):
    """A minimal network."""

    @nn.compact
    def __call__(self, obs):
        import distrax

        logits = nn.Dense(2, name="mine")(obs)
        return distrax.Categorical(logits=logits), nn.Dense(1)(obs)[..., 0]


def test_pieces_can_be_replaced_by_custom_objects(tmp_path):
    """A gymnax object, a network, an optimizer and a surrogate, also in a saved run."""
    from rljax.envs.gymnax import load_gymnax

    cart_pole = load_gymnax().make("CartPole-v1")[0]
    counting = rljax.clip(0.2)._replace(init=lambda: jnp.int32(0), adapt=lambda n, kl: n + 1)
    pieces = {"network": Linear(), "optimizer": optax.sgd(0.5), "surrogate": counting}
    run = rljax.train(
        "ppo", cart_pole, **SMALL, update_epochs=1, num_minibatches=1, normalize_obs=False,
        normalize_reward=False, run_dir=tmp_path / "run", progress=False, eval_episodes=4, **pieces,
    )  # fmt: skip
    assert run.env_id == "CartPole-v1" and run.config["pieces"] == sorted(["env", *pieces])
    assert "surrogate" not in run.config  # the piece replaces the option
    assert set(run.params["params"]) == {"mine", "Dense_0"}
    assert run.params["params"]["mine"]["kernel"].shape == (1, 4, 2)
    assert not [x for x in jax.tree.leaves(run.state.agent.opt_state) if x.size > 1]  # no moments
    assert run.state.agent.surrogate.tolist() == [UPDATES]
    evaluation = rljax.evaluate(tmp_path / "run", 4, env=cart_pole, **pieces)
    np.testing.assert_array_equal(evaluation["returns"], run.evaluation["returns"])
    with pytest.raises(ValueError, match="with its own `network`, which config.toml cannot hold"):
        rljax.evaluate(tmp_path / "run", 4, env=cart_pole)


class Collector:
    """A custom writer that keeps its rows."""

    def __init__(self):
        self.steps, self.closed = [], 0

    def write(self, step, metrics):
        assert metrics["losses/loss"].shape == (4,)
        self.steps.append(step)

    def close(self):
        self.closed += 1


def test_a_custom_writer_gets_each_row_once(tmp_path, monkeypatch, four):
    """Without a run directory, with one, and after a resume only the rows that are new."""
    alone = Collector()
    train(num_seeds=4, writers=alone)
    assert alone.steps == four.steps.tolist() and alone.closed == 1
    first, second = Collector(), Collector()
    with monkeypatch.context() as patch:
        interrupted(patch, signal.SIGINT, at_chunk=4)
        with pytest.raises(KeyboardInterrupt):
            train(num_seeds=4, run_dir=tmp_path / "run", writers=["jsonl", first])
    rljax.resume(tmp_path / "run", agent=DRIFT, writers=("jsonl", second), **QUIET)
    assert first.steps + second.steps == four.steps.tolist()
    assert first.steps and second.steps and (first.closed, second.closed) == (1, 1)
    rows = json_lines.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [step for step, _ in rows] == four.steps.tolist()


def test_writers_get_the_plan_and_earlier_rows(tmp_path, monkeypatch):
    opened = []

    class Opening(Collector):
        def open(self, directory, rows, plan):
            opened.append((directory, [step for step, _ in rows], plan.num_runs))

    with monkeypatch.context() as patch:
        interrupted(patch, signal.SIGINT, at_chunk=4)
        with pytest.raises(KeyboardInterrupt):
            train(num_seeds=4, run_dir=tmp_path / "run", writers=(first := Opening()))
    rljax.resume(tmp_path / "run", agent=DRIFT, writers=Opening(), **QUIET)
    assert opened == [(tmp_path / "run", [], 4), (tmp_path / "run", first.steps, 4)]


def test_the_table_of_options_agrees_with_the_arguments_of_train():
    parameters = inspect.signature(rljax.train).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert defaults.pop("on_report") is None  # a function: only in Python
    assert defaults == {option.name: option.default for option in RUN_OPTIONS.values()}
    plan_arguments = set(inspect.signature(make_plan).parameters)
    run_arguments = {*inspect.signature(run_plan).parameters} - {"on_report", "initial_params"}
    for name, option in RUN_OPTIONS.items():
        assert name == option.name and len(option.help.split()) >= 3 and len(option.help) <= 62
        assert option.recorded == (name in plan_arguments)
        assert option.resumable == (name in run_arguments - {"run_dir", "resume"})
    assert len({option.help for option in RUN_OPTIONS.values()}) == len(RUN_OPTIONS)


def test_max_episode_steps_shortens_a_custom_environment():
    long = train(coin(short=9, long=9), env_params={"max_episode_steps": 3})
    assert np.nanmax(long.metric("charts/episodic_length")) == 3


# Invalid arguments, before anything is compiled


def flawed(**flaws):
    """An environment with one error."""
    spec = EnvSpec(obs_shape=(2,), num_actions=2, env_id="flawed")
    first = flaws.pop("reset_obs", jnp.zeros(2))

    def step(state, action, key):
        outputs = {
            "obs": jnp.zeros(2), "reward": jnp.float32(0), "terminated": state % 3 == 2,
            "truncated": jnp.bool_(False), "next_obs": jnp.ones(2),
        }  # fmt: skip
        return state + 1, Step(**outputs | flaws)

    return Env(spec, lambda key: (jnp.int32(0), first), step)


DQN = {"agent": "dqn", "total_timesteps": 4000}  # enough steps to learn from
REFUSED = [
    ({"agent": "pop"}, "there is no agent `pop`: did you mean `ppo`"),
    ({"agent": 3}, r"`agent` is 3, but it must be a name .* or a pair"),
    ({"env": "CartPol-v1"}, "no environment `CartPol-v1`.*CartPole-v1"),
    ({"env": "nowhere/Maze"}, "suite `nowhere`"),
    ({"lerning_rate": 0.1}, "no option `lerning_rate`: did you mean `learning_rate`"),
    ({"lr": 0.1}, "`lr` is `learning_rate` here"),
    ({"seeds": 3}, "no option `seeds`: `seeds` is `num_seeds` here"),
    ({"num_seeds": 0}, "`num_seeds` is 0, but it must be at least 1"),
    ({"num_seeds": [1, 2]}, r"`num_seeds` is \[1, 2\], but it must be an integer"),
    ({"num_seeds": 1.5}, "`num_seeds` is 1.5, but it must be an integer"),
    ({"seed": -1}, "`seed` is -1, but it must be at least 0"),
    ({"num_reports": 0}, "`num_reports` is 0, but it must be at least 1"),
    ({"eval_episodes": -1}, "`eval_episodes` is -1, but it must be at least 0"),
    ({"gamma": 1.5}, "`gamma` is 1.5, but it must be at least 0.* and at most 1"),
    ({"gamma": "high"}, "`gamma` is 'high', but it must be a number"),
    ({"learning_rate": 0.0}, "`learning_rate` is 0.0, but it must be above 0"),
    ({"learning_rate": [0.1, -1.0]}, "`learning_rate` is -1.0, but it must be above 0"),
    ({"learning_rate": []}, "`learning_rate` is .*, but a sweep must be a flat list"),
    ({"learning_rate": [[0.1]]}, "`learning_rate` is .*, but a sweep must be a flat list"),
    ({"num_envs": [2, 4]}, r"`num_envs` is \[2, 4\], but it changes the compiled program and"),
    ({"total_timesteps": BATCH - 1}, f"`total_timesteps` is {BATCH - 1}, .* raise it to {BATCH}"),
    ({"num_steps": 0}, "`num_steps` is 0, but it must be at least 1"),
    ({"agent": "ppo", "num_minibatches": 3}, "`num_minibatches` is 3, but it must divide"),
    ({"agent": "ppo", "activation": "tanhh"}, "`activation` is 'tanhh', .* did you mean 'tanh'"),
    ({"agent": "ppo", "surrogate": "klip"}, "`surrogate` is 'klip', .* one of clip, kl"),
    ({"agent": "ppo", "network": "big"}, "`network` is 'big', but it is a piece of `ppo`"),
    ({"writers": ("csv",)}, "there is no writer .csv.: use one of jsonl, tensorboard, wandb"),
    ({"writers": "tensorbord"}, "there is no writer .tensorbord.: did you mean `tensorboard`"),
    ({"writers": [3]}, r"`writers` contains 3, but .* or an object with `write\(step, metrics\)`"),
    ({"writers": [dict]}, r"`writers` contains <class 'dict'>, but a writer must be a name"),
    ({"agent": "ppo", "optimizer": optax.adam}, "`optimizer` is the function `adam`, but .* optax"),
    (
        {"agent": "ppo", "optimizer": SimpleNamespace(init=len, update=len)},
        "`optimizer` is of type",
    ),
    (DQN | {"replay": object()}, "`replay` is of type `object` without .*`init`, but it"),
    (DQN | {"replay": replay.uniform}, "`replay` is the function `uniform` without"),
    (DQN | {"replay": Replay(*[None] * 5)}, "`Replay` without the function `init`, but"),
    (
        {"agent": "ppo", "surrogate": ["clip", "kl"]},
        "`surrogate` is .*, but it changes the compiled",
    ),
    ({"agent": "ppo", "surrogate": lambda x: x}, "`surrogate`"),
    ({"num_seeds": 10**12}, "`num_seeds` is 1000000000000, but it must be at most 16,777,216"),
    ({"num_reports": 10**9}, "`num_reports` is 1000000000, but it must be at most 1,000,000"),
    ({"eval_episodes": 10**12}, "`eval_episodes` is 1000000000000, but it must be at most 1,000"),
    ({"total_timesteps": 10**30}, "`total_timesteps` is 10{30}, but it must be .* at most"),
    (
        {"num_envs": 10**7, "num_steps": 128, "total_timesteps": 10**10},
        r"one rollout of .* = 1,280,000,000 steps needs .* GiB of memory, but this machine has",
    ),
    (
        {"agent": "ppo", "learning_rate": [0.1, 0.2], "optimizer": optax.sgd(0.1)},
        "`learning_rate` is swept, but it has no effect with the other options",
    ),
    (
        {"agent": "ppo", "clip_eps": [0.1, 0.2], "surrogate": "kl"},
        "`clip_eps` is swept, but it has no effect with the other options",
    ),
    (DQN | {"train_frequency": 4001}, "`train_frequency` is 4001, but the run has only 4000 steps"),
    ({"run_dir": ""}, "`run_dir` is empty: give the path of a directory"),
    ({"progress": "off"}, "`progress` is 'off', but it must be true or false"),
    ({"save_seconds": np.nan}, "`save_seconds` is nan, but it must be at least 0"),
    ({"env_params": {"gravity": np.nan}}, "the parameter `gravity` is nan, but it must be a numb"),
    ({"writers": "tensorboard"}, "`writers` contains 'tensorboard', .*: set `run_dir`"),
    ({"agent": "ppo", "network": []}, "`network` is a list, but it must be"),
    (DQN | {"replay": []}, "`replay` is of type `list` without"),
    ({"agent": "ppo", "hidden_sizes": [(32, 32), (64, 64)]}, "only decimal options can be swept"),
    ({"name": ""}, "`name` is '', but it must be a label of 1 to 60 printable characters"),
    ({"name": "a\nb"}, "`name` is 'a.*', but it must be a label of"),
    ({"name": 3}, "`name` is 3, but it must be a string"),
    ({"resume": True}, "`resume` is True, but `run_dir` is None"),
    ({"env": walk(), "env_params": {"size": 3}}, "walk .*parameter `size`"),
    ({"env": "CartPole-v1", "env_params": {"gravitee": 3}}, "did you mean `gravity`"),
    ({"env": lambda: flawed(reward=jnp.float32(np.nan))}, "flawed: `reward` .* nan after"),
    ({"env": lambda: flawed(reward=jnp.zeros(2))}, r"flawed: `reward` is float32\[2\]"),
    ({"env": lambda: flawed(reward=jnp.int32(1))}, r"flawed: `reward` is int32\[\]; .*float32"),
    ({"env": lambda: flawed(reset_obs=jnp.zeros(3))}, r"flawed: .*shape \(3,\), .*\(2,\)"),
    ({"env": lambda: flawed(terminated=jnp.float32(0))}, r"flawed: `terminated` is float32\[\]"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_invalid_arguments_raise_one_sentence_before_compiling(options, message, monkeypatch):
    monkeypatch.setattr(runs.Runs, "__init__", lambda *args, **kwargs: pytest.fail("it compiles"))
    options = dict(options)
    if callable(options.get("env")) and not isinstance(options["env"], Env):
        made = options["env"]
        with pytest.raises(ValueError, match=message):
            train(made())
        return
    with pytest.raises(ValueError, match=message) as error:
        train(**options)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


def test_a_sweep_of_ten_thousand_values_is_checked_quickly(monkeypatch):
    checked = []
    original = configs.from_mapping
    monkeypatch.setattr(configs, "from_mapping", lambda *x: checked.append(x) or original(*x))
    rates = np.linspace(1e-4, 1e-3, 10_000)
    assert make_plan("ppo", POLE, learning_rate=rates).num_runs == 10_000
    assert len(checked) <= 3  # the extremes, not each value
    with pytest.raises(ValueError, match="`learning_rate` is -1.0, but it must be above 0"):
        make_plan("ppo", POLE, learning_rate=[*rates, -1.0])


def test_a_missing_package_of_a_writer_is_reported_before_compiling(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    monkeypatch.setattr(runs.Runs, "__init__", None)  # compiling would fail
    with pytest.raises(ValueError, match=r"the writer `wandb` needs the package wandb, .*pip inst"):
        train(writers=["wandb"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_name_of_a_run_is_its_label(tmp_path):
    run = train(name="drifting", run_dir=tmp_path / "run")
    assert run.label == "drifting" and run.title == "drifting · CartPole-v1 · 1 seed"
    assert 'name = "drifting"' in (tmp_path / "run" / "config.toml").read_text()
    assert rljax.load_result(tmp_path / "run").label == "drifting"
    assert make_plan(DRIFT, POLE, name="drifting").title.startswith("drift (drifting) CartPole-v1")


def test_a_run_of_an_own_environment_or_agent_asks_for_it_again(tmp_path):
    train(walk(), run_dir=tmp_path / "run")
    for given, missing in (({}, "agent"), ({"agent": DRIFT}, "env")):
        with pytest.raises(
            ValueError, match=f"its own `{missing}`, .*: pass `{missing}=` again, i"
        ):
            rljax.load_states(tmp_path / "run", **given)
    plan, _ = rljax.load_states(tmp_path / "run", agent=DRIFT, env=walk())
    assert plan.num_runs == 1


# NaN and infinite values


def late_nan(after) -> Env:
    """Rewards are NaN after `after` steps, counted over all episodes."""
    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="late")

    def step(time, action, key):
        obs, no = jnp.zeros(1), jnp.bool_(False)
        reward = jnp.where(time >= after, jnp.nan, 1.0)
        return time + 1, Step(obs, reward, time % 3 == 2, no, obs)

    return Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step)


def unequal(short, long) -> Env:
    """Each environment has episodes of one of two lengths, which its first key draws."""
    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="unequal")

    def reset(key):
        length = jnp.where(jax.random.bernoulli(key), short, long)
        return (jnp.int32(0), length), jnp.zeros(1)

    def step(state, action, key):
        time, length = state
        obs, no = jnp.zeros(1), jnp.bool_(False)
        return (time + 1, length), Step(obs, 1.0, time + 1 >= length, no, obs)

    return Env(spec, reset, step)


def finite_checkpoint(run_dir):
    """Returns the number of updates in the last checkpoint, after checking that it is finite."""
    plan, state = rljax.load_states(run_dir, agent=DRIFT)
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(leaf).all()
    assert state.num_updates.shape == (plan.num_runs,)
    return int(state.num_updates[0])


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_a_nan_loss_stops_a_single_run(tmp_path, save_seconds):
    with pytest.raises(FloatingPointError) as error:
        train(explode_after=6.0, run_dir=tmp_path / "run", save_seconds=save_seconds)
    text = str(error.value)
    where = f"at step {7 * BATCH} (update 7, seed 0). Lower `learning_rate`"
    assert f"`losses/loss` is NaN or infinite {where}" in text
    assert text.endswith(f"The last checkpoint in {tmp_path / 'run'} is finite.")
    saved = finite_checkpoint(tmp_path / "run")
    assert saved == 0 if save_seconds else 0 < saved <= 6


def test_nan_parameters_stop_a_single_run(tmp_path):
    """Also after the last update, where the metrics still show the parameters before it."""
    for after, options in ((3.0, {"save_seconds": 0.0}), (UPDATES - 1.0, {})):
        run_dir = tmp_path / f"run-{after}"
        with pytest.raises(FloatingPointError, match=r"`params\['w'\]` is NaN .*, seed 0\)\. "):
            train(poison_after=after, run_dir=run_dir, **options)
        assert finite_checkpoint(run_dir) <= after


def test_the_other_runs_of_a_sweep_continue_without_a_diverged_one(tmp_path):
    run_dir, options = tmp_path / "run", {"num_seeds": 2, "eval_episodes": 3}
    run = train(explode_after=[1e9, 6.0], run_dir=run_dir, save_seconds=0.0, **options)
    alone = train(explode_after=[1e9, 1e9], **options)
    second = [
        {"run": 2 + i, "step": 7 * BATCH, "name": "losses/loss"} | {
            "title": f"explode_after 6, seed {i}"
        }
        for i in range(2)
    ]  # fmt: skip
    assert run.diverged == tuple(second)
    for name, values in run.metrics.items():
        np.testing.assert_array_equal(values[0], alone.metric(name)[0], err_msg=name)
        assert np.isfinite(values[1, :, 0]).all() or "episodic" in name
        assert np.isnan(values[1, :, 1:]).all(), name  # update 7 is in the second report
    np.testing.assert_array_equal(run.evaluation["returns"][0], alone.evaluation["returns"][0])
    assert np.isfinite(run.evaluation["returns"][1]).all()  # only the loss was NaN
    assert run.summary().splitlines()[-1].startswith("  diverged: explode_after 6, seed 1 at step ")
    assert rljax.load_result(run_dir).diverged == run.diverged


def test_a_resumed_sweep_still_knows_the_diverged_run(tmp_path, monkeypatch):
    options = {"poison_after": [1e9, 2.0], "num_seeds": 2, "eval_episodes": 3}
    whole = train(**options)
    assert [run["name"] for run in whole.diverged] == ["params['w']"] * 2
    assert np.isnan(whole.evaluation["returns"][1]).all()
    assert np.isfinite(whole.evaluation["returns"][0]).all()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, signal.SIGINT)
        train(run_dir=tmp_path / "run", **options)
    resumed = rljax.resume(tmp_path / "run", agent=DRIFT, **QUIET)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(resumed.metric(name), values, err_msg=name)


def test_an_error_names_the_first_run_that_diverged_if_all_did():
    where = rf"at step {3 * BATCH} \(update 3, explode_after 2, seed 0\)\. All 4 runs diverged, "
    with pytest.raises(FloatingPointError, match=where):
        train(explode_after=[6.0, 2.0], num_seeds=2)


def test_the_error_of_nan_suggests_only_options_that_the_agent_has():
    plan = make_plan("ppo", POLE, num_seeds=2)
    states = SimpleNamespace(params={"w": jnp.array([[1.0], [np.nan]])})
    found = divergence.in_params(plan, states, num_updates=3)
    assert list(found) == [1]
    divergence.check(plan, found, None)  # the other run continues
    plan = make_plan("ppo", POLE)
    cure = "Lower `learning_rate` or `max_grad_norm`, or scale the rewards, for example with "
    with pytest.raises(FloatingPointError) as error:
        divergence.check(plan, {0: found[1]._replace(run=0)}, None)
    assert str(error.value) == (
        f"`params['w']` is NaN or infinite at step {3 * plan.steps_per_update} (update 3, seed 0). "
        f"{cure}normalize_reward=True. Nothing was saved."
    )


def test_nan_rewards_are_said_to_come_from_the_environment():
    with pytest.raises(FloatingPointError) as error:
        train(late_nan(130), total_timesteps=BATCH * 50, num_seeds=2)
    update = 130 // NUM_STEPS + 1
    where = f"at step {BATCH * update} (update {update}, seed 0)"
    assert str(error.value) == (
        f"late returned a reward that is NaN or infinite {where}: check the environment. "
        "Nothing was saved."
    )


# Signals


def interrupted(monkeypatch, number, at_chunk=3):
    """Sends a signal during a chunk."""
    original, calls = runs.Runs.advance, []

    def advance(self, size):
        calls.append(size)
        if len(calls) == at_chunk:
            os.kill(os.getpid(), number)
        return original(self, size)

    monkeypatch.setattr(runs.Runs, "advance", advance)
    return calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_chunk_is_finished_and_the_run_can_be_resumed(
    tmp_path, monkeypatch, number, four
):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        calls = interrupted(patch, number)
        with pytest.raises((KeyboardInterrupt, SystemExit)) as stop:
            train(num_seeds=4, run_dir=run_dir)
    if number == signal.SIGTERM:
        assert stop.type is SystemExit and stop.value.code == 143
    else:
        assert stop.type is KeyboardInterrupt
        hint = f"To continue from the last checkpoint: rljax resume {run_dir}"
        assert str(stop.value) == f"Interrupted. {hint}"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert len(calls) == 3 and sum(calls) < UPDATES
    assert finite_checkpoint(run_dir) == sum(calls)  # it includes the interrupted chunk
    with pytest.raises(ValueError, match=f"{run_dir} already contains a run: resume it"):
        train(num_seeds=4, run_dir=run_dir)
    run = rljax.resume(run_dir, agent=DRIFT, **QUIET)
    assert bits((run.state, run.params)) == bits((four.state, four.params))
    assert bits(jax.tree.map(jnp.asarray, run.metrics)) == bits(
        jax.tree.map(jnp.asarray, four.metrics)
    )


def test_an_interrupt_without_a_run_dir_says_that_nothing_was_saved(monkeypatch):
    interrupted(monkeypatch, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="Nothing was saved, because `run_dir` is not set"):
        train()


def test_a_second_interrupt_stops_at_once(tmp_path, monkeypatch):
    def advance(self, size):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the run continued")

    monkeypatch.setattr(runs.Runs, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        train(run_dir=tmp_path / "run")
    assert finite_checkpoint(tmp_path / "run") == 0


# Progress


def test_progress_is_silent_if_off_and_writes_to_stderr_if_on(capfd, monkeypatch):
    train()
    assert capfd.readouterr() == ("", "")
    train(progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "drift CartPole-v1 · 1 seed · cpu" in err and "160/160" in err


# Evaluation


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    return run_dir, train(eval_episodes=5, learning_rate=[0.1, 0.2], num_seeds=2,
                          run_dir=run_dir)  # fmt: skip


def test_the_final_policies_are_evaluated(evaluated):
    run_dir, run = evaluated
    assert run.evaluation["returns"].shape == run.evaluation["lengths"].shape == (2, 2, 5)
    np.testing.assert_array_equal(run.evaluation["unfinished"], np.zeros((2, 2)))
    np.testing.assert_array_equal(run.evaluation["returns"], run.evaluation["lengths"])
    before = bits(run.state)
    for source in (run, run_dir):
        again = rljax.evaluate(source, 5, agent=DRIFT)
        for name, values in run.evaluation.items():
            np.testing.assert_array_equal(again[name], values)
    assert bits(run.state) == before
    # the policy is the same, but each seed has its own environments
    assert not np.array_equal(run.evaluation["returns"][0, 0], run.evaluation["returns"][0, 1])


def test_evaluation_is_greedy_or_samples_and_has_a_seed(evaluated):
    run = evaluated[1]
    greedy = run.evaluation["returns"]
    assert greedy.max() <= 11  # it always pushes to the left, so the pole falls at once
    sampled = rljax.evaluate(run, 5, agent=DRIFT, greedy=False)["returns"]
    assert sampled.max() > 11
    other = rljax.evaluate(run, 5, agent=DRIFT, seed=1)["returns"]
    assert other.max() <= 11 and not np.array_equal(greedy, other)


def test_evaluation_is_compiled_once(evaluated, monkeypatch):
    run, compiled = evaluated[1], []
    original = programs._with_options

    def count(*arguments):
        compiled.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(programs, "_with_options", count)
    first = rljax.evaluate(run, 7, agent=DRIFT)["returns"]
    assert len(compiled) == 1
    again = rljax.evaluate(run, 7, agent=DRIFT)["returns"]
    np.testing.assert_array_equal(again, first)
    other = rljax.evaluate(run, 7, agent=DRIFT, seed=1)["returns"]
    assert len(compiled) == 1 and not np.array_equal(other, first)
    rljax.evaluate(run, 7, agent=DRIFT, greedy=False)  # another program
    assert len(compiled) == 2


def test_a_result_loaded_from_files_cannot_be_evaluated(evaluated):
    with pytest.raises(ValueError, match="loaded from files: pass its run directory"):
        rljax.evaluate(rljax.load_result(evaluated[0]), 5, agent=DRIFT)


# The run directory


def test_the_run_directory_holds_the_result(evaluated):
    run_dir, run = evaluated
    names = {path.name for path in run_dir.iterdir()}
    assert names == {
        "config.toml", "metrics.jsonl", "curves.npz", "result.json", "curve.png", "README.txt",
        "checkpoint", "provenance.json",
    }  # fmt: skip
    saved = rljax.load_result(run_dir)
    assert saved.config == run.config and saved.sweep == run.sweep
    for name, values in run.metrics.items():
        np.testing.assert_array_equal(saved.metric(name), values)
    np.testing.assert_array_equal(saved.steps, run.steps)
    _, state = rljax.load_states(run_dir, agent=DRIFT)
    assert bits(state.agent.params["w"].reshape(2, 2, 2)) == bits(run.params["w"])
    newest = checkpoint.checkpoints(run_dir / "checkpoint")[0]
    assert checkpoint.read_meta(newest)["num_updates"] == UPDATES
    assert str(run_dir) in (run_dir / "README.txt").read_text()


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="there is no run in"):
        rljax.resume(tmp_path / "absent")
    with pytest.raises(ValueError, match="there is no run in"):
        train(run_dir=tmp_path / "absent", resume=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.toml").write_text('agent = "ppo"\nenv_id = "CartPole-v1"\n')
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        rljax.load_states(tmp_path / "empty")
