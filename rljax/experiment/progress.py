"""The progress of a run: a live bar in a terminal, plain lines elsewhere.

ppo CartPole-v1 · 8 seeds · cpu             compiled in 4.1 s, 12 MiB of memory
━━━━━━━━━━━━━━━━━━━━ 500k/500k  0:00:09  total SPS 430k  return 497 [481, 500]
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from rljax.ops.memory import readable
from rljax.results import statistics
from rljax.results.figures import EPISODIC_RETURN, human

SECONDS_BETWEEN_LINES = 5.0  # minimum time between two plain lines
SECONDS_BEFORE_ESTIMATE = 1.0  # time of training before the time left is estimated
MAX_WIDTH = 100  # columns: a bar across a wide screen is hard to read
MIN_BAR_WIDTH = 10  # columns
ECHO_WIDTH = len("^C^C")  # left free: an echo that wraps would move the display down by one line
DROP_ORDER = ("elapsed", "range", "SPS", "left", "return")  # figures dropped on a narrow terminal


class Progress:
    """A live bar in a terminal; plain lines elsewhere (a file, CI, a notebook).

    It writes to stderr, so that stdout stays free for pipes. The steps shown are those of one run,
    as on the axis of its curves. SPS is the number of environment steps per second, of all runs
    together, without the time to compile. A narrow terminal shows fewer figures. Use it in a `with`
    statement, or call `close`.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        enabled: bool | None = None,
        *,
        num_runs: int = 1,
        num_settings: int = 1,
        start: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Starts the display.

        Args:
          title: one line, such as the agent, the environment and the number of seeds.
          total_steps: environment steps of one complete run.
          enabled: False shows nothing; None and True show the progress.
          num_runs: number of runs side by side; SPS is the sum over them.
          num_settings: number of settings of a sweep; seeds vary fastest among the runs.
          start: steps done before a resume; they do not count in SPS.
          stream: output stream; None is stderr.
          clock: returns the time in seconds.
        """
        self._stream = None if enabled is False else stream or sys.stderr
        self._title = title = _encodable(title, self._stream)
        self._total, self._num_runs = max(total_steps, 1), num_runs
        self._num_settings = num_settings
        self._start = self._done = start
        self._clock = clock
        self._started = self._updated = self._printed = clock()
        self._compile_seconds: float | None = None
        self._num_bytes: int | None = None
        self._first: tuple[int, float] | None = None  # steps and time of the first update
        self._figures_width = 0  # the widest so far, so that the bar does not jump
        self._returns = np.zeros(0)
        self._return_texts: tuple[str, str] | None = None  # made when they are drawn
        self._closed = False
        self._live = _live(self, self._stream)
        self._print(title)

    def compiled(
        self, seconds: float, start: int | None = None, num_bytes: int | None = None
    ) -> None:
        """Shows the time of a compilation, which does not count in SPS, and the memory needed.

        Args:
          seconds: time of the compilation that has just ended.
          start: steps done before a resume, which do not count in SPS either.
          num_bytes: memory that the compiled program of all runs needs; None if it is unknown.
        """
        if start is not None:
            self._start = self._done = start
        self._compile_seconds = (self._compile_seconds or 0.0) + seconds
        if self._done == self._start:
            self._started = self._updated = self._clock()
        else:
            self._leave_out(seconds)  # a later compilation
        self._num_bytes = num_bytes
        self._print(self._compilation())

    def update(self, steps_done: int, metrics: Mapping[str, ArrayLike] | None = None) -> None:
        """Shows the progress and the episodic return.

        Args:
          steps_done: environment steps done by each run.
          metrics: arrays `[runs]` by name. The interquartile mean of the return over seeds and its
            95 % interval are shown, as in the table of the result; of a sweep the best and the
            median setting.
        """
        self._done, self._updated = int(steps_done), self._clock()
        self._first = self._first or (self._done, self._updated)
        returns = np.asarray((metrics or {}).get(EPISODIC_RETURN, ()), np.float64).reshape(-1)
        if not np.isnan(returns).all():
            self._returns, self._return_texts = returns, None
        if self._updated - self._printed >= SECONDS_BETWEEN_LINES and self._done < self._total:
            self._printed = self._updated
            self._print_figures()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time in this context out of the SPS: an evaluation, or a user's function."""
        start = self._clock()
        try:
            yield
        finally:
            self._leave_out(self._clock() - start)

    def _leave_out(self, seconds: float) -> None:
        """Moves the start of training forward."""
        self._started, self._updated = self._started + seconds, self._updated + seconds
        if self._first is not None:
            self._first = self._first[0], self._first[1] + seconds

    def close(self) -> None:
        """Shows the final figures and restores the terminal. A second call has no effect."""
        if self._closed:
            return
        self._closed = True
        if self._live is not None:
            self._live.stop()
        self._print_figures()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _compilation(self) -> str:
        """Returns the note beside the title: the time to compile, and the memory."""
        memory = "" if self._num_bytes is None else f", {readable(self._num_bytes)} of memory"
        return f"compiled in {self._compile_seconds or 0.0:.1f} s{memory}"

    def _print(self, line: str) -> None:
        if self._stream is not None and self._live is None:
            print(line, file=self._stream, flush=True)

    def _print_figures(self) -> None:
        percent = 100 * self._done // self._total
        self._print(f"{percent:3d}%  {self._figures(self._updated, width=1000)}")

    def _figures(self, now: float, width: int) -> str:
        """Returns the figures in one line, without the less important ones if it is too wide."""
        running = not self._closed and self._done < self._total
        steps, seconds = self._done - self._start, self._updated - self._started
        rate = steps / seconds if steps > 0 and seconds > 0 else 0.0
        figures = {"steps": f"{human(self._done)}/{human(self._total)}"}
        figures["elapsed"] = duration((now if running else self._updated) - self._started)
        if running and rate:
            recent = self._recent_rate() or rate
            left = (self._total - self._done) / recent - (now - self._updated)
            if now - self._started >= SECONDS_BEFORE_ESTIMATE:
                figures["left"] = f"{duration(left)} left"
        if rate:
            total = "total " if self._num_runs > 1 else ""
            figures["SPS"] = f"{total}SPS {human(rate * self._num_runs)}"
        if self._returns.size:
            if self._return_texts is None:
                self._return_texts = return_texts(self._returns, self._num_settings)
            figures["return"], figures["range"] = self._return_texts
        for name in DROP_ORDER:
            if len(_join(figures)) > width:
                figures.pop(name, None)
        return _join(figures)

    def _recent_rate(self) -> float:
        """Returns the steps per second since the first update, whose chunk is slower; 0 if unknown.

        The first chunk has few steps, and its time is mostly that of the first call.
        """
        if self._first is None or self._updated <= self._first[1]:
            return 0.0
        return (self._done - self._first[0]) / (self._updated - self._first[1])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """Yields the lines to draw; rich calls it several times a second from its own thread."""
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        width = min(options.max_width - ECHO_WIDTH, MAX_WIDTH)
        title = Text(self._title, "bold", no_wrap=True, overflow="ellipsis")
        compiled = self._compile_seconds
        note = "" if compiled is None else self._compilation()
        if (gap := width - title.cell_len - len(note)) >= 2:
            title.append(" " * gap + note, "not bold dim")
        yield title
        now = self._clock()
        if compiled is None and self._done == self._start:
            spinner = Spinner("line" if options.ascii_only else "dots")
            frame = spinner.frames[int(1000 * now / spinner.interval) % len(spinner.frames)]
            yield Text(f"{frame} compiling  {duration(now - self._started)}", no_wrap=True)
            return
        figures = self._figures(now, width - MIN_BAR_WIDTH - 1)
        if width - self._figures_width - 1 < MIN_BAR_WIDTH:
            self._figures_width = 0  # the terminal is narrower now
        self._figures_width = max(self._figures_width, len(figures))
        bar = ProgressBar(
            self._total,
            self._done,
            width=max(width - self._figures_width - 1, 0),
            complete_style="cyan",
            finished_style="green",
        )
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(bar, Text(figures, no_wrap=True))
        yield line


