"""Evaluation during training, the best policies, early stopping, and `on_report`."""

import jax
import numpy as np
import pytest
from climb import CLIMB, ENV, expected
from probes import TARGET, bits

import rljax
from rljax.experiment import json_lines, loop
from rljax.experiment.evaluation import load_best

pytestmark = pytest.mark.usefixtures("quick_compiles")

QUIET = {"progress": False, "eval_episodes": 3, "num_reports": 10}
EVAL = "eval/episodic_return"


def train(**options):
    return rljax.train(CLIMB, ENV, **QUIET | {"num_seeds": 3} | options)


def resume(run_dir, **options):
    return rljax.resume(run_dir, ENV, CLIMB, progress=False, **options)


@pytest.fixture(scope="module")
def evaluated():
    return train(rate=[0.1, 0.05], eval_interval=16)


def test_evaluations_are_those_of_the_policies_at_the_reports(evaluated):
    np.testing.assert_allclose(evaluated.metric(EVAL), expected(evaluated, [0.1, 0.05]), atol=1e-5)
    assert (evaluated.metric("eval/episodic_length") == 1).all()


def test_the_best_policy_is_that_of_the_highest_evaluation(evaluated):
    curves = expected(evaluated, [0.1, 0.05])
    np.testing.assert_array_equal(evaluated.best.step, evaluated.steps[curves.argmax(-1)])
    np.testing.assert_allclose(
        evaluated.best.returns, np.repeat(curves.max(-1)[..., None], 3, -1), atol=1e-5
    )
    x = np.asarray(evaluated.best.state.params["x"])
    np.testing.assert_allclose(-np.abs(x - TARGET), curves.max(-1), atol=1e-5)
    assert (evaluated.best.step < evaluated.steps[-1]).any()  # the last policy is another
    final = evaluated.evaluation["returns"].mean(-1)
    np.testing.assert_allclose(final, curves[..., -1], atol=1e-5)
    assert (evaluated.best.returns.mean(-1) >= final - 1e-6).all()


def test_evaluation_does_not_change_training(evaluated):
    plain = train(rate=[0.1, 0.05])
    for name, values in plain.metrics.items():
        assert bits(values) == bits(evaluated.metric(name)), name
    assert all(map(np.array_equal, *map(jax.tree.leaves, (plain.params, evaluated.params))))
    assert plain.best is None and EVAL not in plain.metrics


def test_evaluations_are_at_the_first_report_after_each_interval():
    run = train(eval_interval=40)  # reports are 16 steps apart
    is_evaluated = ~np.isnan(run.metric(EVAL)[0])
    assert run.steps[is_evaluated].tolist() == [48, 80, 128, 160]


def test_each_evaluation_has_other_environments():
    """CartPole's first states are random: equal policies would have equal returns otherwise."""
    run = rljax.train(
        "ppo", "CartPole-v1", num_envs=2, num_steps=8, total_timesteps=64, learning_rate=1e-30,
        anneal_lr=False, eval_interval=16, num_reports=4, eval_episodes=5, progress=False,
    )  # fmt: skip
    values = [*run.metric(EVAL)[0], run.evaluation["returns"].mean()]
    assert len(set(np.float32(values).tolist())) > 2  # of five
    assert bits(run.evaluation["returns"]) == bits(rljax.evaluate(run, 5)["returns"])


