"""The report, read back as a page: what it says is true, and it asks for nothing outside."""

import ast
import base64
import hashlib
import io
import json
import re
import shlex
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pages import read_page
from PIL import Image
from torch import nn, optim

import downslope as ds
from downslope.cli import main
from downslope.errors import InputError, StudyError
from downslope.explain.findings import VERDICTS, Evidence
from downslope.ranking import rank
from downslope.views import page_parts
from downslope.views.report import About, write_report
from downslope.views.reporting import findings as told
from downslope.views.reporting.code import python_of
from downslope.views.reporting.figures import CANDIDATES, indexed_png
from downslope.views.reporting.markup import tag, text

DIABETES = Path(__file__).parents[1] / "examples" / "data" / "diabetes.csv"
BOWL = ds.Problem.from_function(lambda x, y: x**2 + 10 * y**2, start={"x": 3.0, "y": 1.0})


def descend(*given, **settings):
    return ds.descend(*given, progress=False, **settings)


def net():
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.fixture(scope="module")
def sines():
    """Runs of two optimizers with three seeds, of which some diverge."""
    X = torch.linspace(-1, 1, 40).reshape(-1, 1)
    problem = ds.Problem.from_model(net, X, torch.sin(3 * X), loss=nn.MSELoss())
    grids = [
        ds.Grid(optim.SGD, lr=[0.01, 0.1, 1e4]),
        ds.Grid(optim.Adam, lr=[0.01], betas=[(0.9, 0.999), (0.5, 0.9)]),
    ]
    return descend(problem, grids, seed=range(3), epochs=6, batch_size=10, validation=0.2)


