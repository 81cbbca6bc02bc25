"""Writers to W&B and Trackio: which runs they open, and the rows and configs that are in them."""

import json
import platform
import struct
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import rljax
from rljax.experiment.make_plan import make_plan
from rljax.experiment.writers import Trackio, WandB, check_size, check_writers, open_writers

VARIABLES = ("PROJECT", "ENTITY", "MODE", "NAME", "RUN_GROUP")
LABELS = ["learning_rate=0.1", "learning_rate=0.5"]
# two settings with two seeds each: a, b of the first setting, then those of the second
ROWS = [
    (100, {"x": np.float32([1, 3, 10, np.nan]), "y": np.float32([np.nan] * 4)}),
    (200, {"x": np.float32([2, 4, 20, 40]), "y": np.float32([5, 6, 7, 8])}),
]


@pytest.fixture(scope="module")
def plan():
    return make_plan(
        "q_learning", "rljax/Maze", num_seeds=2, seed=7, learning_rate=[0.1, 0.5], gamma=0.9
    )


class FakeRun:
    """Records the rows of one run; those on the server are before `step`."""

    def __init__(self, step=0, **init):
        self.init, self.rows, self.step, self.exit_code = init, {}, step, None
        self.offline = init.get("mode") == "offline"
        self.dir, self.id = f"{init.get('dir')}/wandb/offline-run-1-{init.get('id')}/files", "1"
        self.project = init["project"]
        self.url, self.project_url = "https://w/p/runs/1", "https://w/p"

    def log(self, row, step):
        assert step == row["global_step"] and step not in self.rows
        self.rows[step] = {name: x for name, x in row.items() if name != "global_step"}

    def finish(self, exit_code=0):
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch):
    """The runs that a stub of the package wandb has opened."""
    opened = []

    def init(
        project=None, entity=None, name=None, group=None, job_type=None, tags=None, notes=None,
        mode=None, config=None, id=None, dir=None, resume=None, reinit=None, settings=None,
    ):  # fmt: skip
        given = {key: value for key, value in locals().items() if key != "opened"}
        opened.append(FakeRun(module.step, **given))
        return opened[-1]

    module = SimpleNamespace(init=init, Settings=lambda **x: x, step=0)
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    return opened


def write(writer, directory, plan, earlier=(), rows=ROWS):
    with open_writers(check_writers(writer, directory), directory, earlier, plan) as opened:
        for row in rows:
            opened[0].write(*row)


def test_one_wandb_run_for_each_setting_with_its_hyperparameters(runs, plan, tmp_path):
    write("wandb", tmp_path / "maze-1", plan)
    assert [run.init["name"] for run in runs] == [f"maze-1 {label}" for label in LABELS]
    assert [run.init["job_type"] for run in runs] == LABELS
    assert {run.init["group"] for run in runs} == {"maze-1"}
    assert {run.init["project"] for run in runs} == {"rljax"}
    assert [run.init["config"]["learning_rate"] for run in runs] == [0.1, 0.5]
    expected = {
        "agent": "q_learning", "env_id": "rljax/Maze", "gamma": 0.9, "seed": 7, "num_seeds": 2,
        "rljax": rljax.__version__, "jax": jax.__version__, "python": platform.python_version(),
        "run_dir": str(tmp_path / "maze-1"),
    }  # fmt: skip
    assert expected.items() <= runs[0].init["config"].items()
    assert runs[0].rows == {
        100: {"x": 2.0, "x/seed_0": 1.0, "x/seed_1": 3.0},
        200: {
            "x": 3.0, "x/seed_0": 2.0, "x/seed_1": 4.0,
            "y": 5.5, "y/seed_0": 5.0, "y/seed_1": 6.0,
        },
    }  # fmt: skip
    assert runs[1].rows[100] == {"x": 10.0, "x/seed_0": 10.0}  # the other seed has no value
    assert [run.exit_code for run in runs] == [0, 0]


def test_one_wandb_run_for_each_seed_in_the_group_of_the_experiment(runs, plan, tmp_path):
    write(WandB(runs="each", tags=["a"], notes="n"), tmp_path / "maze-1", plan)
    seeds = [f"{label} seed_{i}" for label in LABELS for i in range(2)]
    assert [run.init["name"] for run in runs] == [f"maze-1 {seed}" for seed in seeds]
    assert [run.init["job_type"] for run in runs] == [LABELS[0]] * 2 + [LABELS[1]] * 2
    assert {(run.init["group"], *run.init["tags"]) for run in runs} == {("maze-1", "a")}
    assert [run.init["config"]["seed_index"] for run in runs] == [0, 1, 0, 1]
    assert [run.init["config"]["learning_rate"] for run in runs] == [0.1, 0.1, 0.5, 0.5]
    assert [run.rows[200] for run in runs] == [
        {"x": 2.0, "y": 5.0}, {"x": 4.0, "y": 6.0}, {"x": 20.0, "y": 7.0}, {"x": 40.0, "y": 8.0},
    ]  # fmt: skip
    assert len({run.init["id"] for run in runs}) == 4


