"""TensorBoard: event files, and the table of hyperparameters, read by TensorBoard itself."""

import numpy as np
import pytest

from rljax.experiment.make_plan import make_plan
from rljax.experiment.writers import TensorBoard, check_size, open_writers
from rljax.experiment.writers_tensorboard import MAX_CURVES

pytest.importorskip("tensorboardX")
# two settings with two seeds each
ROWS = [
    (100, {"x": np.float32([1, 3, 10, np.nan]), "y": np.float32([np.nan] * 4)}),
    (200, {"x": np.float32([2, 4, 20, 40]), "y": np.float32([5, 6, 7, 8])}),
]


@pytest.fixture(scope="module")
def plan():
    return make_plan("q_learning", "rljax/Maze", num_seeds=2, seed=7, learning_rate=[0.1, 0.5])


def write(directory, plan, earlier=(), rows=ROWS):
    with open_writers(["tensorboard"], directory, earlier, plan) as (writer,):
        for row in rows:
            writer.write(*row)


def accumulator(path):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return module.EventAccumulator(str(path)).Reload()


def curves(directory):
    """Returns the curves of each directory below, `{directory: {metric: [(step, value)]}}`."""
    found = {}
    for path in {file.parent for file in directory.rglob("events.*")}:
        events = accumulator(path)
        found[path.relative_to(directory).as_posix()] = {
            tag: [(point.step, point.value) for point in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
    return found


def test_each_setting_has_a_directory_with_its_mean_and_its_seeds(tmp_path, plan):
    write(tmp_path, plan)
    found = curves(tmp_path / "tensorboard")
    names = {"mean", "seed_0", "seed_1"}
    assert found.keys() == {f"learning_rate={x}/{name}" for x in (0.1, 0.5) for name in names}
    assert found["learning_rate=0.1/mean"] == {"x": [(100, 2.0), (200, 3.0)], "y": [(200, 5.5)]}
    assert found["learning_rate=0.1/seed_1"] == {"x": [(100, 3.0), (200, 4.0)], "y": [(200, 6.0)]}
    assert found["learning_rate=0.5/mean"]["x"] == [(100, 10.0), (200, 30.0)]
    assert found["learning_rate=0.5/seed_1"]["x"] == [(200, 40.0)]  # NaN is a gap


@pytest.mark.parametrize(("seeds", "names"), [(1, {"seed_0"}), (2, {"mean", "seed_0", "seed_1"})])
def test_without_a_sweep_there_is_no_directory_of_a_setting(tmp_path, seeds, names):
    single = make_plan("q_learning", "rljax/Maze", num_seeds=seeds)
    write(tmp_path, single, rows=[(1, {"x": np.float32([4] * seeds)})])
    assert curves(tmp_path / "tensorboard") == {name: {"x": [(1, 4.0)]} for name in names}


def test_a_resumed_run_shows_each_row_once(tmp_path, plan):
    write(tmp_path, plan)  # was killed after the second row, with a checkpoint of the first
    for file in list(tmp_path.rglob("events.*")):  # the names hold the second
        file.rename(file.with_name(file.name.replace("tfevents.1", "tfevents.0")))
    changed = [(200, {"x": np.float32([-1] * 4)})]
    write(tmp_path, plan, earlier=ROWS[:1], rows=changed)
    assert len(list((tmp_path / "tensorboard" / "learning_rate=0.1" / "mean").iterdir())) == 2
    mean = curves(tmp_path / "tensorboard")["learning_rate=0.1/mean"]
    assert mean["x"] == [(100, 2.0), (200, -1.0)] and not mean.get("y")


def hparams_table(directory):
    """Returns the session groups that the HPARAMS tab shows."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(TBContext(data_provider=provider))
    metadata = context.hparams_metadata(RequestContext(), "")
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, aggregation_type=api_pb2.AGGREGATION_AVG,
        allowed_statuses=[api_pb2.STATUS_UNKNOWN],
    )  # fmt: skip
    experiment = context.experiment_from_metadata(RequestContext(), "", True, metadata, [])
    groups = (
        list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    )
    return experiment, groups


def test_hparams_groups_the_seeds_of_a_setting_with_their_final_metrics(tmp_path, plan):
    write(tmp_path / "a", plan)
    single = make_plan("q_learning", "rljax/Maze", gamma=0.5)
    write(tmp_path / "b", single, rows=[(1, {"x": np.float32([4])})])
    experiment, groups = hparams_table(tmp_path)
    infos = {info.name for info in experiment.hparam_infos}
    assert {"learning_rate", "gamma", "env_id", "seed", "jax", "rljax", "python"} <= infos
    rows = {}
    for group in groups:
        metrics = {value.name.tag: value.value for value in group.metric_values}
        rate, gamma = (group.hparams[x].number_value for x in ("learning_rate", "gamma"))
        rows[rate, gamma] = (len(group.sessions), metrics)
        assert group.hparams["env_id"].string_value == "rljax/Maze"
    assert rows == {
        (0.1, plan.config.gamma): (2, {"x": 3.0, "y": 5.5}),
        (0.5, plan.config.gamma): (2, {"x": 30.0, "y": 7.5}),
        (single.config.learning_rate, 0.5): (1, {"x": 4.0}),
    }


def test_the_text_tab_shows_the_config(tmp_path, plan):
    write(tmp_path, plan)
    path = tmp_path / "tensorboard" / "learning_rate=0.1" / "mean"
    (text,) = accumulator(path).Tensors("config/text_summary")
    assert b"learning_rate = [0.1, 0.5]" in text.tensor_proto.string_val[0]


def test_many_runs_have_only_means_and_too_many_settings_are_refused(tmp_path):
    many = make_plan("q_learning", "rljax/Maze", num_seeds=MAX_CURVES + 1)
    write(tmp_path, many, rows=[(1, {"x": np.arange(MAX_CURVES + 1, dtype=np.float32)})])
    assert curves(tmp_path / "tensorboard") == {"mean": {"x": [(1, MAX_CURVES / 2)]}}
    rates = np.linspace(0.1, 0.9, MAX_CURVES + 1)
    sweep = make_plan("q_learning", "rljax/Maze", learning_rate=rates)
    with pytest.raises(ValueError, match="directory for each setting, at most 256, but .* 257"):
        check_size([TensorBoard()], sweep)