@pytest.fixture(scope="module")
def page(sines, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert sines.report(path) == path
    return path.read_text(encoding="utf-8")


def words_of(html):
    """What is read of a page, blanks made alike."""
    return " ".join(read_page(html).one("body").text.split())


def asks_outside(html):
    """Every address in a page that is neither in the page nor in itself."""
    root = read_page(html)
    addresses = [
        value
        for element in root.all()
        for name, value in element.attributes.items()
        if name in ("src", "href", "srcset", "action", "poster", "data", "background", "style")
    ]
    styles = " ".join(style.text for style in root.all("style"))
    addresses += re.findall(r"url\((.*?)\)", styles) + re.findall(r"@import\s+(\S+)", styles)
    return [a for a in addresses if not (a or "").startswith(("data:", "#"))]


class TestPage:
    def test_it_is_sound_and_asks_for_nothing_outside(self, page):
        root = read_page(page)
        assert root.one("html").attributes["lang"] == "en"
        assert asks_outside(page) == []
        assert root.one("link").attributes == {"rel": "icon", "href": "data:,"}
        ids = [e.attributes["id"] for e in root.all() if "id" in e.attributes]
        assert len(ids) == len({*ids}) > 5
        targets = [a.attributes["href"] for a in root.one("nav").all("a")]
        assert targets and {t.removeprefix("#") for t in targets} <= {*ids}
        assert next(h.name for h in root.all() if h.name in ("h1", "h2")) == "h1"
        for element in root.all():
            assert not any(name.startswith("on") for name in element.attributes)

    def test_its_own_policy_lets_in_its_own_style_and_script_alone(self, page):
        root = read_page(page)
        policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for name in ("script", "style"):
            inside = root.one(name).text.encode()
            hashed = base64.b64encode(hashlib.sha256(inside).digest()).decode()
            assert f"{name}-src 'sha256-{hashed}'" in policy

    def test_figures_are_pictures_with_words(self, page):
        figures = read_page(page).all("figure")
        assert len(figures) >= 3
        for figure in figures:
            picture = figure.one("img")
            assert len(picture.attributes["alt"]) > 30
            assert len(figure.one("figcaption").text) > 30
            kind, _, content = picture.attributes["src"].partition(";base64,")
            assert kind == "data:image/png"
            with Image.open(io.BytesIO(base64.b64decode(content))) as image:
                assert image.mode == "P" and image.width > 600
                shown = int(picture.attributes["width"]), int(picture.attributes["height"])
                assert shown[0] / shown[1] == pytest.approx(image.width / image.height, rel=0.01)

    def test_a_palette_changes_nothing_that_is_seen(self, sines):
        figure = sines.plot.losses()
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=150, facecolor="white")
        true = np.asarray(Image.open(drawn).convert("RGB"), dtype=float)
        made = indexed_png(figure)
        off = np.abs(np.asarray(Image.open(io.BytesIO(made)).convert("RGB"), dtype=float) - true)
        assert off.mean() < 1 and np.percentile(off, 99.5) < 24
        assert len(made) < 0.6 * len(drawn.getvalue())

    def test_the_table_holds_the_numbers_of_the_runs(self, sines, page):
        table = read_page(page).one("table", **{"class": "sortable"})
        heads = [th.text for th in table.one("thead").all("th")]
        rows = [tr.all("td") for tr in table.one("tbody").all("tr")]
        where = {name: heads.index(name) for name in ("optimizer", "lr", "betas", "diverged seeds")}
        assert heads[:3] == ["place", "median final validation loss", "optimizer"]
        lowest = heads.index("lowest")
        assert heads[lowest + 1] == "highest"
        wanted = (
            sines.table.with_columns(betas=pl.col("betas").cast(pl.List(pl.String)).list.join(", "))
            .with_columns(final=pl.col("final_validation_loss").fill_nan(None))
            .group_by("optimizer", "lr", "betas")
            .agg(
                median=pl.col("final").median(),
                low=pl.col("final").min(),
                high=pl.col("final").max(),
                bad=(pl.col("status") == "diverged").sum(),
            )
        )
        assert len(rows) == wanted.height == 5
        for row in rows:
            lr = float(row[where["lr"]].attributes["data-value"])
            betas = row[where["betas"]].text.strip("()") or None
            found = wanted.filter(
                (pl.col("optimizer") == row[where["optimizer"]].text)
                & (pl.col("lr") == lr)
                & pl.col("betas").eq_missing(betas)
            )
            one = found.row(0, named=True)
            assert row[where["diverged seeds"]].text == f"{one['bad']} of 3"
            cells = [row[1], *row[lowest : lowest + 2]]
            if one["median"] is None:
                assert [c.text for c in cells] == ["–"] * 3
                assert not any("data-value" in c.attributes for c in cells)
                continue
            values = [float(c.attributes["data-value"]) for c in cells]
            assert values == pytest.approx([one["median"], one["low"], one["high"]], rel=1e-6)
            assert [float(c.text) for c in cells] == pytest.approx(values, rel=1e-3)
        diverged = [int(row[where["diverged seeds"]].attributes["data-value"]) for row in rows]
        assert diverged == sorted(diverged)

    def test_the_result_is_told(self, sines, page):
        words = words_of(page)
        best = sines.best
        assert f"The best is run {best.number} ({best.row['optimizer']}" in words
        assert "SGD: 3 of 9 runs diverged, at rate 1e+04 (none up to 0.1)" in words
        assert "15 runs of 5 settings" in words
        for name in ("Sequential(", "mean squared error", "6 epochs", "float32"):
            assert name in words

    def test_findings_and_counts(self, page):
        words = words_of(page)
        assert "The best run: run" in words and "An instructive failure: run" in words
        assert "All 15 runs were explained." in words
        table = next(t for t in read_page(page).all("table") if "meaning" in t.text)
        assert (
            sum(int(tr.one("td", **{"class": "number"}).text) for tr in table.all("tr")[1:]) == 15
        )

    def test_colours_are_told_apart(self):
        """WCAG 2.2, 1.4.3: text stands out 4.5-fold from its ground, light and dark."""
        css = page_parts.part("report.css")
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
            colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
            for front in ("ink", "faint", "link"):
                for back in ("ground", "raised"):
                    assert contrast(colours[front], colours[back]) >= 4.5, (front, back, block)
            assert contrast(colours["accent"], colours["ground"]) >= 3


def contrast(one, other):
    def luminance(colour):
        parts = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


class TestMarkup:
    @given(st.text())
    def test_text_is_never_markup(self, words):
        element = read_page(tag("p", words, title=words)).one("p")
        assert element.all() == []
        shown = words.replace("\n", "")
        if shown.isprintable():
            assert element.text == words == element.attributes["title"]
        assert all(c.isprintable() or c == "\n" for c in element.text)

    def test_what_turns_the_direction_is_written_out(self):
        assert text("a\u202eb\x00") == "a\\u202eb\\x00"


HOSTILE = "</title><script>alert(1)</script>"


