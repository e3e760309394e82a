"""Runs as moving pictures, written as GIF or MP4."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from downslope.errors import DownslopeError, InputError, nearest
from downslope.folder import new_file, write_whole
from downslope.run import Run
from downslope.runs import Runs
from downslope.views.data.chosen import places_of
from downslope.views.data.frames import fit_frames, loss_frames, path_frames
from downslope.views.data.predicting import moves_as_fit
from downslope.views.drawing.moving import (
    Pixels,
    Scene,
    fit_scene,
    losses_scene,
    path_scene,
    pixels,
)
from downslope.views.drawing.style import own_style

What = Literal["fit", "path", "losses"]

_HOLD = 1.0
"""Seconds for which the last frame stays."""

_SLOWEST = 0.5
"""Seconds a frame at most: a few frames do not stand for as long as many would take."""

_FASTEST = 0.02
"""Seconds a frame at least: browsers slow down what is faster."""

_COLOURS = 96


def animate(
    runs: Runs,
    path: str | Path,
    what: What | None = None,
    run: int | Run | None = None,
    frames: int = 100,
    seconds: float = 8.0,
) -> Path:
    """Write a moving picture of some runs: a prediction, a path or loss curves on their way.

    Its frames are spread evenly over what changes, not over the steps. In each stand its step and
    its loss. It repeats for ever, and holds the last frame for a second. It is written whole or not
    at all.

    Args:
        path: where to; the ending says whether as ``.gif``, or as ``.mp4`` by ffmpeg.
        what: "fit" (the prediction beside the data, or a classifier's regions), "path" (over the
            loss of one number or two, or on a plane of more) or "losses". By default, where the
            parameters were kept, "fit" if there is one feature (two of a classifier), else "path"
            if there are one or two parameters; else "losses".
        run: which; its number in the table, or a `Run`. By default the best, and for "losses" all.
        frames: how many at most: what nobody would see change is left out.
        seconds: how long they take together, at most.

    Returns:
        The path.

    Raises:
        InputError: if the path cannot be a picture's, the records hold too little (a fit and a path
            need ``keep=("loss", "parameters")``), or ffmpeg is not there.
        StudyError: if the file cannot be written.
    """
    target, write = _writer(path)
    asked: Any = what
    if asked is not None and asked not in get_args(What):
        known = get_args(What)
        hint = nearest(str(asked), known)
        raise InputError(f"what must be one of {', '.join(known)}, got {asked!r}{hint}")
    for name, value, least in (("frames", frames, 2), ("seconds", seconds, 0.1)):
        whole = name != "frames" or isinstance(value, int | np.integer)
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(
            value, bool
        )
        if not (whole and number and least <= value <= 10_000):
            kind = "a whole number" if name == "frames" else "a number"
            raise InputError(f"{name} must be {kind} from {least} to 10,000, got {value!r}")
    if not len(runs):
        raise InputError("there are no runs to animate")
    (place,) = places_of(runs, run if run is None else [run], most=1)
    with own_style():
        scene = _scene(runs, what or _usual(runs), place, run is None, frames)
    each = float(np.clip(seconds / scene.frames, _FASTEST, _SLOWEST))
    write_whole(target, partial(write, pictures=pixels(scene), each=each))
    return target


def _scene(runs: Runs, what: What, place: int, of_all: bool, count: int) -> Scene:
    if what == "fit":
        return fit_scene(fit_frames(runs, place, count))
    if what == "path":
        return path_scene(path_frames(runs, place, count))
    return losses_scene(loss_frames(runs, None if of_all else place, count))


def _usual(runs: Runs) -> What:
    """What is most telling of these runs."""
    if runs.plan is None or runs.path is None:
        return "losses"
    if moves_as_fit(runs.plan.problem):
        return "fit"
    numbers = sum(value[0].numel() for value in runs.parameters.values())
    return "path" if numbers <= 2 else "losses"


# -- files -----------------------------------------------------------------------------------------

Write = Callable[..., None]


def _writer(path: str | Path) -> tuple[Path, Write]:
    """Where to write, and how, by the file's ending; whatever is wrong with either is said before
    anything is drawn."""
    writers: dict[str, Write] = {".gif": write_gif, ".mp4": write_mp4}
    target = new_file(path, "picture", tuple(writers))
    ending = target.suffix.lower()
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError("to write .mp4, ffmpeg must be installed; name a .gif instead")
    return target, writers[ending]


def write_gif(path: Path, pictures: Iterable[Pixels], each: float) -> None:
    """A GIF that repeats for ever; all frames share one palette, so that nothing flickers.

    Args:
        pictures: the frames.
        each: seconds for which a frame stays; the last stays `_HOLD`.
    """
    frames = [Image.fromarray(one) for one in pictures]
    palette = _palette([frames[0], frames[len(frames) // 2], frames[-1]])
    shared = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    ends = np.round(100 * each * np.arange(len(shared) + 1)).astype(int)  # GIF counts in 10 ms
    durations = (10 * np.diff(ends)).tolist()
    durations[-1] = int(1000 * _HOLD)
    shared[0].save(
        path, format="GIF", save_all=True, append_images=shared[1:], duration=durations, loop=0,
        optimize=False, disposal=1,
    )  # fmt: skip


def _palette(some: Sequence[Image.Image]) -> Image.Image:
    """Colours that serve all frames."""
    width, height = some[0].size
    together = Image.new("RGB", (width, height * len(some)))
    for place, frame in enumerate(some):
        together.paste(frame, (0, place * height))
    found = together.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    colours = np.array((found.getpalette() or [])[: 3 * _COLOURS]).reshape(-1, 3)
    colours[colours.min(1) > 247] = 255  # the ground is to stay white
    found.putpalette(colours.ravel().tolist())
    return found


def write_mp4(path: Path, pictures: Iterable[Pixels], each: float) -> None:
    """An MP4 that players and browsers take (H.264, 4:2:0), made by ffmpeg.

    Raises:
        DownslopeError: if ffmpeg fails, with what it said.
    """
    process: subprocess.Popen[bytes] | None = None
    last: Pixels | None = None
    try:
        for one in pictures:
            last = one[: one.shape[0] // 2 * 2, : one.shape[1] // 2 * 2]  # 4:2:0 needs even sides
            if process is None:
                process = _ffmpeg(path, last.shape[1], last.shape[0], each)
            _feed(process, last)
        assert process is not None and last is not None
        for _ in range(round(_HOLD / each)):
            _feed(process, last)
    except BrokenPipeError:
        pass  # it has ended by itself, and says below why
    except BaseException:
        if process is not None:
            process.kill()
            process.communicate()
        raise
    said = process.communicate()[1] if process is not None else b""
    if process is None or process.returncode:
        words = " ".join(said.decode(errors="replace").split())[-300:]
        raise DownslopeError(f"ffmpeg could not write {path.stem}: {words or 'it said nothing'}")


def _feed(process: subprocess.Popen[bytes], picture: Pixels) -> None:
    assert process.stdin is not None
    process.stdin.write(np.ascontiguousarray(picture).tobytes())


def _ffmpeg(path: Path, width: int, height: int, each: float) -> subprocess.Popen[bytes]:
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1 / each}"]
    made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"]
    return subprocess.Popen(
        ["ffmpeg", "-y", "-loglevel", "error", *given, "-i", "-", *made, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
