"""`rljax.train` and its kin: what a run is, what it tells, and what it refuses."""

import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import DRIFT, DriftConfig, bits, coin, drift, walk

import rljax
from rljax.envs import build
from rljax.experiment import checkpoint
from rljax.experiment import run as experiment
from rljax.experiment.plan import make_plan
from rljax.training import runs
from rljax.training.learner import make_learner
from rljax.types import Env, EnvSpec, Mean, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")

NUM_ENVS, NUM_STEPS, UPDATES = 2, 4, 20
BATCH = NUM_ENVS * NUM_STEPS
SMALL = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "total_timesteps": BATCH * UPDATES}
QUIET = {"progress": False, "eval_episodes": 0}
POLE = "CartPole-v1"


def train(env=POLE, agent=DRIFT, **options):
    """Runs of equal shape share one program, whatever their floats."""
    return rljax.train(agent, env, **SMALL | QUIET | {"num_reports": 5} | options)


@pytest.fixture(scope="module")
def four():
    return train(num_seeds=4)


def close(x, y):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def counted():
    """An agent, and the list of the times that its update was traced."""
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
    close(two.params, jax.tree.map(lambda x: x[:2], four.params))
    for name, values in two.metrics.items():
        np.testing.assert_allclose(values, four.metrics[name][:2], rtol=1e-5, err_msg=name)
    assert bits(two.state.key) == bits(four.state.key[:2])
    assert len({row.tobytes() for row in four.metric("losses/noise")}) == 4


def test_the_key_of_a_seed_depends_on_nothing_else():
    def keys(**options):
        plan = make_plan(DRIFT, POLE, **SMALL | options)
        return jax.random.key_data(plan.starts().key)

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


def test_never_more_steps_are_taken_than_were_asked_for():
    run = train(total_timesteps=BATCH * 7 + BATCH - 1, num_reports=3)
    assert (run.steps / BATCH).tolist() == [2, 5, 7]
    assert int(run.state.num_updates[0]) == 7
    assert run.metric("losses/loss").shape == (1, 3)


@pytest.mark.parametrize("pace", [1.0, 2.5, 1e9])
@pytest.mark.parametrize(
    ("updates", "num_reports", "expected"),
    [(7, 3, [2, 5, 7]), (3, 50, [1, 2, 3]), (5, 1, [5]), (1, 4, [1]), (10, 4, [2, 5, 8, 10])],
)
def test_chunks_of_any_pace_end_at_the_reports(updates, num_reports, expected, pace):
    """From the beginning, and from wherever a run is resumed."""
    options = SMALL | {"total_timesteps": BATCH * updates, "num_reports": num_reports}
    plan = make_plan(DRIFT, POLE, **options)
    for start in range(updates):
        done, ends = start, []
        for size, is_report in experiment._chunks(plan, start, lambda: pace):
            assert 1 <= size <= max(pace, 1)
            done += size
            ends += [done] * is_report
        assert done == updates
        assert ends == [end for end in expected if end > start]


def test_a_run_is_that_of_a_plain_loop(four):
    """Every metric of every report of every seed, and the last state."""
    config = DriftConfig(**SMALL)
    env = build(POLE, NUM_ENVS)
    learner = make_learner(drift(config, env.spec), env, NUM_STEPS)
    step = jax.jit(learner.step)
    for seed in range(2):
        state = learner.init(jax.random.fold_in(jax.random.key(0), seed))
        for report in range(5):
            rows = []
            for _ in range(UPDATES // 5):
                state, metrics = step(state)
                rows.append(jax.device_get(metrics))
            for name, values in four.metrics.items():
                seen = [row[name] for row in rows]
                if isinstance(seen[0], Mean):
                    weight = sum(x.weight for x in seen)
                    expected = sum(x.total for x in seen) / weight if weight else np.nan
                else:
                    expected = np.mean(seen)
                np.testing.assert_allclose(values[seed, report], expected, rtol=1e-4, err_msg=name)
        close(state.agent, jax.tree.map(lambda x, seed=seed: x[seed], four.state.agent))


def test_a_report_without_an_episode_has_no_return():
    run = train(coin(short=9, long=9), num_reports=UPDATES)
    lengths = run.metric("charts/episodic_length")[0]
    assert set(np.flatnonzero(~np.isnan(lengths))) == {2, 4, 6, 8, 11, 13, 15, 17}
    assert np.nanmax(lengths) == np.nanmin(lengths) == 9
    np.testing.assert_array_equal(run.returns[0], lengths)


def test_the_memory_of_metrics_does_not_depend_on_steps():
    def sizes(updates):
        plan = make_plan(DRIFT, POLE, **SMALL | {"total_timesteps": BATCH * updates}, num_reports=5)
        work = runs.template(plan.make_learner(), plan.config, plan.starts())
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), work)

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
    assert len(traces) == once
    assert run.sweep == {"learning_rate": rates} and run.returns.shape == (8, 4, 5)
    assert run.params["w"].shape == (8, 4, 2)
    close(jax.tree.map(lambda x: x[0], run.params), four.params)  # the default rate is the first
    alone = train(learning_rate=rates[3], num_seeds=4)
    close(jax.tree.map(lambda x: x[3], run.params), alone.params)
    for name, values in alone.metrics.items():
        np.testing.assert_allclose(run.metric(name)[3], values, rtol=1e-5, err_msg=name)
    assert len(np.unique(np.asarray(run.params["w"])[:, 0, 0])) == 8