def test_names_out_of_a_table_are_data(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "<script>alert(1)</script>": rng.normal(size=60),
            "价格 ($)": rng.normal(size=60),
            "x" * 60: rng.normal(size=60),
            "city": rng.choice(["<b>Paris</b>", '"><img src=x onerror=alert(1)>', "[red]"], 60),
            HOSTILE: ["<i>yes</i>", "no"] * 30,
        }
    )
    problem = ds.Problem.from_table(frame, target=HOSTILE, model="linear")
    path = descend(problem, lr=[0.1, 1.0], epochs=3).report(tmp_path / "r.html", title=HOSTILE)
    html = path.read_text(encoding="utf-8")
    root = read_page(html)
    assert len(root.all("script")) == 1 and "alert" not in root.one("script").text
    assert root.all("b") == root.all("i") == [] and asks_outside(html) == []
    assert {e.name for e in root.all("figure")[0].all()} == {"img", "figcaption", "strong"}
    assert root.one("title").text.startswith(HOSTILE) and root.one("h1").text == HOSTILE
    names = [dt.text for dt in root.all("dt")]
    assert {*frame.columns} <= {*names}
    assert "accuracy" in words_of(html) and "[red]" in words_of(html)


def test_ten_thousand_runs_make_a_small_page(tmp_path):
    momenta = np.linspace(0, 0.99, 100).tolist()
    runs = descend(BOWL, lr=ds.log_range(1e-4, 1, 100), momentum=momenta, steps=50)
    path = runs.report(tmp_path / "r.html")
    assert len(runs) == 10_000 and path.stat().st_size < 500_000
    root = read_page(path.read_text(encoding="utf-8"))
    rows = root.one("table", **{"class": "sortable"}).one("tbody").all("tr")
    assert len(rows) == 200
    words = words_of(path.read_text(encoding="utf-8"))
    assert "The best 200 of 10,000 settings." in words
    assert "24 of the 10,000 runs, evenly spread, were explained." in words
    best = [one.best_run for one in rank(runs)[:200]]
    assert [int(tr.all("td")[-1].text) for tr in rows] == best


class TestUnusualRuns:
    def test_all_diverged(self, tmp_path):
        runs = descend(BOWL, lr=[10.0, 20.0], steps=100)
        assert runs.diverged.all()
        words = words_of(runs.report(tmp_path / "r.html").read_text(encoding="utf-8"))
        assert "No run has a finite loss at its end" in words and "try lower rates" in words
        assert "The best is" not in words and "The best run" not in words

    def test_interrupted(self, tmp_path):
        runs = descend(BOWL, lr=[0.01, 0.02, 0.03], steps=10)
        part = replace(runs[:2], interrupted=1)
        words = words_of(part.report(tmp_path / "r.html").read_text(encoding="utf-8"))
        assert "It was interrupted: 1 run is missing here." in words
        assert "lr=[0.01, 0.02, 0.03]" in words  # what was asked for
        assert "Verdicts were not counted, since not all runs are there." in words

    def test_loaded_without_its_problem(self, sines, tmp_path):
        sines.save(tmp_path / "study")
        path = ds.load(tmp_path / "study").report(tmp_path / "r.html", study="study")
        html = path.read_text(encoding="utf-8")
        words = words_of(html)
        assert "These runs are reported without their problem" in words
        assert "problem = ..." in words and asks_outside(html) == []
        assert f"The best is run {sines.best.number}" in words

    def test_a_watched_loop(self, tmp_path):
        model = nn.Linear(2, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        with ds.watch(model, optimizer) as watch:
            for _ in range(12):
                optimizer.zero_grad()
                loss = watch.loss(nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)))
                loss.backward()
                optimizer.step()
        html = watch.runs.report(tmp_path / "r.html").read_text(encoding="utf-8")
        words = words_of(html)
        assert "12 updates of a loop were seen." in words and "loop again, inside" in words
        assert read_page(html).all("table")[0].attributes.get("class") != "sortable"
        watch.save(tmp_path / "study")
        done = downslope("report", "study", cwd=tmp_path)
        assert "report on 1 run written to" in done.stdout
        html = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
        assert watch.findings[0].sentence in read_page(html).text
        assert read_page(html).all("figure")[0].text.startswith("The loop.")
        (tmp_path / "study" / "findings.json").write_text("{")
        assert "damaged" in downslope("report", "study", cwd=tmp_path, status=2).stderr

    def test_losses_that_are_maximised_are_told_as_they_are(self, tmp_path):
        hill = ds.Problem.from_function(lambda x: 3 - (x - 1) ** 2, start=2.0)
        runs = descend(hill, lr=[0.1, 0.01], steps=200, maximize=True)
        html = runs.report(tmp_path / "r.html").read_text(encoding="utf-8")
        table = read_page(html).one("table", **{"class": "sortable"})
        place = [th.text for th in table.all("th")].index("final training loss")
        values = [float(tr.all("td")[place].attributes["data-value"]) for tr in table.all("tr")[1:]]
        assert values == pytest.approx(sorted(runs.table["final_loss"], reverse=True), rel=1e-6)

    def test_a_figure_that_cannot_be_made_is_said(self, tmp_path, monkeypatch):
        def fails(self, *given, **settings):
            raise InputError("there is no ink")

        monkeypatch.setattr("downslope.views.figures.Plots.losses", fails)
        runs = descend(BOWL, lr=[0.01, 0.02], steps=5)
        html = runs.report(tmp_path / "r.html").read_text(encoding="utf-8")
        assert "Loss curves is not drawn: there is no ink." in words_of(html)
        assert [f.one("strong").text for f in read_page(html).all("figure")] == [
            "Loss against rate. "
        ]


