"""Frames of the suites of environments, with the renderers of their packages if they have one.

`MAKERS` maps a suite to a function `(name, params) -> Renderer`, which imports the package
of the suite. None of them opens a window or downloads anything.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.rendering import bodies
from rljax.rendering.boards import board_of_2048, maze_of_pac_man
from rljax.rendering.cells import enlarge
from rljax.rendering.scene import Renderer, each

LONG_SIDE = 400  # pixels, of frames that are made of tiles
XMINIGRID_ACTIONS = ("forward", "turn right", "turn left", "pick up", "put down", "toggle")
MOVES = ("up", "right", "down", "left")
JUMANJI_ACTIONS = {
    "Cleaner-v0": (), "Game2048-v1": MOVES, "Maze-v0": MOVES, "SlidingTilePuzzle-v0": MOVES,
    "Snake-v1": MOVES, "PacMan-v1": (*MOVES, "none"),
}  # fmt: skip


def _xminigrid(name: str, params: Mapping[str, Any]) -> Renderer:
    """The whole grid; the part that the agent sees is lighter."""
    from xminigrid.rendering.rgb_render import render

    def draw(scene):
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(scene.obs)]
        view_size = next((shape[0] for shape in shapes if len(shape) == 3), 7)
        state = scene.state.state
        grid = np.asarray(state.grid)
        return render(grid, state.agent, view_size, max(8, LONG_SIDE // max(grid.shape[:2])))

    return Renderer(each(draw), XMINIGRID_ACTIONS, 6)


def _navix(name: str, params: Mapping[str, Any]) -> Renderer:
    """The whole grid, from the sprites of navix."""
    import navix
    from navix import observations
    from navix.rendering.cache import RenderingCache

    @jax.jit
    def rgb(state):  # the adapter removes the sprites from the state
        return observations.rgb(state.replace(cache=RenderingCache.init(state.grid)))

    names = [action.__name__ for action in navix.make(name).action_set]
    names = tuple(each.replace("rotate_ccw", "turn left").replace("rotate_cw", "turn right")
                  for each in names)  # fmt: skip

    def draw(scene):
        return enlarge(rgb(scene.state.state), LONG_SIDE)

    return Renderer(each(draw), names, 6)


def _craftax(name: str, params: Mapping[str, Any]) -> Renderer:
    """What the player sees and carries, with the textures of the game."""
    if "Classic" in name:
        from craftax.craftax_classic import constants, renderer
    else:
        from craftax.craftax import constants, renderer
    render = jax.jit(renderer.make_craftax_pixel_renderer(constants.BLOCK_PIXEL_SIZE_IMG))

    def draw(scene):
        pixels = np.asarray(render(scene.state))
        return enlarge(pixels.clip(0, 255).astype(np.uint8), LONG_SIDE)

    names = tuple(action.name.lower().replace("_", " ") for action in constants.Action)
    return Renderer(each(draw), names, 10)


def _jumanji(name: str, params: Mapping[str, Any]) -> Renderer:
    """The figure of the viewer of jumanji, made by matplotlib; of PacMan it takes seconds."""
    if name.startswith("PacMan"):
        return Renderer(each(maze_of_pac_man), JUMANJI_ACTIONS.get(name, ()), 10)
    from jumanji import registration
    from jumanji.viewer import Viewer

    arguments = {key: value for key, value in params.items() if key != "max_episode_steps"}
    env: Any = registration.make(name, **arguments).unwrapped
    viewer: Any = next(x for x in vars(env).values() if isinstance(x, Viewer))
    images: list[np.ndarray] = []

    def display(figure):  # in place of a window; the result of `render` is not always the image
        if name.startswith("MMST"):  # its viewer sets no limits, and the graph is between 0 and 1
            figure.axes[0].set(xlim=(0, 1), ylim=(0, 1))
        images.append(viewer._display_rgb_array(figure))

    viewer._display, viewer.figure_size = display, (5.0, 5.0)

    def draw(scene):
        state = scene.state
        if not hasattr(state, "adj_matrix"):  # viewers of graphs loop over elements
            state = jax.tree.map(jnp.asarray, state)
        with _without_window():
            env.render(state)
        return np.array(images.pop())[..., :3]

    return Renderer(each(draw), JUMANJI_ACTIONS.get(name, ()), 6)


@contextlib.contextmanager
def _without_window() -> Iterator[None]:
    """Lets pyplot draw into memory."""
    from matplotlib import pyplot as plt

    backend = plt.get_backend()
    plt.switch_backend("agg")
    try:
        yield
    finally:
        plt.switch_backend(backend)


def _pgx(name: str, params: Mapping[str, Any]) -> Renderer | None:
    """The board of 2048; pgx itself draws vector graphics alone. MinAtar is drawn as cells."""
    if name != "2048":
        return None
    return Renderer(each(board_of_2048), ("left", "up", "right", "down"), 4)


Maker = Callable[[str, Mapping[str, Any]], Renderer | None]

MAKERS: dict[str, Maker] = {
    "brax": bodies.brax_renderer,
    "playground": bodies.playground_renderer,
    "xminigrid": _xminigrid,
    "navix": _navix,
    "craftax": _craftax,
    "jumanji": _jumanji,
    "pgx": _pgx,
}
