"""Figures of evaluations during training, of early stopping and of large sweeps; notebooks."""

import base64
import dataclasses
import re

import numpy as np
import pytest
from result_helpers import EVALUATED, GRID, POINTS, RETURN, SWEEP, make, with_best, with_returns
from scipy import stats

from rljax.results import canvas, figures
from rljax.results.comparison import plot_results

SETTINGS = {"setting": [{"gamma": float(x), "clip_eps": 0.1} for x in np.linspace(0.5, 0.9, 20)]}


def main_lines(axis):
    return [line for line in axis.lines if not line.get_label().startswith("_")]


def test_the_evaluation_during_training_is_drawn_where_there_is_one():
    result = with_best(make())
    (axis,) = result.plot().axes
    assert axis.get_ylabel() == "evaluation return"
    (line,) = main_lines(axis)
    np.testing.assert_array_equal(line.get_xdata(), result.steps[1::2])
    expected = stats.trim_mean(result.metrics[EVALUATED][:, 1::2], 0.25, axis=0)
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert axis.get_xlim()[1] == result.steps[-1]
    (axis,) = result.plot(metric=RETURN).axes
    assert axis.get_ylabel() == "episodic return"


def test_reports_without_an_evaluation_are_not_divergence():
    result = with_best(make())
    evaluated = result.metrics[EVALUATED][..., ::-1]  # the last report has none
    figure = dataclasses.replace(
        result, metrics={RETURN: result.returns, EVALUATED: evaluated}
    ).plot()
    assert "diverged" not in figure.get_supxlabel()


def test_evaluation_and_training_are_not_mixed_in_silence():
    evaluated = [with_best(make()), with_best(make("dqn"))]
    assert plot_results(evaluated).axes[0].get_ylabel() == "evaluation return"
    figure = plot_results([evaluated[0], make("dqn")])
    assert figure.axes[0].get_ylabel() == "episodic return"
    note = figure.get_supxlabel().replace("\n", " ")
    assert note.endswith("return of training: 1 of 2 results have no evaluation during training")
    # runs that differ only in their evaluations are one setting
    seeds = plot_results([with_best(make(eval_interval=1000)), make(seed=1)])
    assert len(main_lines(seeds.axes[0])) == 1


def stopped_run(stopped):
    """Returns a run whose returns keep their value after the steps at which it stopped."""
    result = make()
    returns = result.returns.copy()
    for seed, at in enumerate(stopped):
        if not np.isnan(at):
            last = np.searchsorted(result.steps, at)
            returns[seed, last:] = returns[seed, last]
    return with_returns(result, returns, stopped=np.array(stopped))


def test_a_stopped_run_is_marked_and_dotted():
    figure = stopped_run([30_000.0, 60_000.0, 55_000.0, 40_000.0]).plot()
    solid, dotted, mark = figure.axes[0].lines[:3]
    np.testing.assert_array_equal(solid.get_xdata(), np.arange(1, 7) * 10_000)
    np.testing.assert_array_equal(dotted.get_xdata(), np.arange(6, POINTS + 1) * 10_000)
    assert len(set(dotted.get_ydata())) == 1
    assert (list(mark.get_xdata()), mark.get_marker()) == ([60_000], "D")
    assert mark.get_ydata()[0] == solid.get_ydata()[-1]
    note = figure.get_supxlabel().replace("\n", " ")
    assert note.endswith("; 4 of 4 runs stopped early and keep their last value")


def test_stopped_runs_do_not_count_where_the_others_are_not_evaluated():
    values = np.full((4, POINTS), np.nan)
    values[:, 1::2] = np.arange(4)[:, None]  # an evaluation in every other report
    values[0, 3:] = 100.0  # stopped: a value in every report
    values[3, 7:] = np.nan  # diverged
    stopped = np.array([40_000.0, np.nan, np.nan, np.nan])
    diverged = ({"run": 3, "step": 70_000, "name": "losses/kl", "title": "seed 3"},)
    result = dataclasses.replace(make(), stopped=stopped, diverged=diverged)
    result.metrics[EVALUATED] = values
    line = main_lines(result.plot().axes[0])[0]
    np.testing.assert_array_equal(line.get_xdata(), result.steps[1::2])
    np.testing.assert_allclose(line.get_ydata()[0], 1.5)  # of 0, 1, 2, 3
    np.testing.assert_allclose(line.get_ydata()[1:3], 2.5)  # of 100, 1, 2, 3
    np.testing.assert_allclose(line.get_ydata()[3:], 103 / 3)  # of 100, 1, 2
    # the other runs stop as well: their last values are held in all reports
    values[1:3, 7:] = [[1.0], [2.0]]
    stopped[1:3] = 80_000.0
    line = main_lines(dataclasses.replace(result, stopped=stopped).plot().axes[0])[0]
    np.testing.assert_array_equal(line.get_xdata(), np.r_[2, 4, 6, 8:13] * 10_000)
    pooled = plot_results([result, with_best(make(seed=1))])
    np.testing.assert_array_equal(main_lines(pooled.axes[0])[0].get_xdata(), result.steps[1::2])


