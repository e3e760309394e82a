"""Moving pictures: what stands still is drawn once, and over it, for each frame, what moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from downslope.views.data.frames import FitFrames, LossFrames, PathFrames, Told
from downslope.views.data.paths import Paths
from downslope.views.data.ways import Path
from downslope.views.drawing.losses import draw_losses
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    NORMAL,
    PALETTE,
    RED,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    text,
)

Pixels = NDArray[np.uint8]
"""(height, width, 3)."""

THICK_RED = "#E00000"
_DOTS_PER_INCH = 120
_HEIGHT = 4.0
_LETTERS = 13.5
"""Small letters to an inch, about."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what moves in it.

    Attributes:
        moving: drawn anew for each frame, over the rest.
        show: brings them to where they are in a frame.
        axes: if set, what they draw over is uncovered from the left, up to `uncovered` of a frame
            on the horizontal axis.
    """

    figure: Figure
    moving: tuple[Artist, ...]
    show: Callable[[int], Any]
    frames: int
    axes: Axes | None = None
    uncovered: Callable[[int], float] | None = None


def pixels(scene: Scene) -> Iterator[Pixels]:
    """The frames, one after another."""
    figure = scene.figure
    figure.set_dpi(_DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    for artist in scene.moving:
        artist.set_animated(True)
    with own_style():
        scene.show(scene.frames - 1)
        canvas.draw()  # the layout is found with the last words in place
        figure.set_layout_engine("none")
        whole = _read(canvas)
        if scene.axes is not None:
            _hide_curves(scene.axes)
            canvas.draw()
        ground: Any = canvas.copy_from_bbox(figure.bbox)
    for frame in range(scene.frames):
        with own_style():
            canvas.restore_region(ground)
            scene.show(frame)
            for artist in scene.moving:
                figure.draw_artist(artist)
            made = _read(canvas)
            if scene.axes is not None and scene.uncovered is not None:
                part = _left_part(scene.axes, scene.uncovered(frame), made.shape[0])
                made[part] = whole[part]
        yield made


def _read(canvas: FigureCanvasAgg) -> Pixels:
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _hide_curves(axes: Axes) -> None:
    for artist in (*axes.lines, *axes.collections):
        artist.set_visible(False)


def _left_part(axes: Axes, x: float, height: int) -> tuple[slice, slice]:
    """The pixels of the axes up to a place on the horizontal axis."""
    box, room = axes.bbox, 5  # for marks that stand across an edge
    right = axes.transData.transform((x, axes.get_ylim()[0]))[0]
    rows = slice(max(int(height - box.y1) - room, 0), int(height - box.y0) + room)
    return rows, slice(max(int(box.x0) - room, 0), int(np.ceil(right)) + 1)


def fit_scene(data: FitFrames) -> Scene:
    """Data, and in red the prediction; or the regions of a classifier."""
    ground, made = data.ground, data.made
    figure = picture(WIDTH, _HEIGHT)
    axes = figure.subplots()
    prepare(axes, *(name if len(name) <= 56 else f"{name[:55]}…" for name in ground.names))
    caption = _caption(axes, data.told)
    if ground.kind == "regions":
        return _regions(data, figure, axes, caption)
    axes.set_ylim(data.limits)
    handles: list[Artist] = []
    if ground.kind == "curve":
        points = axes.scatter(ground.x, ground.y, s=_size(ground.x), color=BLUE, linewidths=0)
        points.set(alpha=0.7, label=ground.label)
        (line,) = axes.plot(
            ground.at, made[-1], color=THICK_RED, linewidth=3, label="prediction", zorder=4
        )
        handles += [points, line]
    else:
        ends = (ground.x.min(), ground.x.max())
        diagonal = axes.plot(ends, ends, color=GREY, linewidth=1.2, label="predicted = true")
        (line,) = axes.plot(
            ground.x, made[-1], linestyle="none", marker="o", color=BLUE, markeredgewidth=0,
            markersize=_size(ground.x) ** 0.5, alpha=0.7, label=ground.label,
        )  # fmt: skip
        handles += [line, *diagonal]
    axes.set_xlim(axes.get_xlim())
    legend(figure, handles)

    def show(frame: int) -> None:
        line.set_ydata(np.clip(made[frame], *_far(data.limits)))
        caption.set_text(data.told.words(frame))

    return Scene(figure, (line, caption), show, len(made))


def _far(limits: tuple[float, float]) -> tuple[float, float]:
    """Beyond the axis, yet near enough to be drawn: a line to 1e300 would not be."""
    height = limits[1] - limits[0]
    return limits[0] - 100 * height, limits[1] + 100 * height


def _size(x: Sequence[float] | np.ndarray) -> int:
    return 16 if len(x) <= 500 else 5


def _regions(data: FitFrames, figure: Figure, axes: Axes, caption: Artist) -> Scene:
    ground, made = data.ground, data.made
    count = len(ground.classes)
    shades = [PALETTE[k % len(PALETTE)] for k in range(count)]
    axes.grid(False)
    x, y = ground.at
    half = [(axis[1] - axis[0]) / 2 for axis in (x, y)]
    extent = (x[0] - half[0], x[-1] + half[0], y[0] - half[1], y[-1] + half[1])
    image = axes.imshow(
        made[-1], origin="lower", extent=extent, aspect="auto", cmap=ListedColormap(shades),
        vmin=-0.5, vmax=count - 0.5, alpha=0.3, interpolation="nearest", zorder=0,
    )  # fmt: skip
    points = []
    for number, name in enumerate(ground.classes):
        mine = ground.of_class == number
        points += axes.plot(
            ground.x[mine], ground.y[mine], linestyle="none", marker="os^Dv<>"[number % 7],
            markersize=4, color=shades[number], markeredgecolor="white", markeredgewidth=0.4,
            label=name,
        )  # fmt: skip
    axes.set(xlim=extent[:2], ylim=extent[2:])
    legend(figure, points, "Points: training rows; ground: the predicted class")

    def show(frame: int) -> None:
        image.set_data(made[frame])
        caption.set(text=data.told.words(frame))

    return Scene(figure, (image, *points, caption), show, len(made))


def path_scene(data: PathFrames) -> Scene:
    """A way on the curve of the loss, or on its contours; below, what the picture does not show."""
    paths = data.paths
    (way,) = paths.paths
    width = WIDTH + 0.2  # so that the legend is one line
    notes = _notes(paths, way, int(_LETTERS * width))
    figure = picture(width, _HEIGHT + 0.17 * len(notes))
    axes = figure.subplots()
    one = len(paths.axes) == 1
    prepare(axes, paths.names[0], paths.y_label if one else paths.names[1])
    caption = _caption(axes, data.told)
    if one:
        handles = _curve(axes, data)
        x, y = way.points[:, 0], way.losses
    else:
        handles = _contours(axes, data)
        x, y = way.points[:, 0], way.points[:, 1]
    low, high = _far(axes.get_xlim()), _far(axes.get_ylim())
    x, y = np.clip(x, *low), np.clip(np.nan_to_num(y, nan=high[1], posinf=high[1]), *high)
    dots: dict[str, Any] = {"marker": "o", "markersize": 3} if len(x) <= 200 else {}
    (line,) = axes.plot(x, y, color=RED, linewidth=1.1, label="steps", zorder=3, **dots)
    handles += [line]
    handles += axes.plot(
        x[:1], y[:1], linestyle="none", marker="s", markersize=7, color=BLUE, label="start"
    )
    (head,) = axes.plot(
        x[-1:], y[-1:], linestyle="none", marker="o", markersize=8, color=BLACK, label="now",
        zorder=5,
    )  # fmt: skip
    legend(figure, [*handles, head], "\n".join(notes))

    def show(frame: int) -> None:
        shown = data.shown[frame]
        line.set_data(x[:shown], y[:shown])
        head.set_data(x[shown - 1 : shown], y[shown - 1 : shown])
        caption.set_text(data.told.words(frame))

    return Scene(figure, (line, head, caption), show, len(data.shown))


def _notes(paths: Paths, way: Path, letters: int) -> list[str]:
    """What lies off the plane, and where the surface misses the way's loss, in lines."""
    said = list(paths.notes)
    if paths.plane is not None:
        known = way.off[np.isfinite(way.off)]
        said.append(
            f"Of this way it holds {way.share:.1%}; no record is further off it than "
            f"{known.max(initial=0):.2g}."
        )
    if paths.warning:
        said.append(paths.warning)
    return [text(line, letters) for line in wrap(" ".join(said), letters)]


