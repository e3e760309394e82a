"""Write diabetes.csv, beside this file, from the copy that scikit-learn ships.

Run it from the repository: `python examples/data/export_diabetes.py`.
"""

from pathlib import Path

import polars as pl
from sklearn.datasets import load_diabetes

# scikit-learn's names, and ours where its own say too little.
COLUMNS = {
    "age": "age",
    "sex": "sex",
    "bmi": "bmi",
    "bp": "bp",
    "s1": "total_cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "tch",
    "s5": "ltg",
    "s6": "glucose",
}


def diabetes() -> pl.DataFrame:
    """The table in its original units: 442 patients, ten columns and the target `progression`."""
    source = load_diabetes(scaled=False)
    table = pl.DataFrame(source.data, schema=source.feature_names).rename(COLUMNS)
    table = table.with_columns(progression=source.target)
    whole = [column.name for column in table if (column == column.round()).all()]
    return table.with_columns(pl.col(whole).cast(pl.Int64))


if __name__ == "__main__":
    diabetes().write_csv(Path(__file__).with_name("diabetes.csv"))
