"""Run the demo and put what it prints and draws into the README."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from make_figures import keep

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run it, copy the figure, replace the block between the markers."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"^DEMO := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    shown = "downslope fit " + " ".join(words)
    with tempfile.TemporaryDirectory() as folder:
        words[words.index("--out") + 1] = f"{folder}/demo"
        command = [sys.executable, "-m", "downslope", "fit", *words]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        keep(Path(folder, "demo", "figure.png"), ROOT / "docs" / "demo.png")
        printed = done.stdout.replace(folder + "/", "")
    block = f"<!-- demo:begin -->\n```text\n$ {shown}\n{printed}```\n<!-- demo:end -->"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pattern = r"<!-- demo:begin -->.*<!-- demo:end -->"
    readme = re.sub(pattern, lambda _: block, readme, flags=re.DOTALL)
    (ROOT / "README.md").write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
