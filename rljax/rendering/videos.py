"""Animations: GIF by Pillow, and mp4 by the ffmpeg of the package imageio-ffmpeg, an extra."""

import contextlib
import importlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rljax.rendering.frames import write_gif

SUFFIXES = (".gif", ".mp4")


def check_animation(path: str | Path) -> None:
    """Checks that an animation can be written to a path, before it is drawn.

    Raises:
      ValueError: the suffix is another one, the folder does not exist, or the package for mp4 is
        missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"`output` is {path}, but it must end in .gif or .mp4.")
    if not path.parent.is_dir():
        raise ValueError(f"`output` is {path}, but the folder {path.parent} does not exist.")
    if suffix == ".mp4":
        _ffmpeg()


def write_animation(frames: Sequence[np.ndarray], path: str | Path, fps: float = 30) -> None:
    """Writes frames as a GIF that repeats forever, or as an mp4 video (H.264).

    Args:
      frames: uint8 `[H, W, 3]`, all of the same size.
      path: path of the file, which ends in .gif or .mp4.
      fps: frames per second, at most 50 in a GIF.

    Raises:
      ValueError: see `check_animation`; or ffmpeg could not write the file.
    """
    check_animation(path)
    if Path(path).suffix.lower() == ".gif":
        return write_gif(frames, path, fps)
    height, width = frames[0].shape[:2]
    padding = (0, height % 2), (0, width % 2), (0, 0)  # H.264 needs even sizes
    size = f"{width + width % 2}x{height + height % 2}"
    command = [
        _ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size,
        "-r", str(fps), "-i", "-", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p",
        str(path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ffmpeg stopped; its message follows
            for frame in frames:
                process.stdin.write(np.pad(frame, padding, mode="edge").tobytes())
        _, message = process.communicate()
    if process.returncode:
        raise ValueError(f"ffmpeg could not write {path}: {message.decode().strip()}")


def _ffmpeg() -> str:
    """Returns the path of ffmpeg."""
    try:
        return importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except ImportError:
        raise ValueError(
            "mp4 videos need the package imageio-ffmpeg: pip install "
            '"rljax-research[video]", or write a .gif.'
        ) from None
