"""The progress bar: its plain lines, its figures, and its drawing in a terminal."""

import io

import numpy as np
import pytest

from rljax.experiment.progress import MIN_BAR_WIDTH, Progress, duration

RETURNS = {"charts/episodic_return": np.array([481, 500, 510, np.nan], np.float32)}


class Clock:
    """A clock that is set by the test."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def test_plain_lines(clock, capsys):
    with Progress("ppo · 4 seeds", 500_000, num_runs=4, clock=clock) as progress:
        clock.now += 4.12
        progress.compiled(4.12, num_bytes=3 * 2**19)
        for second in range(1, 11):
            clock.now += 1.0
            progress.update(50_000 * second, RETURNS if second > 5 else None)
    captured = capsys.readouterr()
    assert captured.out == ""  # stdout stays free for pipes
    last = "return 497 [481, 510] (3 of 4 runs)"
    assert captured.err == (
        "ppo · 4 seeds\n"
        "compiled in 4.1 s, 1.5 MiB of memory\n"
        " 10%  50k/500k  0:00:01  0:00:09 left  total SPS 200k\n"
        f" 60%  300k/500k  0:00:06  0:00:04 left  total SPS 200k  {last}\n"
        f"100%  500k/500k  0:00:10  total SPS 200k  {last}\n"
    )


def test_a_failed_run_shows_its_progress(clock, capsys):
    with pytest.raises(KeyboardInterrupt), Progress("ppo", 1000, clock=clock) as progress:
        clock.now += 2.0
        progress.update(100, {"charts/episodic_return": np.float32(7)})
        clock.now += 60.0
        raise KeyboardInterrupt
    progress.close()
    assert capsys.readouterr().err == "ppo\n 10%  100/1k  0:00:02  SPS 50  return 7\n"


def test_a_stream_of_ascii(clock):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    with Progress("ppo · π · cpu", 1000, stream=stream, clock=clock):
        stream.seek(0)
        assert stream.read() == "ppo - ? - cpu\n"


def test_silent(capsys, clock):
    with Progress("ppo", 1000, enabled=False, clock=clock) as progress:
        progress.compiled(1.0)
        clock.now += 100.0
        progress.update(1000, RETURNS)
    assert capsys.readouterr() == ("", "")


def test_sps_excludes_compilation_and_steps_before_a_resume(clock):
    stream = io.StringIO()
    progress = Progress("ppo", 1000, num_runs=3, start=400, clock=clock, stream=stream)
    clock.now += 30.0
    progress.compiled(20.0)
    clock.now += 2.0
    progress.update(600)
    assert progress._figures(clock.now, 200) == "600/1k  0:00:02  0:00:04 left  total SPS 300"
    clock.now += 10.0
    progress.compiled(10.0)
    assert progress._figures(clock.now, 200) == "600/1k  0:00:02  0:00:04 left  total SPS 300"
    clock.now += 2.0
    progress.update(1000)
    assert progress._figures(clock.now, 200) == "1k/1k  0:00:04  total SPS 450"
    clock.now += 50.0  # saving and plotting do not count
    assert progress._figures(clock.now, 200) == "1k/1k  0:00:04  total SPS 450"


def test_the_last_known_return_is_kept(clock):
    progress = Progress("dqn", 1000, clock=clock, stream=io.StringIO())
    progress.update(100, {"charts/episodic_return": np.array([np.nan, np.nan], np.float32)})
    assert "return" not in progress._figures(clock.now, 200)
    progress.update(200, {"charts/episodic_return": np.array([np.nan, 3.0], np.float32)})
    progress.update(300, {"charts/episodic_return": np.array([np.nan, np.nan], np.float32)})
    assert progress._figures(clock.now, 200).endswith("return 3 (1 of 2 runs)")


def test_the_time_left_follows_the_rate_after_the_first_chunk(clock):
    """The first chunk takes 2 s for 10 steps, the others 1 s for 1,000."""
    progress = Progress("ppo", 10_010, clock=clock, stream=io.StringIO())
    clock.now += 0.5
    assert "left" not in progress._figures(clock.now, 200)
    clock.now += 1.5
    progress.update(10)
    for _ in range(3):
        clock.now += 1.0
        progress.update(progress._done + 1_000)
    assert "0:00:05  0:00:07 left" in progress._figures(clock.now, 200)


def test_a_sweep_shows_its_best_and_its_median_setting(clock):
    progress = Progress("ppo", 100, num_runs=6, num_settings=3, clock=clock, stream=io.StringIO())
    returns = np.float32([10, 20, 90, 90, 40, np.nan])
    progress.update(50, {"charts/episodic_return": returns})
    assert progress._figures(clock.now, 200).endswith("best return 90  median 40")


def test_less_important_figures_are_dropped_first(clock):
    progress = Progress("ppo", 500_000, num_runs=4, clock=clock, stream=io.StringIO())
    clock.now += 1.0
    progress.update(250_000, RETURNS)
    whole = "250k/500k  0:00:01  0:00:01 left  total SPS 1M  return 497 [481, 510] (3 of 4 runs)"
    expected = {
        len(whole): whole,
        len(whole)
        - 1: "250k/500k  0:00:01 left  total SPS 1M  return 497 [481, 510] (3 of 4 runs)",
        59: "250k/500k  0:00:01 left  total SPS 1M  return 497",
        42: "250k/500k  0:00:01 left  return 497",
        34: "250k/500k  return 497",
        20: "250k/500k",
        0: "250k/500k",
    }
    for available, text in expected.items():
        assert progress._figures(clock.now, available) == text


@pytest.mark.parametrize("width", [12, 30, 60, 80, 200])
def test_drawn_lines_fit_the_terminal(clock, terminal, width):
    console = pytest.importorskip("rich.console")
    progress = Progress("ppo CartPole-v1 · 8 seeds", 500_000, clock=clock, stream=io.StringIO())

    def draw():
        page = console.Console(file=io.StringIO(), width=width, force_terminal=False)
        page.print(progress)
        lines = page.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
        # an echo of Ctrl-C at the end of the last line must not wrap: the title would stand twice
        assert len(lines) == 2 and all(len(line) + 4 <= max(width, 16) for line in lines)
        return lines

    assert "compiling" in draw()[1]
    clock.now += 4.1
    progress.compiled(4.1)
    assert "0/500k" in draw()[1]
    clock.now += 3.0
    progress.update(499_712, RETURNS)
    title, bar = draw()
    assert bar.count("━") + bar.count("╸") >= (MIN_BAR_WIDTH - 1 if width >= 30 else 0)
    assert ("compiled in 4.1 s" in title) == (width >= 60)
    progress.update(500_000, RETURNS)
    clock.now += 50.0
    assert "left" not in draw()[1]


def test_a_terminal_shows_a_live_bar(clock, terminal):
    pytest.importorskip("rich")
    with Progress("ppo", 500_000, clock=clock, stream=terminal) as progress:
        progress.compiled(1.0)
        clock.now += 1.0
        progress.update(500_000, RETURNS)
        progress.close()
    text = terminal.getvalue()
    assert "\x1b[?25l" in text and text.count("\x1b[?25h") == 1  # the cursor is restored
    assert "500k/500k" in text and text.endswith("\n\x1b[?25h")


def test_a_dumb_terminal_shows_plain_lines(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Progress("ppo", 10, clock=clock, stream=terminal) as progress:
        progress.update(10)
    assert terminal.getvalue() == "ppo\n100%  10/10  0:00:00\n"


def test_duration():
    seconds = [-1, 0, 9.99, 61, 3600, 100 * 3600]
    expected = ["0:00:00", "0:00:00", "0:00:09", "0:01:01", "1:00:00", "100:00:00"]
    assert [duration(second) for second in seconds] == expected