def test_the_best_policies_are_in_the_run_directory_also_after_a_resume(evaluated, tmp_path):
    def interrupt(report):
        if report.step == 96:
            raise KeyboardInterrupt

    options = {"rate": [0.1, 0.05], "eval_interval": 16, "run_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        train(**options, on_report=interrupt)
    assert resume(tmp_path / "run").metric(EVAL).shape == (2, 3, 10)
    run = resume(tmp_path / "run")  # complete: loaded from files
    for name, values in evaluated.metrics.items():
        assert bits(values) == bits(run.metric(name)), name
    for x, y in zip(jax.tree.leaves(evaluated.best), jax.tree.leaves(run.best), strict=True):
        assert bits(x) == bits(y)
    plan, states = load_best(tmp_path / "run", ENV, agent=CLIMB)
    assert bits(states.params["x"]) == bits(evaluated.best.state.params["x"].reshape(-1))
    assert plan.num_runs == 6 and states.memory.shape == (6,)  # acting does not use it


def test_without_evaluations_there_are_no_best_policies(tmp_path):
    train(run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="has no best policies, because it was not evaluated"):
        load_best(tmp_path / "run", ENV, agent=CLIMB)


def test_a_diverged_run_keeps_its_best_policy_from_before():
    run = train(rate=[0.1, 0.05], until=0.5, eval_interval=16)
    assert {entry["run"] for entry in run.diverged} >= {0, 1, 2}  # those of rate 0.1
    curve = run.metric(EVAL)[0]
    assert np.isnan(curve[:, -1]).all()
    assert np.array_equal(run.best.step[0], run.steps[np.nanargmax(curve, axis=-1)])
    assert np.isfinite(run.best.returns).all()


# Early stopping


def test_the_median_over_seeds_stops_all_seeds_of_a_setting():
    run = train(rate=[0.1, 0.05], eval_interval=16, stop_at=-0.4)
    curves = expected(run, [0.1, 0.05])
    for i in range(2):
        stop = int(np.argmax(np.median(curves[i], axis=0) >= -0.4))
        assert (run.stopped[i] == run.steps[stop]).all()
        held = np.repeat(curves[i][:, [stop]], 10 - stop, axis=1)
        np.testing.assert_allclose(run.metric(EVAL)[i][:, stop:], held, atol=1e-5)
        x = np.asarray(run.params["x"][i])  # the final parameters are those of the stop
        np.testing.assert_allclose(-np.abs(x - TARGET), curves[i][:, stop], atol=1e-5)
    assert run.stopped[0, 0] < run.stopped[1, 0] < run.steps[-1]
    assert run.steps.tolist() == [16 * i for i in range(1, 11)]


def test_each_seed_stops_by_itself():
    run = train(rate=[0.1, 0.05], eval_interval=16, stop_at=-0.25, stop_by="seed")
    curves = expected(run, [0.1, 0.05])
    stops = (curves >= -0.25).argmax(-1)
    np.testing.assert_array_equal(run.stopped, run.steps[stops])
    final = np.take_along_axis(curves, stops[..., None], -1)[..., 0]
    np.testing.assert_allclose(run.evaluation["returns"].mean(-1), final, atol=1e-5)
    assert len(np.unique(run.stopped[1])) > 1  # seeds of one setting stop at different steps


def test_a_run_that_has_stopped_cannot_diverge():
    run = train(rate=[0.1, 0.001], until=0.6, eval_interval=16, stop_at=-0.25, stop_by="seed")
    assert np.isfinite(run.stopped[0]).all() and np.isnan(run.stopped[1]).all()
    assert run.diverged == () and np.isfinite(run.metric(EVAL)).all()  # at 0.6 it would be NaN
    assert np.isfinite(run.params["x"]).all() and np.isfinite(run.evaluation["returns"]).all()


def test_a_run_that_never_reaches_the_return_is_trained_to_its_end():
    run = train(eval_interval=16, stop_at=1.0)
    assert np.isnan(run.stopped).all()
    assert int(run.state.num_updates[0]) == 20


def test_a_stopped_run_is_complete_and_resumes_like_an_uninterrupted_one(tmp_path):
    options = {"rate": [0.1, 0.05], "eval_interval": 16, "stop_at": -0.25, "stop_by": "seed"}
    whole = train(run_dir=tmp_path / "whole", **options)

    def interrupt(report):
        if report.step == 96:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run_dir=tmp_path / "cut", on_report=interrupt, **options)
    cut = resume(tmp_path / "cut")
    assert bits(cut.stopped) == bits(whole.stopped) and np.isfinite(whole.stopped).any()
    assert bits(cut.params["x"]) == bits(whole.params["x"])
    for name, values in whole.metrics.items():
        assert bits(values) == bits(cut.metric(name)), name
    again = resume(tmp_path / "whole")
    assert bits(again.params["x"]) == bits(whole.params["x"])  # with its state: it is complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_interval": 15}, "`eval_interval` is 15, but evaluations are made at reports, whi"),
        ({"eval_interval": -1}, "`eval_interval` is -1, but it must be at least 0"),
        ({"eval_interval": 16, "eval_episodes": 0}, "`eval_episodes` is 0, but `eval_interval` i"),
        ({"stop_at": 1.0}, "`stop_at` is 1, but training is not evaluated: set `eval_interval`"),
        ({"stop_at": np.nan, "eval_interval": 16}, "`stop_at` is nan"),
        ({"stop_by": "seed", "eval_interval": 16}, "`stop_by` is 'seed', but `stop_at` is not set"),
        ({"stop_by": "mean", "eval_interval": 16}, "`stop_by` is 'mean', but it must be one of"),
    ],
)
def test_options_of_evaluations_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


