"""Figures that need no display and no pyplot. Importing this imports matplotlib."""

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FILE_DPI = 200
NOTEBOOK_DPI = 144


class Canvas(Figure):
    """A matplotlib figure that notebooks show, also without `import matplotlib.pyplot`."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=NOTEBOOK_DPI)
        return buffer.getvalue()


def new(width: float, height: float, pad: float = 0.08) -> Canvas:
    """Returns an empty figure, sizes in inches, which keeps texts inside its borders."""
    figure = Canvas((width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=pad, h_pad=pad)  # type: ignore[union-attr]
    return figure


def save(figure: Any, path: str | Path | None) -> None:
    """Writes a figure and creates its directory; None writes nothing."""
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # journals refuse the default, Type 3
        figure.savefig(path, dpi=FILE_DPI)