def test_one_wandb_run_for_the_call_keeps_settings_apart(runs, plan, tmp_path):
    write(WandB(runs="one", config={"machine": "a"}), tmp_path / "maze-1", plan)
    (run,) = runs
    assert run.init["name"] == "maze-1" and run.init["group"] is None
    assert run.init["config"]["learning_rate"] == [0.1, 0.5]
    assert run.init["config"]["machine"] == "a"
    first, second = (f"x/{label}" for label in LABELS)
    assert run.rows[100] == {
        first: 2.0, f"{first}/seed_0": 1.0, f"{first}/seed_1": 3.0, second: 10.0,
        f"{second}/seed_0": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["setting", "each", "one"])
def test_a_single_run_has_plain_names(runs, tmp_path, way):
    single = make_plan("q_learning", "rljax/Maze", name="mine")
    write(WandB(runs=way), None, single, rows=[(1, {"x": np.float32([4.0])})])
    assert runs[0].rows == {1: {"x": 4.0}}
    assert runs[0].init["dir"] is None and runs[0].init["job_type"] is None
    assert runs[0].init["name"].startswith("mine")


def test_wandb_variables_come_before_defaults_and_arguments_before_both(
    runs, plan, tmp_path, monkeypatch
):
    for name in VARIABLES:
        monkeypatch.setenv(f"WANDB_{name}", f"the {name}")
    write(WandB(runs="one"), tmp_path, plan)
    init = runs[0].init
    found = [init[x] for x in ("project", "name", "group", "mode")]
    assert found == ["the PROJECT", "the NAME", "the RUN_GROUP", "the MODE"]
    assert init["entity"] is None  # read by wandb itself
    write(WandB(project="p", name="n", group="g", mode="disabled", entity="e"), tmp_path, plan)
    found = [runs[1].init[x] for x in ("project", "group", "mode", "entity")]
    assert found == ["p", "g", "disabled", "e"] and runs[1].init["name"] == f"n {LABELS[0]}"


def test_offline_says_how_to_upload(runs, plan, tmp_path, capsys):
    write(WandB(runs="one"), tmp_path, plan)
    assert runs[0].init["mode"] == "offline"
    path = f"{tmp_path}/wandb/offline-run-1-{runs[0].init['id']}"
    assert capsys.readouterr().err == f"W&B is offline. Upload with: wandb sync {path}\n"
    write("wandb", tmp_path, plan)
    assert f"wandb sync {tmp_path}/wandb/offline-run-*\n" in capsys.readouterr().err
    write(WandB(mode="online"), tmp_path, plan)
    assert capsys.readouterr().err == "W&B: https://w/p\n"
    write(WandB(mode="online", runs="one"), tmp_path, plan)
    assert capsys.readouterr().err == "W&B: https://w/p/runs/1\n"


def test_a_resumed_online_run_logs_only_what_the_server_lacks(runs, plan, tmp_path):
    online = WandB(runs="one", mode="online")
    write(online, tmp_path, plan, rows=ROWS[:1])
    sys.modules["wandb"].step = 101  # the server has the first row
    write(online, tmp_path, plan, earlier=ROWS[:1], rows=ROWS[1:])
    assert runs[0].init["id"] == runs[1].init["id"] and runs[1].init["resume"] == "allow"
    assert list(runs[1].rows) == [200]
    sys.modules["wandb"].step = 0  # it has nothing: the first process was offline
    write(online, tmp_path, plan, earlier=ROWS[:1], rows=ROWS[1:])
    assert list(runs[2].rows) == [100, 200]
    write(WandB(runs="each"), tmp_path, plan)  # other curves are not added to the same runs
    assert runs[0].init["id"] not in {run.init["id"] for run in runs[3:]}


def test_a_failed_run_is_marked(runs, plan, tmp_path):
    with pytest.raises(KeyboardInterrupt), open_writers(["wandb"], tmp_path, [], plan):
        raise KeyboardInterrupt
    assert {run.exit_code for run in runs} == {1}


def test_wrong_options_are_refused_before_anything_is_compiled(runs, plan):
    with pytest.raises(ValueError, match="`runs` is 'all', but it must be one of setting, each, o"):
        WandB(runs="all")
    for option, message in (
        ("projekt", "WandB has no option `projekt`: did you mean `project`"),
        ("id", "`id` is chosen by WandB: leave it out"),
    ):
        with pytest.raises(ValueError, match=message):
            rljax.train("q_learning", "rljax/Maze", writers=WandB(**{option: "x"}))
    rates = np.linspace(0.1, 0.9, 300)
    many = make_plan("q_learning", "rljax/Maze", learning_rate=rates)
    with pytest.raises(ValueError, match=r"would open 300 runs, but it opens at most 256: set ru"):
        rljax.train("q_learning", "rljax/Maze", learning_rate=rates, writers="wandb")
    check_size([WandB(runs="one"), "jsonl"], many)
    assert not runs