def _live(progress: Progress, stream: TextIO | None) -> Any:
    """Starts rich's live display and returns it, or None if the stream is not a terminal."""
    if stream is None or not stream.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream)
    if console.is_dumb_terminal or not console.is_terminal:
        return None
    # Output of the run is shown above the bar, unless stdout is a pipe.
    redirect = sys.stdout is not None and sys.stdout.isatty()
    live = Live(progress, console=console, refresh_per_second=8, redirect_stdout=redirect)
    live.start()
    return live


def _encodable(title: str, stream: TextIO | None) -> str:
    """Returns the title, in ASCII if the encoding of the stream cannot represent it."""
    try:
        title.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return title.replace("·", "-").encode("ascii", "replace").decode()
    return title


def _join(figures: Mapping[str, str]) -> str:
    return "  ".join(filter(None, figures.values())).replace("  [", " [").replace("  (", " (")


def return_texts(returns: np.ndarray, num_settings: int = 1) -> tuple[str, str]:
    """Returns the return of runs `[R]` as text in two parts, of which the second may be dropped.

    Example:
      >>> return_texts(np.array([500.0, 500.0]))
      ('return 500', '[500, 500]')
      >>> return_texts(np.array([10.0, 20.0, 90.0, 90.0, 40.0, 50.0]), num_settings=3)
      ('best return 90', 'median 45')
    """
    if num_settings == 1:
        value, _, interval = statistics.describe(returns).partition(" ")
        return f"return {value}", interval
    scores = np.array([statistics.iqm(x) for x in returns.reshape(num_settings, -1)])
    best, median = np.nanmax(scores), np.nanmedian(scores)
    return f"best return {best:.4g}", f"median {median:.4g}"


def duration(seconds: float) -> str:
    """Returns hours, minutes and seconds, such as 0:00:09."""
    minutes, second = divmod(int(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
