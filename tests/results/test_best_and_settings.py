"""Lists of settings, the best policies during training, and runs that stopped early."""

import dataclasses
import sys
import tomllib

import numpy as np
import pytest
from result_helpers import POINTS, make, with_best

from rljax.experiment.make_plan import plan_from_record
from rljax.results import frame, storage
from rljax.results.arrays import Best
from rljax.results.files import load_result

SETTINGS = {"setting": [{"learning_rate": 1e-3, "clip_eps": 0.1}, {"learning_rate": 3e-4}]}
BOTH = {**SETTINGS, "gamma": [0.9, 0.99, 1.0]}


def test_a_list_of_settings_is_one_axis():
    result = make(sweep=BOTH, num_seeds=3)
    assert result.returns.shape == (2, 3, 3, POINTS)
    assert result.settings[1] == {"learning_rate": 1e-3, "clip_eps": 0.1, "gamma": 0.99}
    assert result.settings[3] == {"learning_rate": 3e-4, "gamma": 0.9}
    returns = result.evaluation["returns"].astype(np.float64)
    np.testing.assert_allclose(result.scores(True)[4], returns[1, 1].mean(-1))


def test_the_figure_of_a_list_of_settings_names_its_fields():
    (legend,) = make(sweep=SETTINGS).plot().legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["learning_rate=0.001, clip_eps=0.1", "learning_rate=0.0003"]
    assert not legend.get_title().get_text()


@pytest.mark.parametrize("sweep", [{}, SETTINGS, BOTH])
def test_best_and_stopped_are_saved_bit_for_bit(tmp_path, sweep):
    result = with_best(make(sweep=sweep))
    stopped = np.where(result.best.step > 50_000, np.nan, result.best.step)
    result = dataclasses.replace(result, stopped=stopped, plan=("plan",))
    loaded = load_result(result.save(tmp_path))
    assert loaded.sweep == sweep and loaded.settings == result.settings
    assert loaded.plan is None and loaded.best.state is None
    pairs = [(result.stopped, loaded.stopped), *zip(result.best[:3], loaded.best[:3], strict=True)]
    for before, after in pairs:
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert before.tobytes() == after.tobytes()


def test_a_result_of_an_older_version_has_neither_best_nor_stopped(tmp_path):
    make().save(tmp_path)
    assert "best/step" not in storage.read(tmp_path, ["agent"])[1]
    loaded = load_result(tmp_path)
    assert (loaded.best, loaded.stopped) == (None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stopped": np.zeros(5)}, r"`stopped` has shape \(5,\), but it must be \(4,\)"),
        ({"best": Best(np.zeros(3), np.zeros((4, 5)), np.zeros((4, 5)))}, "`best/step` has shape"),
        ({"best": Best(np.zeros(4), np.zeros((3, 5)), np.zeros((4, 5)))}, "`best/returns` has"),
        ({"best": Best(np.zeros(4), np.zeros((4, 5)), np.zeros(5))}, "`best/lengths` has"),
    ],
)
def test_wrong_shapes_of_best_and_stopped_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(), **changes)


def scored(scores, sweep=None, evaluated=True):
    """Returns a sweep with these scores, `[settings, seeds]`."""
    scores = np.asarray(scores, np.float64)
    sweep = sweep or {"learning_rate": [10.0**-i for i in range(len(scores))]}
    result = make(sweep=sweep, num_seeds=scores.shape[-1])
    if evaluated:
        changes = {
            "returns": np.repeat(scores[..., None], 3, -1).reshape(*result.returns.shape[:-1], 3)
        }
        return dataclasses.replace(result, evaluation={**result.evaluation, **changes})
    returns = np.repeat(scores.reshape(*result.returns.shape[:-1], 1), POINTS, -1)
    return dataclasses.replace(
        result, evaluation=None, metrics={"charts/episodic_return": returns}
    )  # fmt: skip


NAN = np.nan


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([[1, 1], [3, 3], [2, 2]], [1, 2, 0]),
        ([[1, 1], [2, 2], [2, 2]], [1, 2, 0]),  # a tie keeps the order
        ([[0, 6, 6, 50], [1, 7, 7, 7]], [1, 0]),  # interquartile means 6 and 7, means 15.5 and 5.5
        ([[1, 1, 1, 1], [9, 9, 9, NAN], [9, 9, NAN, NAN]], [1, 0, 2]),  # a quarter may diverge
        ([[NAN, NAN], [NAN, 3], [NAN, 4]], [2, 1, 0]),
    ],
)
def test_the_ranking_of_settings(scores, order, evaluated):
    result = scored(scores, evaluated=evaluated)
    assert result.ranking() == order
    assert result.best_setting() == result.settings[order[0]]
    rows = result.summary().splitlines()[2:-1]
    assert [row.split()[0] for row in rows] == [f"{10.0**-i:g}" for i in order]