# on_report


def test_on_report_receives_metrics_and_states_and_logs_its_own(tmp_path):
    seen = []

    def on_report(report):
        seen.append(report)
        assert report.params["x"].shape == (2, 3)
        if report.step == 48:
            return {"own/x": report.params["x"], "own/constant": 7}
        return None

    run = train(rate=[0.1, 0.05], on_report=on_report, run_dir=tmp_path / "run")
    assert [report.step for report in seen] == run.steps.tolist()
    x = run.metric("losses/x")
    for i, report in enumerate(seen):
        np.testing.assert_array_equal(report.metrics["losses/x"], x[..., i])
        assert (report.metrics["time/steps_per_second"] > 0).all()
    own = run.metric("own/x")
    assert own.shape == (2, 3, 10) and np.isnan(np.delete(own, 2, axis=-1)).all()
    rates = np.array([[0.1], [0.05]])
    np.testing.assert_allclose(own[..., 2], x[..., 2] + rates / 2, atol=1e-5)  # after the mean
    assert (run.metric("own/constant")[..., 2] == 7).all()
    rows = json_lines.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert (rows[2][1]["own/constant"] == 7).all()
    assert loop.STEPS_PER_SECOND not in rows[0][1]  # the file depends only on the run


def test_on_report_stops_the_run(tmp_path):
    run = train(on_report=lambda report: report.step >= 48, run_dir=tmp_path / "run")
    assert (run.stopped == 48).all() and (np.asarray(run.state.num_updates) == 6).all()
    x = run.metric("losses/x")
    assert (x[:, 3:] == x[:, [2]]).all() and run.steps[-1] == 160
    assert bits(resume(tmp_path / "run").stopped) == bits(run.stopped)


def test_an_error_in_on_report_is_raised_after_the_state_is_saved(tmp_path):
    def on_report(report):
        if report.step == 64:
            raise ZeroDivisionError("the user's own")
        return {"own/step": report.step}

    with pytest.raises(ZeroDivisionError, match="the user's own") as error:
        train(on_report=on_report, run_dir=tmp_path / "run")
    assert error.traceback[-1].name == "on_report"
    steps = []
    resumed = resume(tmp_path / "run", on_report=lambda report: steps.append(report.step))
    assert steps == [80, 96, 112, 128, 144, 160]
    whole = train()
    assert bits(resumed.metric("losses/x")) == bits(whole.metric("losses/x"))
    own = resumed.metric("own/step")[0]
    assert own[:3].tolist() == [16, 32, 48] and np.isnan(own[3:]).all()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3, "`on_report` returned 3, but it must return True to stop, a dict of metrics to log"),
        ({"charts/reward": 1}, "`on_report` returned a metric named 'charts/reward', but a name"),
        ({1: 1}, "`on_report` returned a metric named 1, but"),
        ({"x": "text"}, "`on_report` returned 'text' as metric `x`, but a metric must be a number"),
        ({"x": np.ones(4)}, r"as metric `x`, but .* or an array of shape \(3,\)"),
    ],
)
def test_answers_of_on_report_are_checked(answer, message):
    with pytest.raises(ValueError, match=message):
        train(on_report=lambda report: answer)