class TestWhatIsTold:
    """Small things that would be false, or that nobody could use."""

    @staticmethod
    def html(runs, tmp_path):
        return runs.report(tmp_path / "r.html").read_text(encoding="utf-8")

    def test_starts_are_settings_and_no_seeds(self, tmp_path):
        starts = [{"x": 1.0, "y": 0.0}, {"x": 3.0, "y": 0.0}]
        runs = descend(BOWL, optim.SGD, lr=0.01, start=starts, steps=20, seed=range(2))
        assert [(one.settings["start"], one.seeds) for one in rank(runs)] == [(0, 2), (1, 2)]
        words = words_of(self.html(runs, tmp_path))
        assert "4 runs of 2 settings. The best is run 0 (SGD, lr 0.01, start 0, seed 0)" in words
        median = float(runs.table["final_loss"][0])
        assert f"best setting is SGD, lr 0.01, start 0: {median:.4g}" in words

    def test_no_clipping_has_one_name(self, tmp_path):
        runs = descend(BOWL, optim.SGD, lr=0.01, clip_norm=[1.0, None], steps=20)
        words = words_of(self.html(runs, tmp_path))
        assert "run 1 (SGD, lr 0.01, clip norm none, seed 0)" in words
        assert "clip norm 1 and none" in words and "inf" not in words.split()
        assert "longest gradient" not in words

    def test_a_map_is_of_the_best_runs_optimizer(self, tmp_path):
        """Each optimizer varies another number: none of both holds for all runs."""
        grids = [ds.Grid(optim.SGD, momentum=[0.0, 0.5, 0.9], dampening=[0.0, 0.1]),
                 ds.Grid(optim.Adam, weight_decay=[0.0, 0.1])]  # fmt: skip
        runs = descend(BOWL, grids, lr=[0.01, 0.02], steps=20)
        words = words_of(self.html(runs, tmp_path))
        assert runs.best.row["optimizer"] == "SGD" and "is not drawn" not in words
        assert "How the runs of SGD ended, as colour, over lr and momentum." in words
        lone = descend(BOWL, [ds.Grid(optim.SGD), grids[1]], lr=[0.01, 0.02], steps=20)
        words = words_of(self.html(lone, tmp_path))
        assert "Map of settings" not in words and "is not drawn" not in words

    def test_what_could_not_be_measured_is_no_evidence(self):
        there, nowhere = Evidence(2.0, "at the start"), Evidence(np.nan, "never")
        evidence = {"curvature": there, "share": nowhere}
        finding = ds.Finding(0, "diverged", "unknown", "It left.", evidence, "likely")
        assert told.told("the run", None, finding).evidence == (("curvature", "2", "at the start"),)

    def test_an_optimizer_of_the_users_own_is_told_by_what_was_changed(self, tmp_path):
        class Mine(optim.SGD):
            pass

        runs = descend(BOWL, Mine, lr=[0.01, 0.02], momentum=0.5, steps=3)
        assert "Mine2 runs: momentum 0.5; lr 0.01 and 0.02; seed 0" in words_of(
            self.html(runs, tmp_path)
        )
        assert "ds.descend(problem, Mine, momentum=0.5, lr=[0.01, 0.02], steps=3)" in " ".join(
            python_of(runs).split()
        )


def test_verdicts_are_not_counted_where_that_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(told, "LARGEST", 1)
    html = descend(BOWL, lr=[0.01, 0.02], steps=5).report(tmp_path / "r.html")
    words = words_of(html.read_text(encoding="utf-8"))
    assert "to explain many of these runs takes too long" in words and "The best run: run" in words


