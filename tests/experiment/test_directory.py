"""Run directories: locks, records, errors of the disk, and what a resumed run keeps."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from probes import DRIFT, bits

import rljax
from rljax.__main__ import main
from rljax.experiment import checkpoint, directory, evaluator, groups, lock, provenance, run_plan
from rljax.experiment.make_plan import make_plan
from rljax.results import storage
from rljax.results.result import Result
from rljax.training import parallel, runs

pytestmark = pytest.mark.usefixtures("quick_compiles")

OPTIONS = {"num_envs": 2, "num_steps": 4, "total_timesteps": 160, "num_seeds": 4, "num_reports": 5}
KEPT = {"eval_episodes": 3, "writers": ["jsonl"], "save_seconds": 0.0}


def train(run_dir, **options):
    defaults = OPTIONS | {"eval_episodes": 3, "save_seconds": 0.0, "progress": False}
    return rljax.train(DRIFT, "CartPole-v1", run_dir=run_dir, **defaults | options)


def resume(run_dir, **options):
    return rljax.resume(run_dir, agent=DRIFT, progress=False, **options)


def opened(run_dir, resume=False):
    return directory.RunDirectory(
        run_dir, make_plan(DRIFT, "CartPole-v1", **OPTIONS), KEPT, resume
    )  # fmt: skip


def interrupted_run(run_dir, number=signal.SIGINT, **options):
    """Trains until a signal in the third chunk."""
    original, calls = runs.Runs.advance, []

    def advance(self, size):
        calls.append(size)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(self, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Runs, "advance", advance)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(run_dir, **options)


@pytest.fixture(scope="module")
def runs_made(tmp_path_factory):
    """Returns the result of a complete run, its directory, and that of an interrupted run."""
    parent = tmp_path_factory.mktemp("runs")
    result = train(parent / "complete")
    interrupted_run(parent / "interrupted")
    return result, parent


@pytest.fixture
def complete(runs_made, tmp_path):
    return runs_made[0], Path(shutil.copytree(runs_made[1] / "complete", tmp_path / "complete"))


@pytest.fixture
def interrupted(runs_made, tmp_path):
    return Path(shutil.copytree(runs_made[1] / "interrupted", tmp_path / "interrupted"))


def same(x: Result, y: Result) -> bool:
    trees = [(r.state, r.params, r.metrics, r.evaluation, r.steps) for r in (x, y)]
    return bits(jax.tree.map(np.asarray, trees[0][2:])) == bits(
        jax.tree.map(np.asarray, trees[1][2:])
    ) and bits(trees[0][:2]) == bits(trees[1][:2])


# The lock


HOLD = """
import sys, time
from pathlib import Path
from rljax.experiment.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(100)
"""


def test_a_second_process_is_refused_and_the_lock_of_a_killed_one_is_stale(interrupted):
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLD, str(interrupted)],
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"locked\n"
            with pytest.raises(ValueError) as error:
                resume(interrupted)
        finally:
            holder.kill()
    name = f"process {holder.pid} on {os.uname().nodename}"
    assert str(error.value) == (
        f"{interrupted} is in use by {name}: wait until it has ended, or choose another `run_dir`."
    )
    assert (interrupted / lock.NAME).read_text() == name  # of the killed process
    resume(interrupted)
    assert not (interrupted / lock.NAME).exists()


def test_threads_of_a_process_exclude_each_other(tmp_path):
    """Of 16 threads that open a run at a time, one at a time holds the lock."""
    held, most, refused = [], [], []

    def open_and_close():
        for _ in range(20):
            try:
                own = lock.Lock(tmp_path)
            except ValueError:
                refused.append(1)
                continue
            held.append(1)
            most.append(len(held))
            held.pop()
            own.release()

    threads = [threading.Thread(target=open_and_close) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) + len(refused) == 320 and set(most) == {1}
    assert not list(tmp_path.iterdir())


def test_an_open_run_cannot_be_opened_again(interrupted):
    with (
        opened(interrupted, resume=True),
        pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on "),
    ):
        opened(interrupted, resume=True)
    with opened(interrupted, resume=True):
        pass


def test_commands_at_the_same_time_take_different_numbers(tmp_path):
    parent, paths = tmp_path / "runs", []
    threads = [
        threading.Thread(target=lambda: paths.append(directory.new_directory("ppo", "a/B", parent)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(paths) == sorted(parent / f"ppo-a-B-{i}" for i in range(1, 17))


# Errors of the disk


def test_a_run_dir_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    words = ["train", "q_learning", "rljax/Maze", "--total-timesteps", "2000", "--run-dir"]
    for path, message in (
        (file, f"`run_dir` is {file}, which is a file: give a directory."),
        (file / "run", f"`run_dir` is {file / 'run'}, but it cannot be written (Not a directory)"),
    ):
        assert main([*words, str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("error") == 1 and "Traceback" not in error
    assert file.read_text() == "mine"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main([*words, str(tmp_path / "run")]) == 2
    assert "cannot be written (Permission denied): choose another" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot be written"):
        directory.new_directory("ppo", "CartPole-v1", tmp_path)


def full_disk(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["checkpoint", "metrics", "result"])
def test_a_full_disk_ends_the_run_with_one_sentence(tmp_path, monkeypatch, capsys, place):
    target, name = {
        "checkpoint": (checkpoint.checkpoint_file, "write"),
        "metrics": (rljax.experiment.json_lines.JsonLines, "write"),
        "result": (storage, "with_digest"),
    }[place]
    path = tmp_path / "run"
    words = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "64", "--no-progress"]
    words += ["--run-dir", str(path), "--eval-episodes", "2"]
    if place == "result":  # not the record of the versions, which has a digest too
        monkeypatch.setattr(Result, "save", full_disk)
    else:
        monkeypatch.setattr(target, name, full_disk)
    assert main(["train", "q_learning", "rljax/Maze", *words]) == 74
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: " + (
        f"cannot write to {path} (No space left on device): make room, then continue from the last "
        f"checkpoint with `rljax resume {path}`."
    )
    monkeypatch.undo()
    assert main(["resume", str(path), "--no-progress"]) == 0
    assert rljax.load_result(path).evaluation["returns"].shape == (1, 2)


def test_other_errors_of_files_have_an_exit_code_too(complete, capsys):
    output = complete[1] / "config.toml" / "curve.png"
    assert main(["plot", str(complete[1]), "-o", str(output)]) == 74
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "config.toml" in error and error.count("\n") == 1


# What a resumed run keeps


def test_a_resumed_run_keeps_its_options_unless_they_are_given(interrupted, monkeypatch):
    used = {}
    original = groups.run_plan
    monkeypatch.setattr(
        groups, "run_plan", lambda *args, **kwargs: used.update(kwargs) or original(*args, **kwargs)
    )
    result = resume(interrupted)
    assert result.evaluation is not None and result.evaluation["returns"].shape == (4, 3)
    assert {name: used[name] for name in KEPT} == KEPT


def test_options_given_to_resume_are_kept_from_then_on(interrupted, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_plan, "_compile", lambda *args: os.kill(os.getpid(), signal.SIGINT))
        resume(interrupted, eval_episodes=5)
    assert resume(interrupted).evaluation["returns"].shape == (4, 5)


class Silent:
    def write(self, step, metrics):
        pass

    def close(self):
        pass


def test_the_users_own_writers_are_missed_with_a_warning(tmp_path):
    interrupted_run(tmp_path / "run", writers=["jsonl", Silent()])
    with pytest.warns(UserWarning, match="the run had its own writer `Silent`"):
        resume(tmp_path / "run")
    rows = rljax.experiment.json_lines.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert len(rows) == 5


def test_a_record_without_a_newer_option_takes_the_default_and_says_so(complete, interrupted):
    """Neither config.toml nor the checkpoints have the option, as if it had been added since."""
    path = interrupted / "config.toml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("gamma")))
    for file in checkpoint.checkpoints(interrupted / "checkpoint"):
        rewrite(file, lambda meta: meta["config"].pop("gamma"))
    with pytest.warns(UserWarning, match="without the option `gamma`.*its default 0.99 is used"):
        result = resume(interrupted)
    assert same(result, complete[0])
    assert "gamma = 0.99" in path.read_text()  # recorded from now on


def rewrite(file, change):
    """Changes the metadata of a checkpoint, and its digest."""
    import hashlib

    data = file.read_bytes()
    start = len(checkpoint.checkpoint_file.MAGIC) + 32
    length = int.from_bytes(data[start : start + 8], "little")
    header = json.loads(data[start + 8 : start + 8 + length])
    change(header["meta"])
    text = json.dumps(header, sort_keys=True).encode()
    body = len(text).to_bytes(8, "little") + text + data[start + 8 + length :]
    file.write_bytes(data[: start - 32] + hashlib.sha256(body).digest() + body)


MALFORMED_META = [
    lambda meta: meta.clear(),
    lambda meta: meta.pop("config"),
    lambda meta: meta.update(config=None),
    lambda meta: meta.update(config=3),
    lambda meta: meta.update(rows=None),
    lambda meta: meta.update(rows=[1]),
    lambda meta: meta.update(rows=[[1, 2]]),
    lambda meta: meta.update(rows=[["1", {}]]),
    lambda meta: meta["rows"][0][1].update({"charts/reward": "x"}),
    lambda meta: meta["rows"][0][1].update({"charts/reward": [1.0]}),
    lambda meta: meta["rows"].append([1, {"another": [1.0] * 4}]),
    lambda meta: meta.update(num_updates=-1),
    lambda meta: meta.update(num_updates=True),
    lambda meta: meta.update(num_updates=10**9),
    lambda meta: meta.pop("num_updates"),
    lambda meta: meta.update(num_shards="2"),
]


@pytest.mark.parametrize("change", MALFORMED_META, ids=map(str, range(len(MALFORMED_META))))
def test_malformed_metadata_is_damage_and_the_checkpoint_before_is_taken(interrupted, change):
    plan = make_plan(DRIFT, "CartPole-v1", **OPTIONS)
    newest, older = checkpoint.checkpoints(interrupted / "checkpoint")
    before = checkpoint.read_meta(older)["num_updates"]
    rewrite(newest, change)
    with pytest.warns(UserWarning, match=f"skipping damaged checkpoint: {newest} has malformed"):
        states = rljax.load_states(interrupted, agent=DRIFT)[1]
    assert states.num_updates.tolist() == [before] * plan.num_runs


# The grouping of the runs


def test_the_grouping_of_the_runs_is_kept_on_another_number_of_cores(tmp_path, monkeypatch):
    placed, original = [], parallel.place

    def place(*args, **kwargs):
        placed.append(original(*args, **kwargs))
        return placed[-1]

    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(parallel, "num_cores", lambda: 2)
    interrupted_run(tmp_path / "run")
    monkeypatch.setattr(parallel, "num_cores", lambda: 1)
    monkeypatch.setattr(parallel, "place", place)
    resume(tmp_path / "run")  # without a warning
    assert [placement.num_shards for placement in placed] == [2, 2]  # training and evaluation
    meta = checkpoint.read_meta(checkpoint.checkpoints(tmp_path / "run" / "checkpoint")[0])
    assert meta["num_shards"] == 2


def test_another_grouping_that_cannot_be_kept_is_said(interrupted, monkeypatch):
    devices = jax.devices()[:3]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    with pytest.warns(UserWarning, match="4 runs were trained in 4 groups, .* but now in 3: the"):
        resume(interrupted)


def test_another_number_of_cores_for_large_updates_is_said(interrupted, monkeypatch):
    monkeypatch.setattr(run_plan, "SMALL_UPDATE", 1)
    monkeypatch.setattr(provenance, "num_cores", lambda: 99)
    with pytest.warns(UserWarning, match=r"num_cores \d+ \(now 99\): its results may differ"):
        resume(interrupted)


# Versions, devices and dates


def test_the_provenance_has_the_versions_the_device_and_each_process(complete, interrupted):
    (entry,) = storage.read_record(complete[1] / provenance.NAME)["processes"]
    assert (entry["rljax"], entry["jax"]) == (rljax.__version__, jax.__version__)
    assert entry["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (entry["host"], entry["process"]) == (os.uname().nodename, os.getpid())
    assert (entry["first_update"], entry["num_updates"]) == (0, 20)
    assert (entry["num_shards"], entry["runs_per_shard"]) == (4, 1)
    assert {"jaxlib", "device", "date", "commit", "checkpoint_format"} < set(entry)
    resume(interrupted)
    first, second = storage.read_record(interrupted / provenance.NAME)["processes"]
    assert 0 < first["num_updates"] == second["first_update"] and second["num_updates"] == 20
    total = rljax.load_result(interrupted).seconds
    assert total >= first["seconds"] + second["seconds"] > 0


def test_the_commit_is_that_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance.commit() == ""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert provenance.commit() == head.stdout.strip()


def test_another_version_of_jax_is_said(interrupted):
    record = storage.read_record(interrupted / provenance.NAME)
    record["processes"][0]["jax"] = "0.0.1"
    (interrupted / provenance.NAME).write_bytes(storage.with_digest(record))
    with pytest.warns(UserWarning, match=r"trained with jax 0.0.1 \(now .*\): its results may"):
        resume(interrupted)


def test_a_damaged_provenance_is_said_and_does_not_prevent_a_resume(complete, interrupted):
    path = interrupted / provenance.NAME
    path.write_bytes(path.read_bytes().replace(b"num_shards", b"num_Shards"))
    with pytest.warns(UserWarning, match="options of the earlier part .*provenance.json is dam"):
        result = resume(interrupted, eval_episodes=3)
    assert same(result, complete[0])


# A complete run


def test_a_complete_run_is_loaded_without_compiling(complete, monkeypatch, capsys):
    result, run_dir = complete
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    monkeypatch.setattr(runs.Runs, "__init__", lambda *args, **kwargs: pytest.fail("it compiles"))
    monkeypatch.setattr(evaluator, "evaluate_agent", lambda *args: pytest.fail("it evaluates"))
    again = rljax.resume(run_dir, agent=DRIFT)
    assert capsys.readouterr().err == f"{run_dir} is already finished.\n"
    assert same(again, result)
    assert (again.seconds, again.compile_seconds) == (result.seconds, result.compile_seconds)
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
    with pytest.raises(ValueError, match=r"gamma = 0.99 \(now 0.5\)"):
        resume(run_dir, gamma=0.5)
    shutil.rmtree(run_dir / "checkpoint")
    assert resume(run_dir).state is None


def test_a_damaged_result_is_made_again_from_the_checkpoint(complete):
    result, run_dir = complete
    (run_dir / "result.json").write_bytes(b"{}")
    with pytest.warns(UserWarning, match=r"made again from the checkpoint: .*result.json is dam"):
        again = resume(run_dir)
    assert same(again, result) and same(resume(run_dir), result)
    (entry, _) = storage.read_record(run_dir / provenance.NAME)["processes"]
    assert again.seconds >= entry["seconds"] > 0  # the time of the training is kept


def test_the_command_resumes_a_complete_run_without_jax(tmp_path):
    run_dir = tmp_path / "run"
    words = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "64", "--no-progress"]
    assert main(["train", "q_learning", "rljax/Maze", *words, "--run-dir", str(run_dir)]) == 0
    code = (
        "import sys; from rljax.__main__ import main\n"
        f"assert main(['resume', {str(run_dir)!r}]) == 0 and 'jax' not in sys.modules"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{run_dir} is already finished.\n" and "evaluation" in done.stdout


# Signals outside the training loop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("when", ["compile", "evaluation", "writes"])
def test_a_signal_at_any_time_exits_with_what_is_saved(
    complete, tmp_path, monkeypatch, capsys, number, code, when
):
    path = tmp_path / "run"
    target, name = {
        "compile": (run_plan, "_compile"),
        "evaluation": (run_plan, "Evaluator"),
        "writes": (Result, "plot"),
    }[when]
    original = getattr(target, name)

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)) as stop:
            train(path)
    text = str(stop.value) if code == 130 else capsys.readouterr().err
    assert stop.type is KeyboardInterrupt if code == 130 else stop.value.code == 143
    if when == "writes":
        assert f"The run is complete and saved in {path}." in text
        assert same(resume(path), complete[0])
    else:
        assert f"To continue from the last checkpoint: rljax resume {path}" in text
        assert not (path / "result.json").exists() and not (path / lock.NAME).exists()
    if when == "evaluation":
        newest = checkpoint.checkpoints(path / "checkpoint")[0]
        assert checkpoint.read_meta(newest)["num_updates"] == 20
        assert same(resume(path), complete[0])


def test_sigterm_outside_a_run_is_said(monkeypatch, capsys):
    from rljax.cli.commands import COMMANDS

    def slow(positionals, options):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it continued")

    monkeypatch.setitem(COMMANDS, "list", COMMANDS["list"]._replace(run=slow))
    with pytest.raises(SystemExit) as stop:
        main(["list"])
    assert stop.value.code == 143 and capsys.readouterr().err == "Terminated.\n"