def test_a_curve_is_solid_while_a_run_trains():
    figure = stopped_run([30_000.0, np.nan, 50_000.0, np.nan]).plot()
    assert len(main_lines(figure.axes[0])[0].get_xdata()) == POINTS
    assert len(figure.axes[0].lines) == 1 + 4
    assert "2 of 4 runs stopped early" in figure.get_supxlabel().replace("\n", " ")
    pooled = plot_results([stopped_run([30_000.0] * 4), make(seed=1)])
    assert "4 of 8 runs stopped early" in pooled.get_supxlabel().replace("\n", " ")


def test_the_best_of_many_settings_are_in_color():
    result = make(sweep=SETTINGS, level=400.0)
    returns = result.evaluation["returns"] + 10.0 * np.arange(20)[:, None, None]  # the last is best
    result = dataclasses.replace(result, evaluation={**result.evaluation, "returns": returns})
    figure = result.plot()
    lines = figure.axes[0].lines
    grey = [line for line in lines if line.get_color() == figures.LIGHT_GREY]
    assert (len(lines), len(grey), len(figure.axes[0].collections)) == (20, 14, 6)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "gamma=0.9, clip_eps=0.1" and labels[-1] == "14 other settings"
    assert len(labels) == 7
    assert figure.get_supxlabel().endswith("the 6 settings with the highest evaluation return")
    expected = stats.trim_mean(result.returns[0], 0.25, axis=0)
    assert any(np.allclose(line.get_ydata(), expected, rtol=1e-6) for line in grey)


def test_many_settings_of_several_runs_are_muted_as_well():
    figure = plot_results([make(sweep=SETTINGS, level=400.0), make("dqn", level=900.0)])
    lines = figure.axes[0].lines
    grey = [line for line in lines if line.get_color() == figures.LIGHT_GREY]
    assert (len(lines), len(grey)) == (21, 15)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "dqn" and labels[-1] == "15 other settings"


def test_a_heat_map_has_ordered_fields_and_printed_values():
    sweep = {"learning_rate": [1e-3, 1e-4, 1e-2], "gamma": [0.99, 0.9]}
    result = make(sweep=sweep, num_seeds=8)
    returns = result.evaluation["returns"] + 100.0 * np.arange(6).reshape(3, 2, 1, 1)
    returns[2, 0, 3] = np.nan
    returns[1, 1] = np.nan
    result = dataclasses.replace(result, evaluation={**result.evaluation, "returns": returns})
    figure = result.heatmap()
    axis, bar = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("gamma", "learning_rate")
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.9", "0.99"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["0.0001", "0.001", "0.01"]
    assert bar.get_ylabel() == "evaluation return, interquartile mean"
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    value = stats.trim_mean(returns[0, 0].astype(np.float64).mean(-1), 0.25)
    assert texts[1, 1] == f"{value:.4g}"  # gamma 0.99, learning rate 0.001
    assert texts[0, 0] == "no run"  # gamma 0.9, learning rate 0.0001
    assert texts[1, 2].endswith("\n7 of 8 runs")
    (image,) = axis.get_images()
    np.testing.assert_allclose(image.get_array()[1, 1], value)


def test_a_heat_map_needs_two_fields(tmp_path):
    make(sweep=GRID).heatmap(tmp_path / "heat.svg")
    assert (tmp_path / "heat.svg").is_file()
    for sweep, name in ((SWEEP, "learning_rate"), ({}, "nothing"), (SETTINGS, "setting")):
        with pytest.raises(ValueError, match=f"two fields, but ppo .* sweeps {name}: draw it with"):
            make(sweep=sweep).heatmap()
    with pytest.raises(ValueError, match="must end in"):
        make(sweep=GRID).heatmap(tmp_path / "heat.bmp")


def test_the_page_of_a_notebook_has_a_table_and_a_curve():
    page = make(sweep=SWEEP, name="<b>ppo & co</b>")._repr_html_()
    assert "<b>ppo" not in page and "&lt;b&gt;ppo &amp; co&lt;/b&gt; · CartPole-v1" in page
    heads = re.findall("<th[^>]*>([^<]*)</th>", page)
    assert heads == ["learning_rate", "return", "evaluation"]
    assert len(re.findall("<tr>", page)) == 4
    data = re.search('src="data:image/png;base64,([^"]*)"', page)[1]
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_the_page_of_a_result_without_returns_has_no_curve():
    page = dataclasses.replace(make(), metrics={}, evaluation=None)._repr_html_()
    assert "<img" not in page and "ppo · CartPole-v1 · 4 seeds" in page


def test_notebooks_show_figures_without_pyplot():
    assert make().plot()._repr_png_().startswith(b"\x89PNG")
    assert isinstance(make(sweep=GRID).heatmap(), canvas.Canvas)
