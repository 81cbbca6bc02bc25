"""Results: their text, the contents of their figures, and their files."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from result_helpers import GRID, POINTS, SWEEP, make, with_returns

from rljax.results import figures, statistics, storage
from rljax.results.comparison import compare, plot_results
from rljax.results.files import load_result


def legend_of(figure):
    (legend,) = figure.legends
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]


def main_lines(axis):
    """Returns the lines of settings, without those of single seeds."""
    return [line for line in axis.lines if not line.get_label().startswith("_")]


def test_shapes_settings_and_scores_of_a_sweep():
    result = make(sweep=GRID, num_seeds=3)
    assert result.returns.shape == (2, 2, 3, POINTS)
    assert result.settings[1] == {"learning_rate": 1e-4, "gamma": 0.99}
    np.testing.assert_array_equal(result.scores(False)[1], result.returns[0, 1, :, -1])
    returns = result.evaluation["returns"].astype(np.float64)
    np.testing.assert_allclose(result.scores(True)[2], returns[1, 0].mean(-1))


def diverged_run(index):
    return {"run": index, "step": 70_000, "name": "losses/kl", "title": f"seed {index}"}


def test_scores_are_those_of_the_last_report_and_diverged_runs_are_named():
    returns = np.tile(np.arange(4.0)[:, None], POINTS) + 1
    returns[1, 7:] = np.nan
    result = with_returns(make(), returns, diverged=(diverged_run(1),))
    np.testing.assert_array_equal(result.scores(False), [[1.0, np.nan, 3.0, 4.0]])
    lines = result.summary().splitlines()
    assert "(3 of 4 runs)" in lines[1]
    assert lines[2] == "  diverged: seed 1 at step 70,000 (losses/kl)"
    figure = result.plot()
    assert (
        figure.get_supxlabel()
        .replace("\n", " ")
        .endswith("bootstrap interval (too narrow below 10 seeds); 1 of 4 runs diverged")
    )


def test_a_summary_names_five_diverged_runs_at_most():
    result = dataclasses.replace(make(num_seeds=9), diverged=tuple(map(diverged_run, range(9))))
    assert result.summary().splitlines()[-2:] == [
        "  diverged: seed 4 at step 70,000 (losses/kl)", "  diverged: 4 more runs",
    ]  # fmt: skip


def test_the_summary_of_one_setting():
    result = with_returns(make(), np.tile(np.float32([490, 496, 497, 500])[:, None], POINTS))
    unfinished = {**result.evaluation, "unfinished": np.array([0, 2, 0, 1])}
    lines = dataclasses.replace(result, evaluation=unfinished).summary().splitlines()
    interval = statistics.describe([490, 496, 497, 500])
    assert lines[0] == "ppo · CartPole-v1 · 4 seeds · 120k steps in 9.1 s, compiled in 4.1 s"
    assert lines[1].startswith(f"  return {interval}  evaluation 400")
    assert lines[1].endswith("(20 episodes, 3 unfinished)")
    assert interval.startswith("496.5 [49")
    assert repr(result) == f"<Result ppo · CartPole-v1 · 4 seeds · 120k steps · return {interval}>"


def test_the_summary_of_a_sweep_has_one_row_per_setting():
    result = make(sweep=SWEEP)
    _, head, *rows, note = result.summary().splitlines()
    assert head.split() == ["learning_rate", "return", "evaluation"]
    order = np.argsort([-statistics.iqm(scores) for scores in result.scores(True)])
    rates = [f"{SWEEP['learning_rate'][i]:g}" for i in order]
    assert [row.split()[0] for row in rows] == rates
    interval = statistics.describe(result.scores(True)[order[0]])
    assert rows[0].index(interval) == head.index("evaluation")  # a table
    assert note == "  interquartile mean over 4 seeds [95 % interval], best setting first"
    assert repr(result) == "<Result ppo · CartPole-v1 · 4 seeds · 120k steps · learning_rate x 3>"


def test_summaries_without_episodes_or_metrics():
    assert "return unknown" in with_returns(make(), np.full((4, POINTS), np.nan)).summary()
    bare = dataclasses.replace(make(num_seeds=1), metrics={}, evaluation=None)
    assert bare.summary() == "ppo · CartPole-v1 · 1 seed · 120k steps in 9.1 s, compiled in 4.1 s"
    assert repr(bare) == "<Result ppo · CartPole-v1 · 1 seed · 120k steps>"


@pytest.mark.parametrize("sweep", [{}, SWEEP, GRID])
@pytest.mark.parametrize("evaluated", [True, False])
def test_save_and_load_bit_for_bit(tmp_path, sweep, evaluated):
    result = make(sweep=sweep)
    result.returns[..., 1, 2] = np.nan
    result = dataclasses.replace(result, diverged=(diverged_run(1),))
    result = result if evaluated else dataclasses.replace(result, evaluation=None)
    assert result.save(tmp_path / "new" / "run") == tmp_path / "new" / "run"
    loaded = load_result(tmp_path / "new" / "run")
    for name in (
        "agent",
        "env_id",
        "config",
        "sweep",
        "num_seeds",
        "seed",
        "diverged",
        "compile_seconds",
        "seconds",
    ):
        assert getattr(loaded, name) == getattr(result, name)
    assert (loaded.state, loaded.params) == (None, None)
    kept = [("steps", result.steps, loaded.steps)]
    kept += [(name, result.metrics[name], loaded.metrics[name]) for name in result.metrics]
    assert set(loaded.metrics) == set(result.metrics)
    assert (loaded.evaluation is None) == (not evaluated)
    if result.evaluation is not None:
        assert set(loaded.evaluation) == set(result.evaluation)
        kept += [(k, result.evaluation[k], loaded.evaluation[k]) for k in result.evaluation]
    for name, before, after in kept:
        assert (before.dtype, before.shape) == (after.dtype, after.shape), name
        assert before.tobytes() == after.tobytes(), name
    assert loaded.summary() == result.summary()


def test_the_same_result_gives_the_same_bytes(tmp_path):
    make(sweep=SWEEP).save(tmp_path / "a")
    reordered = make(sweep=SWEEP)
    reordered = dataclasses.replace(reordered, metrics=dict(reversed(reordered.metrics.items())))
    reordered.save(tmp_path / "b")
    load_result(tmp_path / "a").save(tmp_path / "c")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["curves.npz", "result.json"]
    for name in names:
        for other in "bc":
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / other / name).read_bytes()


def test_numpy_numbers_in_a_config_are_saved_as_plain_numbers(tmp_path):
    config = {"gamma": np.float32(0.5), "rates": np.array([1.0, 2.0]), "sizes": (64, 64)}
    dataclasses.replace(make(), config=config).save(tmp_path)
    assert load_result(tmp_path).config == {"gamma": 0.5, "rates": [1.0, 2.0], "sizes": [64, 64]}


def test_objects_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="`metrics/charts/episodic_return` has dtype object"):
        with_returns(make(), np.full((4, POINTS), None)).save(tmp_path)
    with pytest.raises(ValueError, match="is not JSON"):
        make(loss=len).save(tmp_path)
    assert not list(tmp_path.iterdir())


def rewrite(path, change):
    record = storage.read_record(path)
    change(record)
    path.write_bytes(storage.with_digest(record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "result.json").unlink(), "there is no file .*result.json: give the dir"),
        (lambda d: (d / "curves.npz").unlink(), "there is no file .*curves.npz"),
        (lambda d: (d / "result.json").write_text('{"format": 1'), "result.json is damaged"),
        (lambda d: (d / "result.json").write_bytes(b"\xff\xfe\x00"), "result.json is damaged"),
        (lambda d: (d / "result.json").write_text("[1]"), "result.json is damaged"),
        (lambda d: rewrite(d / "result.json", lambda r: r.pop("sweep")), "no `sweep` in it"),
        (lambda d: rewrite(d / "result.json", lambda r: r.update(format=9)), "format 9, but this"),
        (lambda d: rewrite(d / "result.json", lambda r: r.update(num_seeds=5)), "5 seeds"),
        (lambda d: (d / "curves.npz").write_bytes(b""), "curves.npz is damaged or from another"),
        (lambda d: make(seed=9).save(d / "x") and (d / "x/curves.npz").replace(d / "curves.npz"),
         "from another run"),
    ],
)  # fmt: skip
def test_missing_and_damaged_files_are_named(tmp_path, damage, message):
    make().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_result(tmp_path)


@pytest.mark.parametrize("name", ["curves.npz", "result.json"])
def test_flipped_and_missing_bytes_are_detected(tmp_path, name):
    path = make().save(tmp_path) / name
    data = path.read_bytes()
    for position in range(0, len(data), len(data) // 40):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        for damaged in (flipped, data[:position], data[:position] + data[position + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged"):
                load_result(tmp_path)


def test_a_result_without_a_newer_value_takes_its_default(tmp_path):
    make().save(tmp_path)
    rewrite(tmp_path / "result.json", lambda record: record.pop("diverged"))
    assert load_result(tmp_path).diverged == ()


def test_the_digest_is_that_of_the_bytes_before_it(tmp_path):
    make().save(tmp_path)
    data = (tmp_path / "result.json").read_bytes()
    head = data[: data.index(b',\n  "digest"')]
    assert json.loads(data)["digest"] == hashlib.sha256(head).hexdigest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 5}, r"`charts/episodic_return` has shape \(4, 12\).*must be \(5, 12\)"),
        ({"steps": np.arange(3)}, "3 reports"),
        ({"steps": np.zeros((2, 2))}, "`steps` has shape"),
        ({"sweep": {"gamma": [0.9]}}, r"must be \(1, 4, 12\) .*sweep \['gamma'\]"),
        ({"evaluation": {"returns": np.zeros((3, 5))}}, "`evaluation/returns` has shape"),
    ],
)
def test_wrong_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(), **changes)


def test_an_unknown_metric_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no metric `losses/lk`.*charts/episodic_return, losses/kl"
    ):
        make().plot(metric="losses/lk")
    with pytest.raises(ValueError, match="was not evaluated"):
        dataclasses.replace(make(), evaluation=None).scores(evaluated=True)


@pytest.mark.parametrize("name", ["curve.png", "new/curve.PDF", "curve.svg"])
def test_plot_writes_a_figure(tmp_path, name):
    make().plot(tmp_path / name)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[name[-3:].lower()]
    assert (tmp_path / name).read_bytes().startswith(start)


def test_plot_refuses_other_file_types(tmp_path):
    with pytest.raises(ValueError, match=r"`path` is '.*curve.bmp', but it must end in .png"):
        make().plot(tmp_path / "curve.bmp")
    assert not list(tmp_path.iterdir())


def test_the_plot_of_one_setting():
    result = make()
    figure = result.plot()
    (axis,) = figure.axes
    assert isinstance(figure, Figure)
    assert axis.get_title(loc="left") == "ppo · CartPole-v1 · 4 seeds"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("environment steps", "episodic return")
    assert figure.get_supxlabel() == (
        "interquartile mean over 4 seeds, 95 % bootstrap interval (too narrow below 10 seeds)"
    )
    assert (figure.legends, axis.get_legend()) == ([], None)
    assert [axis.xaxis.get_major_formatter()(x, 0) for x in (0, 5e4, 1.5e6)] == ["0", "50k", "1.5M"]
    assert axis.get_xlim() == (0, 120_000)
    (line,) = main_lines(axis)
    middle, low, high = statistics.iqm_curve(result.returns)
    np.testing.assert_array_equal(line.get_xdata(), result.steps)
    np.testing.assert_allclose(line.get_ydata(), middle)
    (band,) = axis.collections
    edges = band.get_paths()[0].get_extents()
    assert (edges.ymin, edges.ymax) == pytest.approx((low.min(), high.max()))
    assert len(axis.lines) == 1 + 4  # a few seeds are also drawn one by one
    assert len(make(num_seeds=11).plot().axes[0].lines) == 1


def test_the_plot_of_another_metric():
    (axis,) = make().plot(metric="losses/kl").axes
    assert axis.get_ylabel() == "kl"


def test_the_plot_of_one_seed_has_no_band():
    figure = make(num_seeds=1).plot()
    assert not figure.axes[0].collections
    assert figure.get_supxlabel() == "one seed"


def test_the_plot_of_sweeps():
    figure = make(sweep=SWEEP).plot()
    lines = main_lines(figure.axes[0])
    assert legend_of(figure) == ("learning_rate", ["0.0001", "0.0003", "0.001"])
    assert len(lines) == len({line.get_color() for line in lines}) == 3
    assert len(figure.axes[0].collections) == len(figure.axes[0].lines) == 3  # no single seeds
    title, labels = legend_of(make(sweep=GRID).plot())
    assert not title
    assert labels[1] == "learning_rate=0.0001, gamma=0.99"


def test_many_lines_differ_in_color_or_line_style():
    assert len(set(figures.styles(25, [5, 5]))) == len(set(figures.styles(25, []))) == 25
    assert len(set(figures.styles(12, [3, 4]))) == 12


def test_a_grid_of_two_fields_has_ordered_colors_and_line_styles():
    grid = {"learning_rate": [1e-4, 3e-4, 1e-3], "gamma": [0.9, 0.99]}
    apart = 50.0 * np.arange(6)[:, None, None]  # equal lines would be drawn with gaps
    result = make(sweep=grid)
    result = with_returns(result, result.returns + apart.reshape(3, 2, 1, 1))
    lines = main_lines(result.plot().axes[0])
    by_rate = [{line.get_color() for line in lines[2 * i : 2 * i + 2]} for i in range(3)]
    assert [len(colors) for colors in by_rate] == [1, 1, 1]
    brightness = [sum(colors.pop()[:3]) for colors in by_rate]
    assert brightness == sorted(brightness) and len(set(brightness)) == 3
    assert {line.get_linestyle() for line in lines[::2]} == {"-"}
    assert {line.get_linestyle() for line in lines[1::2]} == {"--"}
    transposed = main_lines(make(sweep=dict(reversed(grid.items()))).plot().axes[0])
    assert transposed[0].get_color() == transposed[3].get_color() == lines[0].get_color()


def test_a_line_on_another_has_gaps():
    returns = np.tile(make(num_seeds=2).returns, (3, 1, 1))
    returns[2] += 100
    result = with_returns(make(sweep=SWEEP, num_seeds=2), returns)
    styles = [line.is_dashed() for line in main_lines(result.plot().axes[0])]
    assert styles == [False, True, False]


def test_plot_into_given_axes(tmp_path):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert make(sweep=SWEEP).plot(tmp_path / "both.png", ax=right) is figure
    assert (len(left.lines), len(right.lines)) == (0, 3)
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "0.0001",
        "0.0003",
        "0.001",
    ]
    assert (tmp_path / "both.png").is_file()


def test_missing_points_are_interpolated():
    returns = make().returns.copy()
    returns[:, [0, 4, 5]] = np.nan
    returns[0, 7] = np.nan
    result = with_returns(make(), returns)
    (line, *_) = result.plot().axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), np.delete(result.steps, [0, 4, 5]))
    assert np.isfinite(line.get_ydata()).all()


def test_curves_with_one_point_or_no_points(tmp_path):
    returns = np.full((4, POINTS), np.nan)
    with_returns(make(), returns).plot(tmp_path / "empty.png")
    returns[:, 3] = 1.0
    figure = with_returns(make(), returns).plot(tmp_path / "point.png")
    assert main_lines(figure.axes[0])[0].get_marker() == "o"


def test_large_values_have_short_ticks():
    (axis,) = make(level=-2e5).plot().axes
    assert axis.yaxis.get_major_formatter()(-150_000, 0) == "\N{MINUS SIGN}150k"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1k"), (999_999, "1M"), (1_250_000, "1.25M"), (2e9, "2B"),
        (497.2, "497.2"), (-21.04, "-21.04"), (0.01234, "0.01234"), (999.96, "1k"),
        (430_400, "430.4k"), (999_600, "999.6k"), (1_200_000, "1.2M"), (-1234, "-1.234k"),
        (2.5e9, "2.5B"), (1e12, "1T"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"),
    ],
)  # fmt: skip
def test_human_numbers(number, text):
    assert figures.human(number) == text


def test_plot_results_has_one_panel_per_environment_and_one_legend(tmp_path):
    runs = [
        make(), make("dqn", double=False), make("dqn", double=True),
        make(env_id="Acrobot-v1", gamma=0.9), make("dqn", "Acrobot-v1", double=True, num_seeds=2),
    ]  # fmt: skip
    folders = [run.save(tmp_path / str(i)) for i, run in enumerate(runs)]
    figure = plot_results([str(folders[0]), *folders[1:]], tmp_path / "all.png")
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["CartPole-v1 · 4 seeds", "Acrobot-v1 · 2 to 4 seeds"]
    assert legend_of(figure)[1] == ["ppo", "dqn", "double=False", "double=True", "dqn"]
    colors = [main_lines(axis)[0].get_color() for axis in figure.axes]
    assert colors[0] == colors[1]  # ppo has the same style in both panels
    assert (tmp_path / "all.png").is_file()


def test_plot_results_pools_seeds():
    first, second = make(seed=0), make(seed=1, num_seeds=3)
    figure = plot_results([first, second, make(seed=0), make(seed=1, num_seeds=2)])
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "ppo · CartPole-v1 · 7 seeds"
    (line,) = main_lines(axis)
    middle, *_ = statistics.iqm_curve(np.concatenate([first.returns, second.returns]))
    np.testing.assert_allclose(line.get_ydata(), middle)


def test_plot_results_expands_sweeps_and_numbers_equal_labels():
    longer = make()
    longer = dataclasses.replace(longer, steps=longer.steps * 2)
    figure = plot_results([make(sweep=SWEEP), make(learning_rate=0.1), longer])
    expected = [f"learning_rate={x:g}" for x in (1e-4, 3e-4, 1e-3, 0.1)]
    assert legend_of(figure)[1] == [*expected, "learning_rate=0.001 (2)"]


def own_optimizer(level, seed=0, **config):
    return make(seed=seed, level=level, pieces=["optimizer"], **config)


def test_runs_that_a_configuration_does_not_tell_apart_need_names(tmp_path):
    slow, fast = own_optimizer(100.0), own_optimizer(400.0)
    with pytest.raises(ValueError, match="same configuration and seed, but different curves: give"):
        plot_results([slow, fast])
    with pytest.raises(ValueError, match="with their own `optimizer`, which the .*: give each a n"):
        plot_results([slow, own_optimizer(400.0, seed=1)])
    figure = plot_results({"sgd": slow, "adam": fast.save(tmp_path)})
    assert legend_of(figure)[1] == ["sgd", "adam"]
    named = [own_optimizer(x, name=name) for x, name in ((100.0, "sgd"), (400.0, "adam"))]
    assert legend_of(plot_results(named))[1] == ["sgd", "adam"]
    assert repr(named[0]).startswith("<Result sgd · CartPole-v1")
    (pair,) = compare(*named).improvements
    assert (pair.x, pair.y, pair.probability) == ("sgd", "adam", 0.0)
    pooled = plot_results([named[0], own_optimizer(100.0, seed=1, name="sgd")])
    assert pooled.axes[0].get_title(loc="left") == "sgd · CartPole-v1 · 8 seeds"


def test_plot_results_needs_results():
    with pytest.raises(ValueError, match="`results` is empty"):
        plot_results([])


def test_matplotlib_is_imported_when_a_figure_is_drawn():
    code = "import sys, rljax.results; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