def _curve(axes: Axes, data: PathFrames) -> list[Artist]:
    paths = data.paths
    (x,) = paths.axes
    shown = paths.surface[np.isfinite(paths.surface)]
    low, high = shown.min(), shown.max()
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(low - 0.08 * (high - low), high + 0.04 * (high - low))
    return [*axes.plot(x, paths.surface, color=GREY, linewidth=1.6, label=paths.y_label)]


def _contours(axes: Axes, data: PathFrames) -> list[Artist]:
    x, y = data.paths.axes
    surface = data.paths.surface
    low, high = np.nanmin(surface), np.nanmax(surface)
    if high > low:
        # Close together near the least loss, where the ways end.
        levels = low + (high - low) * np.linspace(0.02, 1, 14) ** 2
        axes.contour(x, y, surface, levels=levels, colors=GREY, linewidths=0.7)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    return [Line2D([], [], color=GREY, linewidth=1.2, label="equal loss")]


def losses_scene(data: LossFrames) -> Scene:
    """Loss curves, uncovered from the left."""
    names = [curve.setting.counted_label for curve in data.curves.curves]
    figure = picture(WIDTH, 3.7 + legend_height([*names, "", ""]))
    draw_losses(figure, data.curves)
    axes = figure.axes[0]
    caption = _caption(axes, data.told)

    def show(frame: int) -> None:
        caption.set_text(data.told.words(frame))

    def uncovered(frame: int) -> float:
        last = frame == len(data.x) - 1
        return float(axes.get_xlim()[1] if last else data.x[frame])  # marks of ends reach beyond

    return Scene(figure, (caption,), show, len(data.x), axes, uncovered)


def _caption(axes: Axes, told: Told) -> Any:
    """Words above the axes, with room for the longest of them."""
    last = told.words(len(told.steps) - 1)
    return axes.set_title(
        text(last), fontsize=NORMAL if len(last) < 60 else SMALL, fontfamily=families(), loc="left"
    )
