"""Tables: CSV, Parquet or any dataframe to standardised arrays, and the schema to do it again.

`read_table` reads, `split_rows` divides, `fit_schema` learns from the training rows what is to be
done with each column, and the `Schema` does exactly that to any rows:

>>> import polars
>>> table = polars.DataFrame({"rooms": [1, 2, 3, 4], "price": [10.0, 20.0, 30.0, 60.0]})
>>> schema = fit_schema(table, "price", rows=[0, 1, 2])
>>> schema.encode(table).X.ravel().round(3).tolist()
[-1.225, 0.0, 1.225, 2.449]
"""

from .column import Column
from .fit import fit_schema, target_rows
from .read import read_table
from .schema import Encoded, Schema
from .split import Split, split_rows
from .target import Target
from .words import shown

__all__ = [
    "Column",
    "Encoded",
    "Schema",
    "Split",
    "Target",
    "fit_schema",
    "read_table",
    "shown",
    "split_rows",
    "target_rows",
]