def test_two_sweeps_are_two_axes(four):
    run = train(learning_rate=[0.1, 0.05], gamma=np.array([0.5, 0.9, 0.99]), num_seeds=2)
    assert list(run.sweep) == ["learning_rate", "gamma"] and run.returns.shape == (2, 3, 2, 5)
    close(jax.tree.map(lambda x: x[0, 2], run.params), jax.tree.map(lambda x: x[:2], four.params))
    assert run.settings[3] == {"learning_rate": 0.05, "gamma": 0.5}


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


def test_programs_of_ones_own_environment_are_not_mixed_up():
    """Two that have one name and one shape, but not one behaviour."""
    first = train(coin(short=3, long=3)).metric("charts/episodic_length")
    second = train(coin(short=2, long=2)).metric("charts/episodic_length")
    assert (first == 3).all() and (second == 2).all()


# Pieces of one's own


class Linear(nn.Module):
    """The least that can be a network."""

    @nn.compact
    def __call__(self, obs):
        import distrax

        logits = nn.Dense(2, name="mine")(obs)
        return distrax.Categorical(logits=logits), nn.Dense(1)(obs)[..., 0]


def test_every_piece_can_be_ones_own(tmp_path):
    """A gymnax object, a network, an optimizer and a surrogate; also where they are saved."""
    from rljax.envs.gymnax import load_gymnax

    cart_pole = load_gymnax().make("CartPole-v1")[0]
    counting = rljax.clip(0.2)._replace(init=lambda: jnp.int32(0), adapt=lambda n, kl: n + 1)
    pieces = {"network": Linear(), "optimizer": optax.sgd(0.5), "surrogate": counting}
    run = rljax.train(
        "ppo", cart_pole, **SMALL, update_epochs=1, num_minibatches=1, run_dir=tmp_path / "run",
        progress=False, eval_episodes=4, **pieces,
    )  # fmt: skip
    assert run.env_id == "CartPole-v1" and run.config["pieces"] == sorted(pieces)
    assert set(run.params["params"]) == {"mine", "Dense_0"}
    assert run.params["params"]["mine"]["kernel"].shape == (1, 4, 2)
    assert not [x for x in jax.tree.leaves(run.state.agent.opt_state) if x.size > 1]  # no moments
    assert run.state.agent.surrogate.tolist() == [UPDATES]
    seen = rljax.evaluate(tmp_path / "run", 4, env=cart_pole, **pieces)
    np.testing.assert_array_equal(seen["returns"], run.evaluation["returns"])
    with pytest.raises(ValueError, match="made with `network=`, which a file cannot hold"):
        rljax.evaluate(tmp_path / "run", 4, env=cart_pole)


def test_an_environment_of_ones_own_can_have_another_limit():
    long = train(coin(short=9, long=9), env_params={"max_episode_steps": 3})
    assert np.nanmax(long.metric("charts/episodic_length")) == 3


# What is refused, before anything is compiled


def flawed(**flaws):
    """An environment with one thing wrong."""
    spec = EnvSpec(obs_shape=(2,), num_actions=2, env_id="flawed")
    first = flaws.pop("reset_obs", jnp.zeros(2))

    def step(state, action, key):
        told = {
            "obs": jnp.zeros(2), "reward": jnp.float32(0), "terminated": state % 3 == 2,
            "truncated": jnp.bool_(False), "next_obs": jnp.ones(2),
        }  # fmt: skip
        return state + 1, Step(**told | flaws)

    return Env(spec, lambda key: (jnp.int32(0), first), step)