def test_a_list_of_settings_is_labelled_by_its_fields(runs, plan, tmp_path):
    settings = [{"learning_rate": 0.1, "gamma": 0.8}, {"learning_rate": 0.5, "gamma": 0.9}]
    write("wandb", tmp_path, plan._replace(sweep={"setting": settings}))
    assert [run.init["job_type"] for run in runs] == [
        "learning_rate=0.1,gamma=0.8", "learning_rate=0.5,gamma=0.9",
    ]  # fmt: skip
    assert [run.init["config"]["gamma"] for run in runs] == [0.8, 0.9]
    assert all("setting" not in run.init["config"] for run in runs)


def test_settings_in_several_programs_are_one_group(runs, plan, tmp_path):
    for number, size in enumerate((8, 16)):
        setting = plan._replace(sweep={"setting": [{"hidden_sizes": [size, size]}]})
        write("wandb", tmp_path / "run" / f"program-{number}", setting)
    names = ["hidden_sizes=[8,8]", "hidden_sizes=[16,16]"]
    assert [run.init["name"] for run in runs] == [f"run {name}" for name in names]
    assert [run.init["job_type"] for run in runs] == names
    assert {run.init["group"] for run in runs} == {"run"}


def offline_records(path):
    """Yields the records of a .wandb file: the log format of LevelDB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # the end of a block, too short for a header
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(record)
            record = b""


def offline_rows(path):
    """Returns the W&B run, its config and its rows, once wandb's own process has written them."""
    (file,) = path.glob("*.wandb")
    for _ in range(200):
        records = list(offline_records(file))
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.05)
    (run,) = (record.run for record in records if record.HasField("run"))
    config = {x.key: json.loads(x.value_json) for x in run.config.update}
    items = [record.history.item for record in records if record.HasField("history")]
    rows = [
        {"/".join(x.nested_key) or x.key: json.loads(x.value_json) for x in row} for row in items
    ]
    return run, config, rows


def test_offline_files_of_a_resumed_run_hold_each_row_once(plan, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    writer = WandB(project="p", runs="one", tags=["a"], config={"machine": "b"})
    write(writer, tmp_path, plan)  # was killed after the second row, with a checkpoint of the first
    write(writer, tmp_path, plan, earlier=ROWS[:1], rows=ROWS[1:])
    (path,) = (tmp_path / "wandb").glob("offline-run-*")
    (replaced,) = (tmp_path / "wandb" / "replaced").iterdir()
    run, config, rows = offline_rows(path)
    assert run.run_id == offline_rows(replaced)[0].run_id
    assert (run.project, run.display_name, list(run.tags)) == ("p", tmp_path.name, ["a"])
    assert config["gamma"] == 0.9 and config["seed"] == 7 and config["machine"] == "b"
    assert [row["global_step"] for row in rows] == [100, 200]
    assert [row["_step"] for row in rows] == [100, 200]
    assert rows[0][f"x/{LABELS[0]}"] == 2.0 and rows[1][f"y/{LABELS[1]}/seed_1"] == 8.0


class FakeTrackio(SimpleNamespace):
    """A stub of trackio: like it, `init` finishes the last run of its context."""

    def __init__(self):
        import contextvars

        self.current, self.all = contextvars.ContextVar("current", default=None), []

        def init(project, name=None, group=None, config=None, resume="never", embed=True):
            if self.current.get():
                self.current.get().finish()
            run = FakeRun(project=project, name=name, group=group, config=config)
            run.id, run.delete = f"id{len(self.all)}", lambda: self.all.remove(run)
            self.all.append(run)
            self.current.set(run)
            print("* Created new run")
            return run

        self.init = init
        self.Api = lambda: SimpleNamespace(
            runs=lambda project: [run for run in self.all if run.project == project]
        )


def test_trackio_runs_are_open_together_and_replaced_by_a_resumed_run(
    plan, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "trackio", module := FakeTrackio())
    other = module.init("p", "another run of the user")
    capsys.readouterr()
    write(Trackio(project="p"), tmp_path, plan)
    assert [run.init["name"] for run in module.all[1:]] == [f"{tmp_path.name} {x}" for x in LABELS]
    assert [list(run.rows) for run in module.all[1:]] == [[100, 200]] * 2
    assert module.all[2].init["config"]["learning_rate"] == 0.5
    assert module.all[2].init["group"] == tmp_path.name
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", 'Trackio: trackio show --project "p"\n')
    first = module.all[1:]
    write(Trackio(project="p"), tmp_path, plan, earlier=ROWS[:1], rows=ROWS[1:])
    assert module.all[0] is other and other.exit_code is None
    assert len(module.all) == 3 and not set(map(id, first)) & set(map(id, module.all))
    assert [list(run.rows) for run in module.all[1:]] == [[100, 200]] * 2