def test_without_scores_there_is_no_best_setting():
    with pytest.raises(
        ValueError, match="no run of ppo · CartPole-v1 · 2 seeds has a score: train"
    ):
        scored([[NAN, NAN], [NAN, NAN]]).best_setting()
    assert make().best_setting() == {}


def test_the_best_setting_is_written_as_a_file_that_train_accepts(tmp_path):
    sweep = {"setting": [{"learning_rate": 1e-3, "clip_eps": 0.1}, {"learning_rate": 2.5e-4}]}
    config = {
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "hidden_sizes": [8, 8],
        "num_seeds": 2,
        "seed": 3,
    }
    result = scored([[1, 2], [3, 4]], sweep=sweep)
    result = dataclasses.replace(
        result, config={**config, **sweep, "env_params": {"max_episode_steps": 9}}
    )
    assert result.best_setting(tmp_path / "new" / "best.toml") == {"learning_rate": 2.5e-4}
    with open(tmp_path / "new" / "best.toml", "rb") as file:
        record = tomllib.load(file)
    assert record == {
        "agent": "ppo", "env_id": "CartPole-v1", "learning_rate": 2.5e-4, "gamma": 0.9,
        "hidden_sizes": [8, 8], "num_seeds": 2, "seed": 3, "env_params": {"max_episode_steps": 9},
    }  # fmt: skip
    plan = plan_from_record(record)  # as in `rljax train FILE.toml`
    assert (plan.config.learning_rate, plan.num_seeds, plan.seed, plan.sweep) == (2.5e-4, 2, 3, {})


def test_the_table_of_many_settings_ends_with_their_number():
    lines = scored(np.arange(50.0)[:, None] + [[0, 1]]).summary().splitlines()
    assert len(lines) == 2 + 30 + 1
    assert lines[-1].endswith("best setting first; 20 more settings in `run.frame()`")


def test_the_summary_names_the_best_policy_and_early_stopping():
    result = with_best(make())
    returns = np.float32([[490.0] * 5, [500.0] * 5, [500.0] * 5, [510.0] * 5])
    steps = np.array([40_000, 120_000, 90_000, 40_000])
    best = result.best._replace(step=steps, returns=returns)
    stopped = np.array([45_000.0, NAN, 80_000.0, 60_000.0])
    result = dataclasses.replace(result, best=best, stopped=stopped)
    line = result.summary().splitlines()[2]
    assert line.startswith("  best 500 [4") and " at 40k to 120k steps  stopped at " in line
    assert line.endswith("  stopped at 45k to 80k steps, 3 of 4 seeds")
    never = dataclasses.replace(result, stopped=np.full(4, NAN)).summary().splitlines()[2]
    assert never.endswith("  stopped 0 of 4 seeds")
    best = best._replace(step=np.full(4, 120_000))
    line = dataclasses.replace(result, best=best, stopped=None).summary().splitlines()[2]
    assert line.endswith("] at 120k steps")


def test_a_frame_has_a_row_for_each_setting_seed_and_report():
    result = with_best(make(sweep=BOTH, num_seeds=3))
    frame = result.frame()
    assert frame.shape == (2 * 3 * 3 * POINTS, 3 + 2 + 3)
    assert list(frame.columns[:5]) == ["learning_rate", "clip_eps", "gamma", "seed", "step"]
    rows = frame[(frame.learning_rate == 3e-4) & (frame.gamma == 0.99) & (frame.seed == 2)]
    np.testing.assert_array_equal(rows.step, result.steps)
    np.testing.assert_array_equal(rows["charts/episodic_return"], result.returns[1, 1, 2])
    np.testing.assert_array_equal(
        rows["eval/episodic_return"], result.metrics["eval/episodic_return"][1, 1, 2]
    )
    assert rows.clip_eps.isna().all()
    last = frame[frame.step == result.steps[-1]].groupby(["learning_rate", "gamma"])
    np.testing.assert_allclose(
        last["charts/episodic_return"].mean().loc[1e-3, 0.9], result.returns[0, 0, :, -1].mean()
    )


def test_the_frame_of_several_results(tmp_path):
    several = frame([make(), make("dqn", "Acrobot-v1", num_seeds=2).save(tmp_path)])
    assert len(several) == 6 * POINTS
    counts = several.groupby(["name", "env_id"]).size()
    assert counts.to_dict() == {
        ("dqn", "Acrobot-v1"): 2 * POINTS,
        ("ppo", "CartPole-v1"): 4 * POINTS,
    }


def test_a_frame_without_pandas_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r'pandas.*: pip install "rljax-research\[frames\]"'):
        make().frame()
