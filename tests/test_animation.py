"""Moving pictures: which frames are taken, what they hold, and the files that come of them."""

import os
import stat
import sys

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn, optim

import downslope as ds
from downslope.errors import DownslopeError, InputError, StudyError
from downslope.views.animation import write_gif
from downslope.views.data.frames import Told, evenly, fit_frames, loss_frames, path_frames
from downslope.views.data.losses import loss_curves
from downslope.views.drawing.moving import fit_scene, losses_scene, path_scene, pixels

BOTH = ("loss", "parameters")


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


@pytest.fixture(scope="module")
def bowls():
    """x² - 4x + 5 from 7: x - 2 shrinks by 0.8, by -0.4, and grows by -19 a step."""
    problem = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=torch.tensor(7.0).double())
    return descend(problem, lr=[0.1, 0.7, 10.0], steps=30, keep=BOTH)


def line_problem():
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    return ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=x, y=3 * x + 1, loss=nn.MSELoss(),
        start={"w": torch.tensor(-10.0).double(), "b": torch.tensor(-20.0).double()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def lines():
    return descend(line_problem(), lr=[0.1, 0.5, 5.0], steps=120, every="step", keep=BOTH)


class TestEvenly:
    def test_equal_changes_between_frames(self):
        way = np.cumsum(np.linspace(5, 1, 1001))[:, None]
        chosen = evenly(way, 11)
        gaps = np.diff(way[chosen, 0])
        assert len(chosen) == 11 and gaps.max() - gaps.min() < 10

    def test_a_decay_is_taken_early(self):
        # From 1 to e^-10: of 11 frames, equal in change, all but the last two lie where more than
        # an eighth is left, before step 208.
        way = np.exp(-np.arange(1001) / 100)[:, None]
        chosen = evenly(way, 11)
        np.testing.assert_allclose(way[chosen[:-1], 0], np.linspace(1, 0, 11)[:-1], atol=0.005)
        assert (chosen[:9] < 208).all() and chosen[-1] == 1000

    def test_a_jump_takes_one_frame(self):
        way = np.concatenate([np.zeros(1), 1e6 + np.arange(100.0)])[:, None]
        chosen = evenly(way, 12)
        assert len(chosen) == 12 and chosen[1] == 1
        assert np.diff(chosen[1:]).max() <= 11

    def test_what_nobody_sees_is_left_out(self):
        way = 0.5 ** np.arange(40.0)[:, None]
        assert evenly(way, 100).tolist() == list(range(40))
        seen = evenly(way, 100, least=1e-3)
        assert seen[-1] == 39 and 9 <= len(seen) <= 12

    def test_a_way_that_stands_still(self):
        assert evenly(np.ones((500, 3)), 10, least=1e-3).tolist() == [0, 499]
        assert evenly(np.ones((1, 3)), 10).tolist() == [0]

    @given(
        st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(2, 50)
    )  # fmt: skip
    def test_first_and_last_in_order_and_never_too_many(self, way, count):
        chosen = evenly(np.array(way)[:, None], count)
        assert chosen[0] == 0 and chosen[-1] == len(way) - 1
        assert (np.diff(chosen) > 0).all() and len(chosen) <= max(count, 2)


class TestFrames:
    def test_a_fit_follows_the_recorded_parameters(self, lines):
        data = fit_frames(lines, 0, 10)
        w, b = (lines[0].path[name].numpy() for name in ("w", "b"))
        records = np.searchsorted(lines[0].steps, data.told.steps)
        expected = w[records, None] * data.ground.at + b[records, None]
        np.testing.assert_allclose(data.made, expected, rtol=1e-12)
        np.testing.assert_array_equal(data.told.losses, lines.loss[0, records])
        assert data.told.steps[0] == 0 and data.told.steps[-1] == data.told.total == 120

    def test_predictions_move_evenly(self, lines):
        made = fit_frames(lines, 0, 12).made
        moved = np.linalg.norm(np.diff(made, axis=0), axis=1)
        assert moved[1:-1].max() < 2.5 * moved[1:-1].min()

    def test_a_table_moves_in_its_own_units(self):
        frame = pl.DataFrame({"rooms": np.arange(40.0) + 10, "price": 100 * np.arange(40.0) + 5})
        runs = descend(ds.Problem.from_table(frame, target="price"), lr=0.1, epochs=200, keep=BOTH)
        data = fit_frames(runs, 0, 20)
        assert data.ground.names == ("rooms", "price")
        np.testing.assert_allclose(data.made[-1], 100 * (data.ground.at - 10) + 5, atol=2)

    def test_several_features_are_shown_against_the_truth(self):
        frame = pl.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) ** 2})
        frame = frame.with_columns(price=2 * pl.col("a") + pl.col("b"))
        runs = descend(ds.Problem.from_table(frame, target="price"), lr=0.3, epochs=150, keep=BOTH)
        data = fit_frames(runs, 0, 10)
        assert data.ground.kind == "numbers"
        np.testing.assert_allclose(data.made[-1], data.ground.x, atol=20)

    @pytest.mark.parametrize("outputs", [1, 2])
    def test_regions_of_a_classifier(self, outputs):
        # Class 1 where x0 is above 0: of a linear model, half of the plane.
        x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        kind = (x[:, 0] > 0).long()
        loss, y = nn.CrossEntropyLoss(), kind
        if outputs == 1:
            loss, y = nn.BCEWithLogitsLoss(), kind.float()[:, None]
        problem = ds.Problem.from_model(lambda: nn.Linear(2, outputs), x, y, loss=loss)
        data = fit_frames(descend(problem, lr=5.0, steps=200, every=5, keep=BOTH), 0, 10)
        assert data.ground.kind == "regions" and data.ground.of_class.sum() == int(kind.sum())
        truth = np.broadcast_to(data.ground.at[0] > 0, data.made[-1].shape)
        assert (data.made[-1] == truth).mean() > 0.97

    def test_probabilities_are_told_apart_at_a_half(self):
        """The sigmoid of 4 x0 - 2 is above a half where x0 is; of 0, it would be everywhere."""
        x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)).double()
        model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[4.0, 0.0]]))
            model[0].bias.fill_(-2.0)
        y = (x[:, :1] > 0.5).double()
        problem = ds.Problem.from_model(model, x, y, loss=nn.BCELoss())
        data = fit_frames(descend(problem, lr=1e-9, steps=2, keep=BOTH), 0, 3)
        assert data.ground.kind == "regions" and data.ground.classes == ("0", "1")
        truth = np.broadcast_to(data.ground.at[0] > 0.5, data.made[0].shape)
        np.testing.assert_array_equal(data.made[0], truth)

    def test_whole_numbers_of_one_output_are_numbers(self):
        x = torch.linspace(-1, 1, 7).reshape(-1, 1)
        y = torch.arange(7)[:, None]
        problem = ds.Problem.from_model(
            lambda: nn.Linear(1, 1), x, y,
            objective=lambda model, x, y: ((model(x) - y) ** 2).mean(),
        )  # fmt: skip
        data = fit_frames(descend(problem, lr=0.1, steps=5, keep=BOTH), 0, 3)
        assert data.ground.kind == "curve" and data.ground.y.tolist() == list(range(7))

    def test_regions_of_a_table_are_in_its_own_units(self):
        frame = pl.DataFrame({"rooms": np.arange(40.0), "age": np.arange(40.0)[::-1] ** 2})
        frame = frame.with_columns(kind=pl.when(pl.col("rooms") < 20).then(pl.lit("small"))
                                   .otherwise(pl.lit("large")))  # fmt: skip
        runs = descend(ds.Problem.from_table(frame, target="kind"), lr=1.0, epochs=30, keep=BOTH)
        ground = fit_frames(runs, 0, 3).ground
        assert ground.names == ("rooms", "age") and set(ground.classes) == {"small", "large"}
        np.testing.assert_allclose(ground.x, ground.x.round(), atol=1e-4)
        np.testing.assert_allclose(ground.y, (39 - ground.x) ** 2, rtol=1e-4)
        for axis, values in zip(ground.at, (ground.x, ground.y), strict=True):
            assert axis[0] < values.min() < values.max() < axis[-1] < 1.2 * values.max()

    def test_what_is_no_plane_of_classes_is_told(self):
        x = torch.rand(90, 2, generator=torch.Generator().manual_seed(0))
        problem = ds.Problem.from_model(
            lambda: nn.Linear(2, 9), x, torch.arange(90) % 9, loss=nn.CrossEntropyLoss()
        )
        runs = descend(problem, lr=0.1, steps=2, keep=BOTH)
        with pytest.raises(InputError, match=r"up to 7 classes, got 2 features and 9 classes"):
            fit_frames(runs, 0, 3)

    def test_a_path_of_the_closed_form(self, bowls):
        data = path_frames(bowls, 0, 100)
        (way,) = data.paths.paths
        np.testing.assert_allclose(way.points[:, 0], 2 + 5 * 0.8 ** np.arange(31))
        assert data.shown[0] == 1 and data.shown[-1] == 31
        assert data.told.steps.tolist() == (data.shown - 1).tolist()

    def test_a_run_that_leaves_stands_still_where_nobody_sees_it(self, bowls):
        data = path_frames(bowls, 2, 100)
        assert len(data.shown) <= 4
        assert data.told.words(len(data.shown) - 1).endswith(
            f"diverged at step {bowls.first_bad_step[2]}"
        )
        assert data.paths.axes[0].min() < 2 < data.paths.axes[0].max() < 30

    def test_a_diverged_fit_stretches_nothing(self, lines):
        data = fit_frames(lines, 2, 50)
        low, high = data.limits
        assert np.abs(data.made).max() > 1e3 and -11 < low < high < 13  # y from -2 to 4

    def test_loss_curves_move_as_the_pen_does(self, lines):
        data = loss_frames(lines[:2], None, 30)
        assert data.told.several and data.told.total == 120
        np.testing.assert_array_equal(data.x, data.told.steps)
        lowest = np.minimum(*lines.loss[:2])[data.told.steps]
        np.testing.assert_allclose(data.told.losses, lowest)

    def test_words(self):
        told = Told(np.array([0, 1200]), np.array([2.0, 0.01234]), 5000)
        assert told.words(1) == "step 1,200 of 5,000, loss 0.01234"
        bad = Told(np.array([0, 7]), np.array([2.0, np.nan]), 5000, first_bad_step=8, several=False)
        assert bad.words(1) == "step 7 of 5,000: diverged at step 8"


