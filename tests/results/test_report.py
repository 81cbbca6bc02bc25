"""The figure of `rljax.report`: its numbers are those of rliable 1.2.0 (20,000 resamples)."""

import dataclasses

import numpy as np
import pytest
from result_helpers import EVALUATED, RETURN, make, with_best

from rljax.results.report import report

ROW, COLUMN = np.indices((8, 3))
SCORES = {"a": (ROW * 7 + COLUMN * 5) % 11 / 10, "b": (ROW * 3 + COLUMN * 4) % 13 / 12}
BOUNDS = {"low": -50, "high": {"E0": 50, "E1": 150, "E2": 250}}
SCALE = (100, 200, 300)  # high - low
STEPS = np.arange(1, 9) * 1000

# of SCORES by rliable: IQM, median, mean, optimality gap, and their intervals
VALUES = {
    "a": [0.525, 0.525, 0.52083333, 0.47916667], "b": [0.48611111, 0.46875, 0.48611111, 0.51388889]
}  # fmt: skip
LOW = {
    "a": [0.35, 0.375, 0.39583333, 0.35416667],
    "b": [0.31944444, 0.33333333, 0.36111111, 0.38888889],
}
HIGH = {
    "a": [0.69166667, 0.675, 0.64583333, 0.60416667],
    "b": [0.65277778, 0.63541667, 0.61111111, 0.63888889],
}
TAUS = (0.0, 0.25, 0.5, 0.75)
PROFILE = {
    "a": [0.91666667, 0.75, 0.45833333, 0.29166667],
    "b": [0.875, 0.66666667, 0.45833333, 0.20833333],
}
FRACTIONS = (0.25, 0.5, 1.0)  # of training; the normalized return is the fraction times the score
CURVE = {"a": [0.13125, 0.2625, 0.525], "b": [0.12152778, 0.24305556, 0.48611111]}
CURVE_LOW = {"a": [0.0875, 0.175, 0.35], "b": [0.07986111, 0.15972222, 0.31944444]}


def runs(scores=SCORES, steps=(STEPS, STEPS, STEPS), metric=RETURN):
    """Returns a run for each algorithm and environment, whose normalized scores are `scores`."""
    found = []
    for name, matrix in scores.items():
        for task, of_task in enumerate(matrix.T):
            final = of_task * SCALE[task] - 50
            curves = of_task[:, None] * (np.arange(1, 9) / 8) * SCALE[task] - 50
            run = make(name, f"E{task}", num_seeds=len(of_task))
            evaluation = {"returns": final[:, None], "lengths": final[:, None]}
            evaluation["unfinished"] = np.zeros(len(of_task), int)
            metrics = {RETURN: curves, metric: curves}
            found.append(dataclasses.replace(
                run, steps=steps[task], metrics=metrics, evaluation=evaluation
            ))  # fmt: skip
    return found


