"""Make every picture of the documentation again: ``python scripts/make_figures.py [PAGE ...]``.

Each page's own Python blocks are run, as a reader would run them, in an empty folder with the
examples' data; the pictures that they write go to docs/figures/, under the page's name. So a
picture is what the code above it draws. The gallery's examples are run likewise; theirs go to
docs/figures/gallery/. A PAGE is a path below docs/, such as concepts/rate.md, or gallery/line for
an example; without any, all are done. Large pictures are kept in 256 colours.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from docs_pages import DOCS, carry_out, drawn, figures_folder, pages
from PIL import Image

from downslope.gallery import list_examples, run_example

GALLERY = "gallery/"
LARGE = 60_000
"""Bytes from which on a PNG is kept in 256 colours: nobody sees it, and the repository is small."""


def draw(asked: str, folder: Path) -> None:
    """Run a page's code, or an example, so that its pictures lie in that folder."""
    if asked.startswith(GALLERY):
        with redirect_stdout(io.StringIO()):
            run_example(asked.removeprefix(GALLERY), folder)
    else:
        carry_out(DOCS / asked, folder)


def keep(picture: Path, where: Path) -> None:
    """Copy a picture; of a large PNG its colours are reduced."""
    if picture.suffix == ".png" and picture.stat().st_size > LARGE:
        with Image.open(picture) as whole:
            whole.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                where, optimize=True, dpi=whole.info.get("dpi")
            )
    else:
        shutil.copy(picture, where)


def main() -> None:
    """Draw what was asked for, and keep the pictures."""
    examples = [GALLERY + name for name, _ in list_examples()]
    for asked in sys.argv[1:] or [*(str(page.relative_to(DOCS)) for page in pages()), *examples]:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            draw(asked, Path(name))
            made = drawn(Path(name))
            folder = figures_folder(DOCS / asked)
            if folder.exists():
                shutil.rmtree(folder)
            if made:
                folder.mkdir(parents=True)
            for picture in made:
                keep(picture, folder / picture.name)
        took = time.perf_counter() - began
        print(f"{asked}: {len(made)} pictures, {took:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
