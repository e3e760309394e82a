"""How the demo's chosen model does against the plain linear fit, over 10 splits of the rows.

One split of 442 rows says little: the test rows are 88. This prints every split's root mean
squared error on its test rows, in the target's units, and the median ratio.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from torch import optim

import downslope as ds
from downslope.tablefit import fit_table

TABLE = Path(__file__).parents[1] / "examples" / "data" / "diabetes.csv"
SPLITS = 10


def main() -> None:
    rates = ds.log_range(1e-4, 1, 25)
    grids = [ds.Grid(optim.SGD, lr=rates), ds.Grid(optim.Adam, lr=rates)]
    print("split  chosen run  plain least squares  ratio   (RMSE on the test rows)")
    ratios = []
    for split_seed in range(SPLITS):
        problem = ds.Problem.from_table(TABLE, "progression", "mlp:16", split_seed=split_seed)
        with tempfile.TemporaryDirectory() as folder:
            found = fit_table(
                problem, grids, Path(folder) / "study", batch_size=32, seed=range(4), epochs=100,
                progress=False,
            )  # fmt: skip
        chosen, plain = found.chosen["rmse"], found.plain["rmse"]
        ratios.append(chosen / plain)
        print(f"{split_seed:5}  {chosen:10.2f}  {plain:19.2f}  {ratios[-1]:5.3f}")
    wins = sum(ratio < 1 for ratio in ratios)
    print(f"median ratio {statistics.median(ratios):.3f}; "
          f"the chosen run is better in {wins} of {SPLITS} splits")  # fmt: skip


if __name__ == "__main__":
    main()