REFUSED = [
    ({"agent": "pop"}, "there is no agent `pop`: did you mean `ppo`"),
    ({"agent": 3}, r"`agent` is 3, but it must be a name .* or a pair"),
    ({"env": "CartPol-v1"}, "there is no environment `CartPol-v1`: did you mean CartPole-v1"),
    ({"env": "nowhere/Maze"}, "there is no suite `nowhere`"),
    ({"lerning_rate": 0.1}, "no option `lerning_rate`: did you mean `learning_rate`"),
    ({"lr": 0.1}, "`lr` is `learning_rate` here"),
    ({"seeds": 3}, "no option `seeds`: `seeds` is `num_seeds` here"),
    ({"num_seeds": 0}, "`num_seeds` is 0, but it must be at least 1"),
    ({"num_seeds": [1, 2]}, r"`num_seeds` is \[1, 2\], but it must be a whole number"),
    ({"num_seeds": 1.5}, "`num_seeds` is 1.5, but it must be a whole number"),
    ({"seed": -1}, "`seed` is -1, but it must be at least 0"),
    ({"num_reports": 0}, "`num_reports` is 0, but it must be at least 1"),
    ({"eval_episodes": -1}, "`eval_episodes` is -1, but it must be at least 0"),
    ({"gamma": 1.5}, "`gamma` is 1.5, but it must be at least 0.* and at most 1"),
    ({"gamma": "high"}, "`gamma` is 'high', but it must be a number"),
    ({"learning_rate": 0.0}, "`learning_rate` is 0.0, but it must be above 0"),
    ({"learning_rate": [0.1, -1.0]}, "`learning_rate` is -1.0, but it must be above 0"),
    ({"learning_rate": []}, "`learning_rate` is .*, but a sweep must be a flat list"),
    ({"learning_rate": [[0.1]]}, "`learning_rate` is .*, but a sweep must be a flat list"),
    ({"num_envs": [2, 4]}, r"`num_envs` is \[2, 4\], but it shapes the program"),
    ({"total_timesteps": BATCH - 1}, f"`total_timesteps` is {BATCH - 1}, .* raise it to {BATCH}"),
    ({"num_steps": 0}, "`num_steps` is 0, but it must be at least 1"),
    ({"agent": "ppo", "num_minibatches": 3}, "`num_minibatches` is 3, but it must divide"),
    ({"agent": "ppo", "activation": "tanhh"}, "`activation` is 'tanhh', .* did you mean 'tanh'"),
    ({"agent": "ppo", "surrogate": "klip"}, "`surrogate` is 'klip', .* one of clip, kl"),
    ({"agent": "ppo", "network": "big"}, "`network` is 'big', but it is a piece of `ppo`"),
    ({"writers": ("csv",)}, "there is no writer `csv`: there are jsonl, tensorboard, wandb"),
    ({"writers": "tensorbord"}, "there is no writer `tensorbord`: did you mean `tensorboard`"),
    ({"resume": True}, "`resume` is True, but there is no `run_dir`"),
    ({"env": walk(), "env_params": {"size": 3}}, "walk has no parameter `size`"),
    ({"env": "CartPole-v1", "env_params": {"gravitee": 3}}, "did you mean `gravity`"),
    ({"env": lambda: flawed(reward=jnp.float32(np.nan))}, "flawed: `reward` holds nan after"),
    ({"env": lambda: flawed(reward=jnp.zeros(2))}, r"flawed: `reward` is float32\[2\]"),
    ({"env": lambda: flawed(reward=jnp.int32(1))}, r"flawed: `reward` is int32\[\]; .*float32"),
    ({"env": lambda: flawed(reset_obs=jnp.zeros(3))}, r"flawed: .*shape \(3,\), .*\(2,\)"),
    ({"env": lambda: flawed(terminated=jnp.float32(0))}, r"flawed: `terminated` is float32\[\]"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_mistakes_are_refused_in_one_sentence_before_compiling(options, message, monkeypatch):
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


# Numbers that are not finite


def late_nan(after) -> Env:
    """Rewards are NaN once `after` steps have been taken, however many episodes that took."""
    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="late")

    def step(time, action, key):
        obs, no = jnp.zeros(1), jnp.bool_(False)
        reward = jnp.where(time >= after, jnp.nan, 1.0)
        return time + 1, Step(obs, reward, time % 3 == 2, no, obs)

    return Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step)


def finite_checkpoint(run_dir):
    """The state that the last checkpoint holds; all of it is finite."""
    plan, state = rljax.load_states(run_dir, agent=DRIFT)
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(leaf).all()
    assert state.num_updates.shape == (plan.num_runs,)
    return int(state.num_updates[0])


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, save_seconds):
    with pytest.raises(FloatingPointError) as error:
        train(
            explode_after=[1e9, 6.0],
            num_seeds=2,
            run_dir=tmp_path / "run",
            save_seconds=save_seconds,
        )
    text = str(error.value)
    assert f"`losses/loss` became NaN or infinite at step {7 * BATCH} (update 7)" in text
    assert "explode_after 6, seed 0" in text and f"{tmp_path / 'run'} is finite" in text
    saved = finite_checkpoint(tmp_path / "run")
    assert saved == 0 if save_seconds else 0 < saved <= 6