class TestPixels:
    def test_only_what_moves_is_drawn_anew_and_it_is_the_same_as_drawn_at_once(self, lines):
        """The fast way against matplotlib's own drawing of the whole figure."""
        scene = fit_scene(fit_frames(lines, 0, 5))
        frames = list(pixels(scene))
        assert len(frames) == scene.frames and frames[0].shape == frames[-1].shape
        assert (frames[0] != frames[2]).any()
        for artist in scene.moving:
            artist.set_animated(False)
        scene.show(2)
        scene.figure.canvas.draw()
        whole = np.asarray(scene.figure.canvas.buffer_rgba())[..., :3].astype(int)
        assert (np.abs(whole - frames[2]) > 8).mean() < 0.002

    def test_losses_are_uncovered_from_the_left(self, lines):
        scene = losses_scene(loss_frames(lines[:2], None, 8))
        frames = list(pixels(scene))
        box = scene.axes.bbox
        height = frames[0].shape[0]
        inside = (slice(int(height - box.y1), int(height - box.y0)),
                  slice(int(box.x0), int(box.x1)))  # fmt: skip
        inked = [(f[inside].astype(int).max(-1) - f[inside].min(-1) > 60).sum() for f in frames]
        assert inked == sorted(inked) and inked[0] < 0.2 * inked[-1]

    def test_paths_of_one_and_two_numbers(self, bowls, lines):
        for runs in (bowls, lines):
            frames = list(pixels(path_scene(path_frames(runs, 0, 6))))
            assert (frames[0] != frames[-1]).any()

    def test_a_plane_says_what_lies_off_it(self):
        x = torch.linspace(-1, 1, 40).reshape(-1, 1)
        net = lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))  # noqa: E731
        problem = ds.Problem.from_model(net, x, torch.sin(4 * x), loss=nn.MSELoss())
        runs = descend(problem, lr=0.3, epochs=300, every=10, keep=BOTH)
        data = path_frames(runs, 0, 9)
        (legend,) = path_scene(data).figure.legends
        said = " ".join(legend.get_title().get_text().split())
        way, warning = data.paths.paths[0], data.paths.warning
        assert said.startswith("A plane in the space of 25 numbers") and warning
        assert f"Of this way it holds {way.share:.1%}; no record is further off it than" in said
        assert f"than {np.nanmax(way.off):.2g}. {warning}" in said

    def test_nothing_global_is_touched(self, lines, tmp_path):
        before = dict(matplotlib.rcParams)
        with matplotlib.rc_context({"figure.facecolor": "black"}):
            lines.animate(tmp_path / "a.gif", frames=2)
        with Image.open(tmp_path / "a.gif") as read:
            assert read.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert dict(matplotlib.rcParams) == before


