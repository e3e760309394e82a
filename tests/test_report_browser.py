"""The report in a real browser: it asks for nothing, says nothing on the console, and sorts."""

import os
import shutil
from itertools import pairwise

import pytest
import torch
from torch import nn, optim

import downslope as ds

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium: run scripts/install_chromium.sh"
)

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    X = torch.linspace(-1, 1, 30).reshape(-1, 1)
    problem = ds.Problem.from_model(lambda: nn.Linear(1, 1), X, 2 * X, loss=nn.MSELoss())
    grids = [
        ds.Grid(optim.SGD, lr=[0.01, 1e9, 0.5], momentum=[0, 0.9]),
        ds.Grid(optim.Adam, lr=[0.01, 1e-9]),
    ]
    runs = ds.descend(problem, grids, epochs=5, seed=range(2), progress=False)
    folder = tmp_path_factory.mktemp("report")
    return runs.report(folder / "report.html", title="<script>alert(1)</script>")


@pytest.fixture(scope="module")
def browser():
    # Chromium's own sandbox does not work for root.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def opened(browser, report, **settings):
    """The page of a report, and what it asked for and said."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    return page, asked, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_from_disk_without_a_request_or_a_word(browser, report, width, scheme, tmp_path):
    page, asked, said = opened(
        browser, report, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.width])")
    assert sizes and all(loaded and own > 0 and shown <= width for loaded, own, shown in sizes)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    card = page.evaluate("getComputedStyle(document.querySelector('img')).backgroundColor")
    assert card == "rgb(255, 255, 255)"
    # Nothing lies over anything else: parts of the page follow each other downwards.
    boxes = page.evaluate(
        "[...document.querySelectorAll('main > *, section > *')].map(e => "
        "[e.parentElement.tagName, e.getBoundingClientRect().top, "
        "e.getBoundingClientRect().bottom])"
    )
    main = [box for box in boxes if box[0] == "MAIN"]
    assert len(main) > 3
    assert all(above[2] <= below[1] + 1 for above, below in pairwise(main))
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 20_000
    page.context.close()


def column(page, heading):
    """A column's cells as they stand, and the heading's state."""
    return page.evaluate(
        """heading => {
            const table = document.querySelector("table.sortable");
            const heads = [...table.tHead.rows[0].cells];
            const place = heads.findIndex(h => h.textContent === heading);
            return {
                cells: [...table.tBodies[0].rows].map(row => row.cells[place].textContent),
                states: heads.map(h => h.getAttribute("aria-sort")),
                sorted: heads[place].getAttribute("aria-sort"),
            };
        }""",
        heading,
    )


def test_the_table_is_sorted_by_clicks_and_keys(browser, report):
    page, _, said = opened(browser, report, viewport={"width": 1280, "height": 900})
    before = column(page, "lr")["cells"]
    assert len(before) == 8
    loss = "median final training loss"

    def numbers(found):
        return [float(cell) for cell in found["cells"] if cell != "–"]

    page.get_by_role("button", name="lr", exact=True).click()
    rising = column(page, "lr")
    assert numbers(rising) == sorted(map(float, before)) and rising["sorted"] == "ascending"
    assert sum(state is not None for state in rising["states"]) == 1
    page.get_by_role("button", name="lr", exact=True).click()
    falling = column(page, "lr")
    assert numbers(falling) == sorted(map(float, before), reverse=True)
    assert falling["sorted"] == "descending"

    button = page.get_by_role("button", name=loss, exact=True)
    for key, turned in (("Enter", False), ("Space", True)):
        button.focus()
        page.keyboard.press(key)
        found = column(page, loss)
        assert numbers(found) == sorted(numbers(found), reverse=turned)
        lacking = [place for place, cell in enumerate(found["cells"]) if cell == "–"]
        assert lacking == [6, 7]  # at the end, whichever way the others go
    page.get_by_role("button", name="optimizer", exact=True).click()
    assert column(page, "optimizer")["cells"] == ["Adam"] * 2 + ["SGD"] * 6
    page.get_by_role("button", name="momentum", exact=True).click()
    assert column(page, "momentum")["cells"] == ["0"] * 3 + ["0.9"] * 3 + [""] * 2
    page.get_by_role("button", name="place", exact=True).click()
    assert column(page, "lr")["cells"] == before
    assert said == []
    page.context.close()


def test_it_reads_without_javascript(browser, report):
    page, _, said = opened(browser, report, java_script_enabled=False)
    assert page.get_by_role("row").count() > 8 and page.get_by_role("button").count() == 0
    assert page.get_by_role("heading", level=1).text_content() == "<script>alert(1)</script>"
    assert said == []
    page.context.close()


def test_it_prints(browser, report):
    page, _, _ = opened(browser, report, color_scheme="dark")
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.pdf()[:5] == b"%PDF-"
    page.context.close()