def test_weights_that_are_not_finite_stop_the_run(tmp_path):
    """Where no metric shows it, and in the last update, whose loss was that of the one before."""
    for after, options in ((3.0, {"save_seconds": 0.0}), (UPDATES - 1.0, {})):
        run_dir = tmp_path / f"run-{after}"
        with pytest.raises(FloatingPointError, match=r"`params\['w'\]` became NaN.*of seed 0; "):
            train(poison_after=after, run_dir=run_dir, **options)
        assert finite_checkpoint(run_dir) <= after


def test_rewards_that_are_not_finite_stop_the_run():
    with pytest.raises(FloatingPointError) as error:
        train(late_nan(130), total_timesteps=BATCH * 50, num_seeds=2)
    step = BATCH * (130 // NUM_STEPS + 1)
    assert f"at step {step} (update {130 // NUM_STEPS + 1}) of seed 0; nothing was saved" in str(
        error.value
    )
    assert "charts/" in str(error.value)


# Signals


def interrupted(monkeypatch, number, at_chunk=3):
    """Lets a signal come while a chunk is under way."""
    original, calls = runs.Runs.advance, []

    def advance(self, size):
        calls.append(size)
        if len(calls) == at_chunk:
            os.kill(os.getpid(), number)
        return original(self, size)

    monkeypatch.setattr(runs.Runs, "advance", advance)
    return calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_chunk_finish_and_the_run_go_on_later(
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
        assert str(stop.value) == f"interrupted; saved: rljax resume {run_dir}"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert len(calls) == 3 and sum(calls) < UPDATES
    assert finite_checkpoint(run_dir) == sum(calls)  # the chunk under way is in it
    with pytest.raises(ValueError, match=f"{run_dir} holds a run already: resume it"):
        train(num_seeds=4, run_dir=run_dir)
    run = rljax.resume(run_dir, agent=DRIFT, **QUIET)
    assert bits((run.state, run.params)) == bits((four.state, four.params))
    assert bits(jax.tree.map(jnp.asarray, run.metrics)) == bits(
        jax.tree.map(jnp.asarray, four.metrics)
    )


def test_without_a_folder_it_says_that_nothing_was_saved(monkeypatch):
    interrupted(monkeypatch, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="nothing was saved: no `run_dir`"):
        train()


def test_a_second_interrupt_is_not_waited_for(tmp_path, monkeypatch):
    def advance(self, size):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(runs.Runs, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        train(run_dir=tmp_path / "run")
    assert finite_checkpoint(tmp_path / "run") == 0


# Telling


def test_progress_off_is_silent_and_on_tells_on_stderr(capfd, monkeypatch):
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


def test_the_last_policies_are_evaluated(evaluated):
    run_dir, run = evaluated
    assert run.evaluation["returns"].shape == run.evaluation["lengths"].shape == (2, 2, 5)
    np.testing.assert_array_equal(run.evaluation["unfinished"], np.zeros((2, 2)))
    np.testing.assert_array_equal(run.evaluation["returns"], run.evaluation["lengths"])
    before = bits(run.state)
    for source in (run, run_dir):
        again = experiment.evaluate(source, 5, agent=DRIFT)
        for name, values in run.evaluation.items():
            np.testing.assert_array_equal(again[name], values)
    assert bits(run.state) == before
    # one policy for all, but the environments of a seed are its own
    assert not np.array_equal(run.evaluation["returns"][0, 0], run.evaluation["returns"][0, 1])


def test_evaluation_is_greedy_or_samples_and_has_a_seed(evaluated):
    run = evaluated[1]
    greedy = run.evaluation["returns"]
    assert greedy.max() <= 11  # always to the left: it falls at once
    sampled = experiment.evaluate(run, 5, agent=DRIFT, greedy=False)["returns"]
    assert sampled.max() > 11
    other = experiment.evaluate(run, 5, agent=DRIFT, seed=1)["returns"]
    assert other.max() <= 11 and not np.array_equal(greedy, other)


def test_a_result_read_from_files_has_no_policy_to_evaluate(evaluated):
    with pytest.raises(ValueError, match="read from files: give the folder"):
        experiment.evaluate(rljax.load_result(evaluated[0]), 5, agent=DRIFT)


# The folder


def test_a_folder_holds_what_the_result_holds(evaluated):
    run_dir, run = evaluated
    names = {path.name for path in run_dir.iterdir()}
    assert names == {
        "config.toml", "metrics.jsonl", "curves.npz", "result.json", "curve.png", "README.txt",
        "checkpoint",
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


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="there is no file .*config.toml"):
        rljax.resume(tmp_path / "absent")
    with pytest.raises(ValueError, match="there is no run in"):
        train(run_dir=tmp_path / "absent", resume=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.toml").write_text('agent = "ppo"\nenv_id = "CartPole-v1"\n')
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        rljax.load_states(tmp_path / "empty")