def test_every_verdict_has_its_words():
    assert {*told.VERDICT_WORDS} == {*VERDICTS}
    assert len({c.title for c in CANDIDATES}) == len(CANDIDATES)


REPRODUCED = {
    "one": dict(optimizer=optim.SGD, lr=0.01, steps=5),
    "product": dict(optimizer=optim.SGD, momentum=[0.9, 0.0], lr=[0.01, 0.1], seed=[1, 5], steps=5),
    "grids": dict(
        optimizer=[
            ds.Grid(optim.SGD, lr=ds.log_range(1e-3, 0.1, 5)),
            ds.Grid("adam", betas=[(0.9, 0.99), (0.5, 0.9)], lr=[0.1, 0.2]),
            ds.Grid("adamw", weight_decay=0.3),
        ],
        seed=range(3, 6),
        steps=5,
        start=[{"x": 1.0, "y": 2.0}, {"x": 2.0, "y": 0.0}],
    ),
    "patterns": dict(
        optimizer=optim.SGD, lr={"x": [0.1, 0.01], "*": 0.02}, nesterov=True, momentum=0.9, steps=5
    ),
    "options": dict(
        optimizer=optim.SGD, lr=[0.1, 0.01], clip_norm=[None, 0.5], steps=9, every=3, patience=2,
        tolerance=1e-9, divergence=None, dtype=torch.float64, engine="looped",
        keep=("loss", "parameters"),
        schedule=ds.Schedule(optim.lr_scheduler.StepLR, per="step", step_size=3),
    ),
    "rows": dict(
        optimizer=ds.Grid.of(optim.SGD, [{"lr": 0.1, "momentum": 0.3}, {"lr": 0.2, "momentum": 0.0},
                                         {"lr": 0.1, "momentum": 0.0}]),
        seed=range(2), steps=5,
    ),
}  # fmt: skip


class TestProgram:
    @pytest.mark.parametrize("name", REPRODUCED)
    def test_it_makes_the_very_same_runs(self, name):
        runs = descend(BOWL, **REPRODUCED[name])
        code = python_of(runs)
        assert code.count("problem = ...") == 1
        names = {"problem": BOWL}
        exec(code.replace("problem = ...", ""), names)
        made = names["runs"]
        assert np.array_equal(made.loss, runs.loss, equal_nan=True)
        assert made.table.drop("engine").equals(runs.table.drop("engine"), null_equal=True)

    def test_a_table_s_program_needs_nothing_else(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "d.csv").write_bytes(DIABETES.read_bytes())
        problem = ds.Problem.from_table(
            tmp_path / "d.csv", "progression", "mlp:3", loss="huber", split_seed=3, test=0.1
        )
        runs = descend(problem, "adam", lr=[0.01, 0.1], epochs=3, batch_size=16, seed=range(2))
        names = {}
        code = python_of(runs)
        assert str(tmp_path) not in code
        exec(code, names)
        assert np.array_equal(names["runs"].loss, runs.loss)

    def test_what_cannot_be_written_is_said(self):
        class Mine(optim.SGD):
            pass

        X = torch.linspace(0, 1, 20).reshape(-1, 1)
        problem = ds.Problem.from_model(nn.Linear(1, 1), X, X, loss=nn.MSELoss())
        schedule = ds.Schedule(optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch)
        runs = descend(problem, Mine, lr=[0.1, 0.2], epochs=2, schedule=schedule, validation=(X, X))
        code = python_of(runs)
        ast.parse(code)
        for words in (
            "# Mine is a class of your own: import it first.",
            "# schedule= was made of functions",
            "# validation= was a pair of tensors.",
            "# A model of your own on 20 rows of data",
        ):
            assert words in code
        rates = np.random.default_rng(0).uniform(0, 0.1, 150).tolist()
        code = python_of(descend(BOWL, lr=rates, steps=1))
        ast.parse(code)
        assert "# ... stands for 150 values of lr" in code


