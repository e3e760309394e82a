"""``python -m downslope``."""

from downslope.cli import main

main()