def test_intervals_are_those_of_rliable():
    axes = report(runs(), **BOUNDS).axes
    titles = [axis.get_title() for axis in axes]
    assert titles[:4] == ["IQM", "median", "mean", "optimality gap"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["a", "b"]
    for column, axis in enumerate(axes[:4]):
        for row, name in enumerate("ab"):
            (segment,) = axis.collections[row].get_segments()
            bar = axis.patches[row].get_bbox()
            np.testing.assert_allclose(segment[:, 0], VALUES[name][column], rtol=1e-6)
            np.testing.assert_allclose(
                [bar.x0, bar.x1], [LOW[name][column], HIGH[name][column]], atol=0.025
            )
            assert bar.y0 < row < bar.y1


def test_performance_profile_is_that_of_rliable():
    axis = report(runs(), **BOUNDS).axes[4]
    for line, name in zip(axis.lines, "ab", strict=True):
        x, y = line.get_data()
        above = [y[np.searchsorted(x, tau, side="right")] for tau in TAUS]
        np.testing.assert_allclose(above, PROFILE[name], rtol=1e-6)
    assert axis.get_xlabel() == "normalized evaluation return"


def test_sample_efficiency_is_that_of_rliable():
    axis = report(runs(), **BOUNDS).axes[5]
    for line, band, name in zip(axis.lines, axis.collections, "ab", strict=True):
        x, y = line.get_data()
        at = np.searchsorted(x, np.multiply(FRACTIONS, STEPS[-1]) - 1)
        np.testing.assert_allclose(y[at], CURVE[name], rtol=1e-6)
        below = band.get_paths()[0].vertices
        low = [below[below[:, 0] == x[i], 1].min() for i in at]
        np.testing.assert_allclose(low, CURVE_LOW[name], atol=0.02)
    assert axis.get_xlabel() == "environment steps"
    assert axis.get_ylabel() == "normalized episodic return"
    assert axis.get_xlim() == (0, 8000)


def test_environments_of_different_lengths_share_the_fraction_of_training():
    axis = report(runs(steps=(STEPS, 10 * STEPS, STEPS)), **BOUNDS).axes[5]
    assert axis.get_xlabel() == "fraction of training"
    x, y = axis.lines[0].get_data()
    np.testing.assert_allclose(y[np.searchsorted(x, np.subtract(FRACTIONS, 1e-9))], CURVE["a"])


def test_curves_end_with_the_shortest_run_and_start_when_all_have_a_return():
    short = runs()
    short[0] = dataclasses.replace(short[0], steps=STEPS // 2)
    short[1].metrics[RETURN][2, :1] = np.nan
    axis = report(short, **BOUNDS).axes[5]
    assert axis.lines[0].get_xdata()[-1] == 4000 and axis.lines[1].get_xdata()[-1] == 8000
    y = axis.lines[0].get_ydata()
    assert np.isnan(y[:9]).all() and np.isfinite(y[10:]).all()


def test_the_evaluation_during_training_is_drawn_if_all_have_it():
    evaluated = runs(metric=EVALUATED)
    axis = report(evaluated, **BOUNDS).axes[5]
    assert axis.get_ylabel() == "normalized evaluation return"
    mixed = report([*evaluated[:3], *runs()[3:]], **BOUNDS)
    assert mixed.axes[5].get_ylabel() == "normalized episodic return"
    note = mixed.get_supxlabel().replace("\n", " ")
    assert "return of training: 3 of 6 results have no evaluation during training" in note


def test_one_environment_needs_no_bounds():
    one = runs()[::3]
    figure = report(one)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["IQM", "mean"]
    assert figure.axes[2].get_xlabel() == "evaluation return"
    with pytest.raises(ValueError, match="`low` and `high` are missing: returns of E0, E1, E2"):
        report(runs())


def test_the_note_names_what_is_left_out():
    given = runs()[:5]  # b has no run on E2
    given[0].evaluation["returns"][1] = np.nan
    given[4] = dataclasses.replace(given[4], stopped=np.r_[4000.0, np.full(7, np.nan)])
    note = report(given, **BOUNDS).get_supxlabel().replace("\n", " ")
    assert note == (
        "E0, E1; 8 seeds each; 95 % stratified-bootstrap intervals (too narrow below 10 seeds); "
        "without E2, where an algorithm has no run; stopped early, with its last value from then "
        "on: 1 of 32 runs; without a score: 1 of 32 runs"
    )


@pytest.mark.parametrize("count", [1, 8])
def test_texts_of_the_figure_are_legible_and_inside(tmp_path, count):
    names = [f"ppo learning_rate={i}e-4, clip_eps=0.{i}, gae_lambda=0.95" for i in range(count)]
    path = tmp_path / "report.pdf" if count == 1 else None
    figure = report(runs({name: SCORES["a"] for name in names}), **BOUNDS, path=path)
    assert path is None or path.read_bytes().startswith(b"%PDF")
    assert figure.get_figwidth() == 7.0
    figure.draw_without_rendering()  # places the texts
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()
    for axis in figure.axes:
        labels = [*axis.get_xticklabels(), *axis.get_yticklabels(), axis.xaxis.label]
        assert min(text.get_fontsize() for text in labels) >= 7


def test_a_report_writes_only_figures(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        report([with_best(make())], path=tmp_path / "report.txt")