class TestPaths:
    @pytest.fixture
    def runs(self):
        return descend(BOWL, lr=0.01, steps=3)

    def test_wrong_ones_are_a_sentence(self, runs, tmp_path):
        (tmp_path / "folder.html").mkdir()
        for path, words in (
            (tmp_path, "is a folder"),
            (tmp_path / "folder.html", "is a folder"),
            (tmp_path / "report.pdf", "must end in .html"),
            (tmp_path / "none" / "report.html", "there is no folder"),
            (None, "a report's path must be a string or a Path, got NoneType"),
        ):
            with pytest.raises(InputError, match=words):
                runs.report(path)
        with pytest.raises(InputError, match="no runs"):
            runs[:0].report(tmp_path / "report.html")
        assert [p.name for p in tmp_path.iterdir()] == ["folder.html"]

    def test_it_is_written_whole_or_not_at_all(self, runs, tmp_path, monkeypatch):
        path = runs.report(tmp_path / "report.html")
        before = path.read_bytes()

        def full(*given):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(StudyError, match="No space left"):
            runs.report(path, title="another")
        assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_given_figures_and_findings_are_shown(self, runs, tmp_path):
        about = About(figures=(("Mine", "A picture.", matplotlib.figure.Figure()),), findings=())
        html = write_report(runs, tmp_path / "r.html", about).read_text(encoding="utf-8")
        assert read_page(html).all("figure")[0].text == "Mine. A picture."


def downslope(*words, cwd, status=0):
    """The command line in this process; what it printed, and said on standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["downslope", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    assert code == status, out.getvalue() + err.getvalue()
    return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "my table.csv").write_bytes(DIABETES.read_bytes())
    words = ["my table.csv", "--target", "progression", "--lr=0.001,0.01", "--seeds", "2"]
    done = downslope("fit", *words, "--epochs", 5, "--set", "SGD.momentum=0,0.9",
                     "--set", "Adam.eps=1e-7", "--out", "s", cwd=folder)  # fmt: skip
    assert "s/report.html" in done.stdout
    return folder


class TestCommandLine:
    def test_fit_writes_a_report_whose_command_makes_the_same_runs(self, folder):
        html = (folder / "s" / "report.html").read_text(encoding="utf-8")
        command = shlex.split(read_page(html).one("pre", **{"class": "wrapped"}).text)
        assert command[:3] == ["downslope", "fit", "my table.csv"]
        assert command[command.index("--out") + 1] == "s"
        command[command.index("--out") + 1] = "again"
        downslope(*command[1:], cwd=folder)
        one, other = ds.load(folder / "s"), ds.load(folder / "again")
        assert one.table.equals(other.table) and len(one) == 12

    def test_no_path_or_name_of_the_machine_is_told(self, folder):
        downslope("report", "s", "--out", "shell.html", cwd=folder)
        problem = ds.Problem.from_table(folder / "my table.csv", "progression")
        descend(problem, lr=0.01, epochs=1).report(folder / "python.html")
        for html in folder.glob("*.html"):
            page = html.read_text(encoding="utf-8")
            assert str(folder) not in page and str(Path.home()) + "/" not in page
            assert socket.gethostname() not in words_of(page)

    def test_report_reads_the_study_with_its_table(self, folder):
        said = json.loads(downslope("report", "s", "--json", cwd=folder).stdout)
        path = folder / said["report"]
        assert said["without_problem"] is None and said["bytes"] == path.stat().st_size
        html = path.read_text(encoding="utf-8")
        words = words_of(html)
        assert "plain fit's" in words and "total_cholesterol" in words
        assert "downslope fit 'my table.csv' --target progression" in words
        assert "ds.Problem.from_table('my table.csv', target='progression'" in words

    def test_a_table_that_has_moved(self, folder, tmp_path):
        moved = tmp_path / "moved.csv"
        source = folder / "my table.csv"
        source.rename(moved)
        try:
            said = json.loads(
                downslope("report", "s", "--out", "r.html", "--json", cwd=folder).stdout
            )
            assert "name it with --table" in said["without_problem"]
            html = (folder / "r.html").read_text(encoding="utf-8")
            assert "name it with --table" in words_of(html)
            given = ("--table", moved, "--out", "r.html", "--json")
            said = json.loads(downslope("report", "s", *given, cwd=folder).stdout)
            assert said["without_problem"] is None
        finally:
            moved.rename(source)

    def test_wrong_uses_are_a_sentence(self, folder):
        for words, said in (
            (["none"], "there is no study at 'none'"),
            (["s", "--out", "r.pdf"], "must end in .html"),
            (["s", "--out", "nowhere/r.html"], "there is no folder"),
            (["s", "--table", "none.csv"], "there is no file 'none.csv'"),
        ):
            done = downslope("report", *words, cwd=folder, status=2)
            assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
