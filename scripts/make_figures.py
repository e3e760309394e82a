"""Make every picture of the documentation again: ``python scripts/make_figures.py [PAGE ...]``.

Each page's own Python blocks are run, as a reader would run them, in an empty folder with the
examples' data; the PNG files that they write go to docs/figures/, under the page's name. So a
picture is what the code above it draws. A PAGE is a path below docs/, such as concepts/rate.md;
without any, all are done.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from docs_pages import DOCS, carry_out, figures_folder, pages


def main() -> None:
    """Run the pages, and keep their pictures."""
    asked = [DOCS / name for name in sys.argv[1:]] or pages()
    for page in asked:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            carry_out(page, Path(name))
            made = sorted(Path(name).glob("*.png"))
            folder = figures_folder(page)
            if folder.exists():
                shutil.rmtree(folder)
            if made:
                folder.mkdir(parents=True)
            for picture in made:
                shutil.copy(picture, folder / picture.name)
        took = time.perf_counter() - began
        print(f"{page.relative_to(DOCS)}: {len(made)} pictures, {took:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