class TestFiles:
    def read(self, path):
        with Image.open(path) as picture:
            times = []
            for frame in range(picture.n_frames):
                picture.seek(frame)
                times.append(picture.info["duration"])
            return picture.n_frames, times, picture.info.get("loop")

    def test_a_gif_repeats_and_holds_its_end(self, lines, tmp_path):
        made = lines.animate(tmp_path / "fit.gif", frames=20, seconds=4)
        assert made == tmp_path / "fit.gif" and made.stat().st_size < 1_000_000
        count, times, loop = self.read(made)
        assert 10 < count <= 20 and loop == 0
        assert times[-1] == 1000 and sum(times[:-1]) == pytest.approx(4000, abs=400)
        assert os.listdir(tmp_path) == ["fit.gif"]

    def test_few_frames_do_not_last_for_ever(self, bowls, tmp_path):
        bowls.animate(tmp_path / "a.gif", "path", run=1, seconds=60)
        count, times, _ = self.read(tmp_path / "a.gif")
        assert count < 15 and max(times[:-1]) == 500

    def test_colours_are_those_drawn(self, tmp_path):
        picture = np.full((40, 60, 3), 255, dtype=np.uint8)
        picture[:20, :20] = (224, 0, 0)
        write_gif(tmp_path / "a.gif", [picture, picture[:, ::-1]], 0.1)
        with Image.open(tmp_path / "a.gif") as read:
            seen = np.asarray(read.convert("RGB")).astype(int)
        assert (seen[-1, -1] == 255).all() and np.abs(seen[0, 0] - (224, 0, 0)).max() < 9

    def test_what_is_usual(self, bowls, lines, tmp_path, monkeypatch):
        from downslope.views import animation

        drawn = []
        for name in ("fit_scene", "path_scene", "losses_scene"):
            real = getattr(animation, name)
            spied = lambda data, name=name, real=real: drawn.append(name) or real(data)  # noqa: E731
            monkeypatch.setattr(animation, name, spied)
        three = ds.Problem.from_function(lambda p: (p**2).sum(), start=[1.0, 2.0, 3.0])
        for runs in (bowls, lines, descend(three, lr=0.1, steps=2)):
            runs.animate(tmp_path / "a.gif", frames=2)
        assert drawn == ["path_scene", "fit_scene", "losses_scene"]

    @pytest.mark.parametrize(
        ("asked", "words"),
        [({"what": "fits"}, "did you mean 'fit'"), ({"frames": 1}, "frames must be"),
         ({"frames": 2.5}, "whole number"), ({"seconds": -1}, "seconds must be"),
         ({"run": 7}, "there is no run 7"), ({"run": "best"}, "a number of the table")],
    )  # fmt: skip
    def test_wrong_use_is_told(self, bowls, tmp_path, asked, words):
        with pytest.raises(InputError, match=words):
            bowls.animate(tmp_path / "a.gif", **asked)
        assert not os.listdir(tmp_path)

    def test_what_was_not_kept_is_told_with_the_code(self, tmp_path):
        runs = descend(line_problem(), lr=0.1, steps=3)
        for what in ("fit", "path"):
            with pytest.raises(InputError, match=r'keep=\("loss", "parameters"\).*ds\.descend'):
                runs.animate(tmp_path / "a.gif", what)
        runs.animate(tmp_path / "a.gif", frames=np.int64(3), seconds=np.float64(0.5))
        runs.animate(tmp_path / "b.gif", "losses", frames=3, seconds=0.5)
        assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()

    def test_what_cannot_be_drawn_is_told(self, bowls, tmp_path):
        with pytest.raises(InputError, match="no data"):
            bowls.animate(tmp_path / "a.gif", "fit")
        x = torch.randn(40, 1)
        norm = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        runs = descend(
            ds.Problem.from_model(norm, x, x, loss=nn.MSELoss()), lr=0.01, steps=3, keep=BOTH
        )
        with pytest.raises(InputError, match="keeps state of its own"):
            runs.animate(tmp_path / "a.gif", "fit")
        runs.save(tmp_path / "study")
        with pytest.raises(InputError, match="without their problem"):
            ds.load(tmp_path / "study").animate(tmp_path / "a.gif", "fit")

    def test_a_path_that_cannot_be_written_is_told(self, bowls, tmp_path, monkeypatch):
        with pytest.raises(InputError, match=r"there is no folder '.*none' to write 'a\.gif' into"):
            bowls.animate(tmp_path / "none" / "a.gif")
        with pytest.raises(InputError, match="a picture's path must be a string or a Path"):
            bowls.animate(None)
        (tmp_path / "a.gif").mkdir()
        with pytest.raises(InputError, match="is a folder: give the picture a file's name"):
            bowls.animate(tmp_path / "a.gif")
        with pytest.raises(InputError, match=r"must end in \.gif or \.mp4, got"):
            bowls.animate(tmp_path / "a.avi")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(InputError, match=r"to write \.mp4, ffmpeg must be installed; name a"):
            bowls.animate(tmp_path / "a.mp4")

    def test_a_failure_leaves_nothing_behind(self, bowls, tmp_path, monkeypatch):
        (tmp_path / "old.gif").write_text("old")

        def full(*given, **named):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(StudyError, match=r"cannot write .*old\.gif: No space left"):
            bowls.animate(tmp_path / "old.gif", frames=3)
        assert (tmp_path / "old.gif").read_text() == "old" and len(os.listdir(tmp_path)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a stand-in for ffmpeg in sh")
class TestMp4:
    def stand_in(self, tmp_path, monkeypatch, body):
        """An `ffmpeg` that writes down what it is given."""
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "ffmpeg"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def test_frames_are_piped_to_ffmpeg(self, bowls, tmp_path, monkeypatch):
        arguments = tmp_path / "arguments"
        self.stand_in(
            tmp_path, monkeypatch, f'echo "$@" > {arguments}\nfor last; do :; done\ncat > "$last"'
        )
        bowls.animate(tmp_path / "a.mp4", "path", run=1, frames=5, seconds=2)
        said = arguments.read_text().split()
        width, height = map(int, said[said.index("-s") + 1].split("x"))
        assert width % 2 == height % 2 == 0 and said[said.index("-r") + 1] == "2.5"
        assert said[said.index("-pix_fmt") + 1] == "rgb24" and "libx264" in said
        size = (tmp_path / "a.mp4").stat().st_size
        frames = size / (width * height * 3)
        assert frames == int(frames) == 5 + 2  # the last is held for a second more

    def test_what_ffmpeg_says_is_told(self, bowls, tmp_path, monkeypatch):
        self.stand_in(tmp_path, monkeypatch, "echo 'Unknown encoder libx264' >&2; exit 1")
        with pytest.raises(DownslopeError, match=r"ffmpeg could not write a.*Unknown encoder"):
            bowls.animate(tmp_path / "a.mp4", "path", frames=5)
        assert os.listdir(tmp_path) == ["bin"]


def test_hostile_names_and_many_runs_are_drawn(tmp_path):
    names = ("价格 $x_1$ " + "long " * 12, "target $ price {")
    frame = pl.DataFrame({names[0]: np.arange(30.0), names[1]: 2 * np.arange(30.0)})
    runs = descend(
        ds.Problem.from_table(frame, target=names[1]), [optim.SGD, optim.Adam],
        lr=list(ds.log_range(1e-3, 1e3, 10)), epochs=6, keep=BOTH,
    )  # fmt: skip
    assert runs.diverged.any() and len(loss_curves(runs).others) > 5
    for what in ("fit", "losses"):
        assert runs.animate(tmp_path / f"{what}.gif", what, frames=3).stat().st_size > 1000
