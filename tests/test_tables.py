"""Tables: read exactly, encoded as pandas and plain numpy do it, the same again from JSON."""

import ast
import datetime
import json
import math
import string
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope import tables
from downslope.errors import TableError
from downslope.tables import (
    Schema,
    fit_schema,
    read_table,
    shown,
    split_rows,
    target_rows,
)
from downslope.tables.delimited import _split_plain, _split_quoted, read_csv
from downslope.tables.values import moments


@pytest.fixture
def file(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def homes():
    """Every kind of column, with missing values; row 5 has no price."""
    return pl.DataFrame(
        {
            "rooms": [1.0, 2.0, None, 5.0, 8.0, 2.0],
            "city": ["Nice", "Lyon", "Nice", None, "Paris", "Lyon"],
            "garden": [True, False, True, None, True, False],
            "floor": [3, 3, 3, 3, 3, 3],
            "price": [10.0, 20.0, 30.0, 60.0, None, 25.0],
        }
    )


def columns_of(text):
    return read_csv(text.encode(), "'x.csv'", ()).to_dict(as_series=False)


# Reading


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_line_ends_and_byte_order_mark(file, delimiter, start, end):
    lines = ["name|rooms|garden", "Zoë|2|TRUE", "NA|2.5|false", "", "Bob|?|True", ""]
    table = read_table(file(start + end.join(lines).replace("|", delimiter)))
    assert table.to_dict(as_series=False) == {
        "name": ["Zoë", None, "Bob"],
        "rooms": [2.0, 2.5, None],
        "garden": [True, False, True],
    }


def test_delimiter_within_a_quoted_name_does_not_count():
    assert columns_of('"a;b;c",d\n1,2\n') == {"a;b;c": [1.0], "d": [2.0]}


def test_every_missing_token_and_nothing_else():
    table = columns_of('a,b\n,1\nNA,\nN/A,NaN\nnan,null\nNone,?\n" NA ",3\nnone,4\n')
    assert table == {"a": [None] * 6 + ["none"], "b": [1.0, None, None, None, None, 3.0, 4.0]}


def test_quotes_line_breaks_and_old_line_ends():
    assert columns_of('a,"b\nc"\n"x ""y""\n, z",1\n') == {"a": ['x "y"\n, z'], "b\nc": [1.0]}
    assert columns_of("a,b\r1,2\r3,4\r") == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_blank_lines_are_missing_values_in_a_table_of_one_column():
    assert columns_of("a\n1\n\n3\n\n\n") == {"a": [1.0, None, 3.0]}
    assert columns_of("a,b\n1,2\n\n   \n3,4\n\n") == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_one_value_that_is_no_number_makes_a_column_text():
    assert columns_of("a,b\n1,true\n2x,1\n") == {"a": ["1", "2x"], "b": ["true", "1"]}


def test_columns_left_as_text(file):
    path = file("code,n\n01,1\n1.0,2\n")
    assert read_table(path)["code"].to_list() == [1.0, 1.0]
    assert read_table(path, as_text=["code"])["code"].to_list() == ["01", "1.0"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_exactly(values):
    assert columns_of("a,b\n" + "".join(f"{x!r},0\n" for x in values))["a"] == values


CELLS = st.text(st.sampled_from("ab1. -\u00e9\t;\v\f\x1c\u2028\0"), max_size=4)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_fast_and_exact_splitting_agree(rows):
    body = "x,y,z\n" + "".join(",".join(row) + "\n" for row in rows)
    plain = _split_plain(body.encode(), ",", "")
    exact = _split_quoted(body.encode(), ",", "")

    # Leading spaces are cut off by one of them already, by the typing of columns in any case.
    def cut(frame):
        return frame.select(pl.all().str.strip_chars(" ").fill_null("")).rows()

    assert plain[0] == exact[0]
    assert cut(plain[1]) == cut(exact[1])


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name.strip(" \t") == name and name.strip()
)


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True))
def test_any_names_survive_a_file_and_are_shown_safely(names):
    # Polars's writer is the independent side; the exact reader must undo it.
    frame = pl.DataFrame({name: [float(i), 2.0, 3.5] for i, name in enumerate(names)})
    raw = frame.write_csv(quote_style="always").encode()
    assert read_csv(raw, "", ()).equals(frame)
    *features, target = names
    schema = fit_schema(frame, target, task="regression")
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    for line in schema.describe():
        assert line.isprintable()
        assert len(line) <= 100
    assert [column.name for column in schema.columns] == features


def test_dataframes_of_any_library(homes):
    arrow = homes.to_arrow()
    for frame in (homes, homes.lazy(), arrow, homes.to_pandas()):
        table = read_table(frame)
        assert table.columns == homes.columns
        schema = fit_schema(frame, "price")
        assert schema == fit_schema(homes, "price")
        np.testing.assert_array_equal(schema.encode(frame).X, schema.encode(homes).X)


def test_parquet(tmp_path, homes):
    homes.write_parquet(tmp_path / "homes[1]*.PQ")
    assert read_table(tmp_path / "homes[1]*.PQ").equals(homes)
    assert read_table(str(tmp_path / "homes[1]*.PQ")).equals(homes)


FILE_ERRORS = {
    "empty": ("", "is empty"),
    "spaces only": (" \n\n", "is empty"),
    "mark only": ("\ufeff", "is empty"),
    "header only": ("a,b\n", "has a header but no rows"),
    "quoted header only": ('"a",b\n', "has a header but no rows"),
    "too few": ("a,b\n1,2\n3\n", "line 3 of .* has 1 field; expected 2"),
    "too many": ("a,b\r\n\r\n1,2\r\n3,4,5\r\n", "line 4 of .* has 3 fields; expected 2"),
    "too few, quoted": ('a,b\n"x\ny\nz",2\n3\n', "line 5 of .* has 1 field; expected 2"),
    "too many, quoted": ('a,b\n"x\r\ny","2",\n', "line 2 of .* has 3 fields; expected 2"),
    "open quote": ('a,b\n1,2\n"x,2\n3,4\n', "line 3 of .* wrongly quoted"),
    "after quote": ('a,b\n1,2\n"x"y,2\n', "line 3 of .* wrongly quoted"),
    "same name": ("a,b,a\n1,2,3\n", "more than one column named 'a'"),
    "same after cutting spaces": ("a, a\n1,2\n", "more than one column named 'a'"),
    "no name": ("a,,b\n1,2,3\n", "column 2 of .* has no name"),
    "not UTF-8": (b"a,b\n1,\xe9\n", r"not UTF-8: the byte 0xe9 at position 6 \(the first is 0\)"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "not UTF-8: the byte 0xff at position 0"),
}


@pytest.mark.parametrize("case", FILE_ERRORS)
def test_bad_csv_is_one_sentence(file, case):
    content, message = FILE_ERRORS[case]
    with pytest.raises(TableError, match=message) as caught:
        read_table(file(content))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_counts_in_the_position_of_a_bad_byte(file):
    with pytest.raises(TableError, match="byte 0xff at position 7"):
        read_table(file(b"\xef\xbb\xbfa,b\n\xff,1\n"))


def test_paths_that_are_no_tables(file, tmp_path):
    file("a,b\n1,2\n", "houses.csv")
    with pytest.raises(TableError, match=r"no file .*house.csv' \(did you mean 'houses.csv'\?\)"):
        read_table(tmp_path / "house.csv")
    with pytest.raises(TableError, match="no file"):
        read_table(tmp_path / "nowhere" / "house.csv")
    with pytest.raises(TableError, match=r"cannot be read|no file"):
        read_table(tmp_path / "houses.csv" / "house.csv")
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match=r"suffix '\.xlsx'; a table is one of \.csv"):
        read_table(file("a", "houses.xlsx"))
    with pytest.raises(TableError, match="without a suffix"):
        read_table(file("a", "houses"))


def test_damaged_parquet(file, tmp_path, homes):
    for content in (b"PAR1 and then nothing of the kind PAR1", b"x" * 50):
        with pytest.raises(TableError, match="not a Parquet file, or a damaged one"):
            read_table(file(content, "damaged.parquet"))
    homes.write_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(TableError, match="not a Parquet file, or a damaged one"):
        read_table(file(whole[:-20], "cut.parquet"))
    with pytest.raises(TableError, match="is empty"):
        read_table(file(b"", "empty.parquet"))
    with pytest.raises(TableError, match="no rows"):
        homes.clear().write_parquet(tmp_path / "none.parquet")
        read_table(tmp_path / "none.parquet")


@pytest.mark.skipif(
    int(pl.__version__.split(".")[0]) < 2,
    reason="older polars silently keeps the last of the columns that share a name",
)
def test_parquet_with_duplicate_names(tmp_path):
    import pyarrow.parquet

    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(TableError, match=r"duplicate column names.*'a'"):
        read_table(tmp_path / "twice.parquet")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"a": [[1], [2]]}), "column 'a' .* holds List"),
        (pl.DataFrame({"a": [{"x": 1}]}), "column 'a' .* holds Struct"),
        (pl.DataFrame({"a": [b"x"]}), "column 'a' .* holds Binary"),
        (pl.DataFrame({"a": [datetime.timedelta(1)]}), "column 'a' .* holds Duration"),
        (pl.DataFrame({"": [1]}), "column 1 of the dataframe has no name"),
        (pl.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
        (pd.DataFrame([[1, 2]], columns=[0, "0"]), "more than one column named '0'"),
        (pa.table([pa.array([1])] * 2, names=["a", "a"]), "more than one column named 'a'"),
        (pd.DataFrame({"b": [1, 2], "a": [1, "x"]}), "column 'a' mixes kinds of values"),
        (np.ones(3), "a table is the path .* got ndarray"),
        ({"a": [1]}, "a table is the path .* got dict"),
        (pd.Series([1]), "a table is the path .* got Series"),
        (None, "a table is the path .* got NoneType"),
    ],
)
def test_bad_dataframes(frame, message):
    with pytest.raises(TableError, match=message):
        read_table(frame)


# Encoding


def test_encoding_against_plain_numpy_and_get_dummies(homes):
    train = [0, 1, 2, 3]
    schema = fit_schema(homes, "price", rows=train)
    assert schema.feature_names == ("rooms", "city=Lyon", "city=Nice", "garden")
    encoded = schema.encode(homes)
    pandas = homes.to_pandas()
    rooms = pandas["rooms"].fillna(pandas["rooms"][train].mean())
    known = pandas["rooms"][train].dropna()
    city = pd.get_dummies(pandas["city"].fillna("Nice"), dtype=float)[["Lyon", "Nice"]]
    expected = np.column_stack(
        [
            (rooms - known.mean()) / known.std(ddof=0),
            city.to_numpy(),
            pandas["garden"].map({True: 1.0, False: 0.0}).fillna(1.0),
        ]
    )
    np.testing.assert_allclose(encoded.X, expected, rtol=1e-14)
    assert encoded.X.dtype == np.float64
    assert encoded.kept.all()
    assert encoded.notes == (
        "column 'rooms': 1 missing value filled with the mean 2.667",
        "column 'city': 1 missing value filled with the most frequent value, 'Nice'",
        "column 'city': unknown values in 1 row ('Paris'), all zeros there",
        "column 'garden': 1 missing value filled with the most frequent value, true",
    )
    price = homes.filter(target_rows(homes, "price"))
    y = np.array([10.0, 20.0, 30.0, 60.0, 25.0])
    standard = schema.encode_target(price)
    np.testing.assert_allclose(standard, (y - y[:4].mean()) / y[:4].std(), rtol=1e-14)
    np.testing.assert_allclose(schema.to_own_units(standard), y, rtol=1e-15)


def test_only_training_rows_are_learnt_from(homes):
    train = [0, 1, 2]
    other = homes.with_columns(
        pl.when(pl.int_range(pl.len()) < 3).then(pl.col("rooms")).otherwise(1e6),
        pl.when(pl.int_range(pl.len()) < 3).then(pl.col("city")).otherwise(pl.lit("Rome")),
        pl.when(pl.int_range(pl.len()) < 3).then(pl.col("price")).otherwise(-7.0),
    )
    assert fit_schema(homes, "price", rows=train) == fit_schema(other, "price", rows=train)


def test_a_row_does_not_depend_on_its_neighbours(homes):
    schema = fit_schema(homes, "price")
    together = schema.encode(homes).X
    for row in range(homes.height):
        assert (together[row] == schema.encode(homes[row]).X).all()


def test_missing_policies(homes):
    features = homes.drop("price")
    schema = fit_schema(homes, "price", missing="drop")
    encoded = schema.encode(features)
    assert encoded.kept.tolist() == [True, True, False, False, True, True]
    assert encoded.X.shape == (4, len(schema.feature_names))
    assert encoded.notes == (
        "column 'city': unknown values in 1 row ('Paris'), all zeros there",
        "2 rows of 6 dropped, lacking a value in 'rooms', 'city' and 'garden'",
    )
    needed = schema.encode(features, require_all_rows=True)
    assert needed.kept.all()
    assert len(needed.notes) == 4
    filling = fit_schema(homes, "price", missing="mean").encode(features)
    np.testing.assert_array_equal(needed.X, filling.X)
    with pytest.raises(TableError, match="no row is left"):
        schema.encode(features[3])

    complete = homes.drop_nulls()
    strict = fit_schema(complete, "price", missing="error")
    with pytest.raises(TableError, match="column 'rooms' has no value in row 3"):
        strict.encode(features)
    with pytest.raises(TableError, match="column 'price' has no value in row 5"):
        fit_schema(homes, "price", missing="error")
    with pytest.raises(TableError, match="column 'rooms' has no value in row 3"):
        fit_schema(homes.drop_nulls("price"), "price", missing="error")


def test_nan_and_null_are_both_missing():
    table = pl.DataFrame({"a": [1.0, math.nan, None, 3.0], "y": [1.0, 2.0, 3.0, math.nan]})
    assert target_rows(table, "y").tolist() == [True, True, True, False]
    column = fit_schema(table.with_columns(y=pl.Series([1, 2, 3, 4])), "y").columns[0]
    assert (column.mean, column.scale, column.missing) == (2.0, 1.0, 2)


def test_constant_columns_are_dropped_and_need_not_come_again(homes):
    schema = fit_schema(homes, "price")
    dropped = schema.columns[3]
    assert (dropped.kind, dropped.note) == ("dropped", "constant: 3")
    assert schema.encode(homes.drop("floor", "price")).notes == schema.encode(homes).notes


def test_many_categories_keep_the_most_frequent():
    # c00 once, c01 twice, ..., c59 sixty times: the last fifty are kept.
    values = [f"c{i:02}" for i in range(60) for _ in range(i + 1)]
    table = pl.DataFrame({"c": values, "y": np.arange(len(values)) * 1.0})
    schema = fit_schema(table, "y")
    (column,) = schema.columns
    assert column.categories == tuple(f"c{i:02}" for i in range(10, 60))
    assert column.fill == "c59"
    assert "50 most frequent of 60" in column.note
    encoded = schema.encode(table)
    assert encoded.X.sum() == sum(range(11, 61))
    assert encoded.notes == (
        "column 'c': rare or unknown values in 55 rows ('c00', 'c01', 'c02', …), all zeros there",
    )


def test_identifiers_are_dropped():
    count = 60
    table = pl.DataFrame(
        {
            "id": [f"n{i}" for i in range(count)],
            "a": range(count),
            "y": [float(i) for i in range(count)],
        }
    )
    schema = fit_schema(table, "y")
    assert schema.columns[0].note == "every row its own value: an identifier?"
    assert schema.feature_names == ("a",)
    few = fit_schema(table[:50], "y")
    assert len(few.feature_names) == 51


def test_a_slip_in_a_column_of_numbers_is_remarked():
    table = pl.DataFrame({"a": ["1", "2", "3k", "4"], "y": [1, 2, 3, 5]})
    assert fit_schema(table, "y").columns[0].note == "mostly numbers, but row 3 holds '3k'"


def test_dates_are_days():
    days = [datetime.date(1970, 1, 2), datetime.date(1970, 1, 4), datetime.date(1970, 1, 6)]
    times = [datetime.datetime(1970, 1, 1, 12), datetime.datetime(1970, 1, 2), None]
    table = pl.DataFrame({"day": days, "time": times, "y": [1, 2, 4]})
    schema = fit_schema(table, "y")
    day, moment = schema.columns
    assert (day.mean, day.kind) == (3.0, "number")
    assert "days since 1970-01-01" in day.note
    assert (moment.mean, moment.scale, moment.missing) == (0.75, 0.25, 1)


@pytest.mark.parametrize("size", [5e-324, 1e-200, 1.0, 1e200, 1.7e308])
def test_moments_of_any_size(size):
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        mean, deviation = moments(np.array([0.0, size, size, size]))
    assert mean == pytest.approx(0.75 * size, rel=1e-15, abs=5e-324)
    assert deviation == pytest.approx(math.sqrt(3) / 4 * size, rel=1e-15, abs=5e-324)


def test_new_rows_of_another_kind(homes):
    schema = fit_schema(homes, "price")
    new = homes.drop("price")[:2]
    cases = {
        "rooms": [
            (["1", "many"], "'rooms' must hold numbers.* row 2 holds 'many'"),
            ([True, False], "'rooms' must hold numbers.* row 1 holds true"),
            ([1.0, math.inf], "'rooms' holds an infinite number in row 2"),
        ],
        "garden": [
            (["true", "yes"], "'garden' must hold true and false.* row 2 holds 'yes'"),
            ([0, 2], "'garden' must hold true and false.* row 2 holds 2"),
        ],
    }
    for name, wrongs in cases.items():
        for values, message in wrongs:
            with pytest.raises(TableError, match=message):
                schema.encode(new.with_columns(pl.Series(name, values)))
    expected = schema.encode(new).X
    same = new.with_columns(rooms=pl.Series(["1", " 2.0"]), garden=pl.Series(["TRUE", "false"]))
    np.testing.assert_array_equal(schema.encode(same).X, expected)
    ones = new.with_columns(rooms=pl.Series([1, 2]), garden=pl.Series([1, 0]))
    np.testing.assert_array_equal(schema.encode(ones).X, expected)
    empty = new.with_columns(pl.lit(None).alias("garden"), pl.lit(None).alias("city"))
    assert len(schema.encode(empty).notes) == 2


def test_a_number_too_far_away_is_not_silently_infinite():
    schema = fit_schema(pl.DataFrame({"a": [0.0, 1e-9, 2e-9], "y": [1, 2, 4]}), "y")
    with pytest.raises(TableError, match="column 'a': the number in row 1 is too far"):
        schema.encode(pl.DataFrame({"a": [1e308]}))


def test_columns_lacking_and_extra(homes):
    schema = fit_schema(homes, "price")
    renamed = homes.rename({"rooms": "Room"})
    with pytest.raises(TableError, match=r"no column 'rooms'.*\(did you mean 'Room'\?\)"):
        schema.encode(renamed)
    noted = schema.encode(homes.with_columns(sea=1)).notes[0]
    assert noted == "ignored, not in the training table: 'sea'"


def test_categories_that_look_like_numbers_keep_their_text(file):
    table = read_table(file("code,y\n01,1\n1,2\nx,4\n01,3\n"))
    schema = fit_schema(table, "y")
    assert schema.text_columns == ("code",)
    new = read_table(file("code\n01\n1\n", "new.csv"), as_text=schema.text_columns)
    assert schema.encode(new).X.tolist() == [[1, 0, 0], [0, 1, 0]]
    # Without that they are numbers, and 1 is all that is left to know of 01.
    assert schema.encode(read_table(file("code\n1\n2\n", "new.csv"))).X.tolist() == [
        [0, 1, 0],
        [0, 0, 0],
    ]


# The target


@pytest.mark.parametrize(
    ("values", "task", "expected", "classes"),
    [
        ([0, 1, 1, 0], None, "classification", ("0", "1")),
        ([0.0, 1.0, None, 0.0], None, "classification", ("0", "1")),
        ([0, 1, 2, 0], None, "regression", ()),
        ([1, 2, 2, 1], None, "regression", ()),
        ([0, 1, 1, 0], "regression", "regression", ()),
        ([10, 9, 2, 9], "classification", "classification", ("2", "9", "10")),
        ([0.5, -1.0, 0.5, 2.0], "classification", "classification", ("-1", "0.5", "2")),
        ([True, False, None, True], None, "classification", ("false", "true")),
        (["b", "a", None, "b"], None, "classification", ("a", "b")),
        (["1", "2", "a", "b"], "classification", "classification", ("1", "2", "a", "b")),
    ],
)
def test_tasks(values, task, expected, classes):
    table = pl.DataFrame({"a": [1, 2, 3, 4], "y": values})
    schema = fit_schema(table, "y", task=task)
    assert (schema.target.task, schema.target.classes) == (expected, classes)
    there = table.filter(target_rows(table, "y"))
    encoded = schema.encode_target(there)
    if expected == "regression":
        assert encoded.dtype == np.float64
        np.testing.assert_allclose(schema.to_own_units(encoded), there["y"], rtol=1e-15)
    else:
        assert encoded.dtype == np.int64
        assert np.unique(encoded).tolist() == list(range(len(classes)))
        names = schema.class_names(encoded)
        texts = there["y"].cast(pl.String).to_list()
        assert [name.removesuffix(".0") for name in names] == [
            text.removesuffix(".0") for text in texts
        ]


def test_classes_outside_the_training_rows_are_known():
    table = pl.DataFrame({"a": [1, 2, 3, 4], "y": ["a", "b", "a", "c"]})
    schema = fit_schema(table, "y", rows=[0, 1, 2])
    assert schema.encode_target(table).tolist() == [0, 1, 0, 2]


TARGET_ERRORS = {
    "text in numbers": (
        ["1", "2", "3k", "4"],
        None,
        "text in a numeric target: 'y' holds '3k' in row 3",
    ),
    "half is text": (
        ["1", "u", "v", "4"],
        None,
        "text in a numeric target: 'y' holds 'u' in row 2",
    ),
    "numbers as text": (["1", "2", "3", "4"], None, "text in a numeric target: every value of 'y'"),
    "text, regression": (["u", "v", "u", "v"], "regression", "text in a numeric target.*row 1"),
    "truth, regression": ([True, False, True, True], "regression", "regression needs numbers"),
    "one class": (["u", "u", None, "u"], None, "'y' is 'u' in every training row"),
    "constant": ([2.5, 2.5, None, 2.5], None, "'y' is 2.5 in every training row"),
    "infinite": ([1.0, math.inf, 2.0, 3.0], None, "'y' holds an infinite number in row 2"),
    "nothing": ([None] * 4, None, "the table has 0 rows with a target; at least 3"),
    "unknown task": ([1, 2, 3, 4], "regresion", r"task is one of.*\(did you mean 'regression'\?\)"),
}


@pytest.mark.parametrize("case", TARGET_ERRORS)
def test_bad_targets(case):
    values, task, message = TARGET_ERRORS[case]
    with pytest.raises(TableError, match=message):
        fit_schema(pl.DataFrame({"a": [1, 2, 3, 4], "y": values}), "y", task=task)


def test_too_many_classes():
    count = 101
    numbers = pl.DataFrame({"a": range(count), "y": range(count)})
    with pytest.raises(TableError, match=r"101 different numbers.*at most 100"):
        fit_schema(numbers, "y", task="classification")
    assert len(fit_schema(numbers[:100], "y", task="classification").target.classes) == 100
    names = numbers.with_columns(y=pl.format("n{}", "y"))
    with pytest.raises(TableError, match="its own value in nearly every row"):
        fit_schema(names, "y")


def test_target_of_new_rows():
    schema = fit_schema(pl.DataFrame({"a": [1, 2, 3], "y": ["u", "v", "u"]}), "y")
    with pytest.raises(TableError, match="unknown class 'w' in row 2; the classes are 'u' and 'v'"):
        schema.encode_target(pl.DataFrame({"y": ["u", "w"]}))
    with pytest.raises(TableError, match="no value in row 2"):
        schema.encode_target(pl.DataFrame({"y": ["u", None]}))
    with pytest.raises(TableError, match="no target column 'y'"):
        schema.encode_target(pl.DataFrame({"x": ["u"]}))
    with pytest.raises(TableError, match="has classes, not units"):
        schema.to_own_units([0.0])
    for wrong in ([2], [-1], [0.5]):
        with pytest.raises(TableError, match="whole numbers from 0 to 1"):
            schema.class_names(wrong)
    assert schema.class_names([[0, 1]]).tolist() == [["u", "v"]]


# What makes a table unusable


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t.rename({"price": "Prices"}), {}, r"'price' \(did you mean 'Prices'\?\)"),
        (lambda t: t[:1], {}, "the table has 1 row with a target; at least 3 are needed"),
        (lambda t: t[3:5], {}, "the table has 1 row with a target; at least 3 are needed"),
        (lambda t: t, {"rows": [0]}, "at least 2 rows with a target; got 1 row"),
        (lambda t: t, {"rows": [0, 4]}, "at least 2 rows with a target; got 1 row"),
        (lambda t: t, {"rows": []}, "at least 2 rows with a target; got 0 rows"),
        (lambda t: t, {"rows": [0, 6]}, "indices from 0 to 5"),
        (lambda t: t, {"rows": [-1, 0]}, "indices from 0 to 5"),
        (lambda t: t, {"rows": [True] * 6}, "row indices; got bool"),
        (lambda t: t, {"missing": "dorp"}, r"missing is one of.*\(did you mean 'drop'\?\)"),
        (lambda t: t.select("price"), {}, "no feature column is left beside 'price'"),
        (lambda t: t.select("floor", "price"), {}, r"no feature .* 'floor' \(constant: 3\)"),
        (lambda t: t.with_columns(sea=None), {}, "'sea' holds nothing but missing values"),
        (lambda t: t.with_columns(sea=math.nan), {}, "'sea' holds nothing but missing values"),
        (lambda t: t[[2, 2, 0, 1]], {"rows": [0, 1]}, "'rooms' holds nothing .* 2 training rows"),
        (
            lambda t: t.with_columns(rooms=-math.inf),
            {},
            "'rooms' holds an infinite number in row 1",
        ),
    ],
)
def test_unusable_tables(homes, change, arguments, message):
    table = change(homes)
    if "training rows" in message:
        table = table.with_columns(price=pl.Series([1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(TableError, match=message) as caught:
        fit_schema(table, "price", **arguments)
    assert "\n" not in str(caught.value)


# The schema as JSON and as words

NUMBERS = st.one_of(st.none(), st.floats(-1e100, 1e100))
WORDS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
ROWS = st.tuples(NUMBERS, WORDS, st.one_of(st.none(), st.booleans()), st.floats(-1e9, 1e9))


@settings(deadline=None)
@given(st.lists(ROWS, min_size=3, max_size=12), NAMES, st.sampled_from(["mean", "drop"]))
def test_json_gives_the_same_bits_again(rows, name, missing):
    names = [name, f"{name}\n[bold]", f"{name}'\"{{}}", f"{name}\u202e"]
    types = [pl.Float64, pl.String, pl.Boolean, pl.Float64]
    table = pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")
    try:
        schema = fit_schema(table, names[-1], task="regression", missing=missing)
        encoded = schema.encode(table)
    except TableError:
        return
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    twin = again.encode(table)
    assert twin.X.tobytes() == encoded.X.tobytes()
    assert (twin.kept == encoded.kept).all()
    assert twin.notes == encoded.notes
    assert again.encode_target(table).tobytes() == schema.encode_target(table).tobytes()
    assert np.isfinite(encoded.X).all()
    assert encoded.X.shape == (encoded.kept.sum(), len(schema.feature_names))
    for line in [*schema.describe(), *encoded.notes]:
        assert line.isprintable()
        assert "\u202e" not in line


def test_json_holds_plain_types_only(homes):
    def plain(value):
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        if type(value) is list:
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float)

    assert plain(fit_schema(homes, "price").to_json())


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: {},
        lambda plain: None,
        lambda plain: [plain],
        lambda plain: {**plain, "missing": "guess"},
        lambda plain: {**plain, "columns": [{"name": "a"}]},
        lambda plain: {**plain, "target": {**plain["target"], "task": "dream"}},
        lambda plain: {**plain, "target": {**plain["target"], "scale": 0.0}},
        lambda plain: {**plain, "target": {**plain["target"], "mean": "high"}},
        lambda plain: {**plain, "columns": [{**plain["columns"][0], "kind": "word"}]},
        lambda plain: {**plain, "columns": [{**plain["columns"][0], "scale": math.nan}]},
        lambda plain: {**plain, "columns": [{**plain["columns"][0], "colour": "red"}]},
    ],
)
def test_damaged_json(homes, damage):
    with pytest.raises(TableError, match="schema"):
        Schema.from_json(damage(fit_schema(homes, "price").to_json()))


def test_description(homes):
    table = homes.with_columns(id=pl.Series(["x"] * 6)).filter(target_rows(homes, "price"))
    assert fit_schema(table, "price").describe() == [
        "rooms   number, standardised (mean 2.5, deviation 1.5); 1 missing filled with the mean "
        "2.5",
        "city    category, a 0/1 column for each of 2; 1 missing filled with the most frequent "
        "value, 'Lyon'…",
        "garden  boolean, kept as 0 and 1; 1 missing filled with the most frequent value, false",
        "floor   dropped: constant: 3",
        "id      dropped: constant: 'x'",
        "price   target: standardised (mean 29, deviation 16.85)",
    ]
    classes = fit_schema(table.drop("garden"), "city", missing="drop").describe()
    assert classes[-1] == "city   target, classification, 2 classes: Lyon, Nice"
    assert classes[0].endswith("; rows without it dropped (1)")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name", "plain name"),
        ("größe 平米", "größe 平米"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("[red]x[/red]", "\\[red]x\\[/red]"),
        ("m [2]", "m [2]"),
        ("\u202eabc\u200b", "\\u202eabc\\u200b"),
        ("back\\", "back\\\\"),
        ("x" * 41, "x" * 39 + "…"),
        ("x" * 40, "x" * 40),
        ("\n" * 30, "\\n" * 19 + "…"),
    ],
)
def test_names_shown(name, expected):
    assert shown(name) == expected


@given(st.text(st.sampled_from(string.ascii_lowercase[:3] + "[]/\\#@=\n "), max_size=60))
def test_rich_shows_a_name_without_reading_tags_in_it(name):
    from rich.text import Text

    plain = Text.from_markup(f"'{shown(name, 1000)}'").plain
    # Rich halves backslashes before a tag only, so compare what is left without them.
    assert plain.replace("\\", "") == f"'{name}'".replace("\n", "n").replace("\\", "")


# Splitting


@given(
    st.integers(3, 400),
    st.integers(0, 2**64),
    st.sampled_from([0.0, 0.001, 0.2, 0.5]),
    st.sampled_from([0.0, 0.01, 0.3, 0.49]),
)
def test_split_covers_every_row_once(n, seed, validation, test):
    split = split_rows(n, seed, validation=validation, test=test)
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part, fraction in zip(parts, (1, validation, test), strict=True):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        assert (part.size > 0) == (fraction > 0)
    if n >= 100:
        assert abs(split.validation.size - n * validation) <= 1
        assert abs(split.test.size - n * test) <= 1
    again = split_rows(n, seed, validation=validation, test=test)
    assert all(map(np.array_equal, parts, (again.train, again.validation, again.test)))


def test_split_is_fixed_for_good():
    split = split_rows(10, 0)
    assert (split.test.tolist(), split.validation.tolist()) == ([0, 2], [1, 9])
    state = np.random.get_state()[1].tolist()
    first, second = split_rows(1000, 1), split_rows(1000, 2)
    assert first.test.tolist() != second.test.tolist()
    assert np.random.get_state()[1].tolist() == state


def test_test_rows_do_not_depend_on_validation():
    tests = [split_rows(100, 3, validation=part).test.tolist() for part in (0, 0.1, 0.4)]
    assert tests[0] == tests[1] == tests[2]


def test_small_splits():
    sizes = [split.size for split in vars(split_rows(3, 0, validation=0.5, test=0.49)).values()]
    assert sizes == [1, 1, 1]
    alone = split_rows(1, 0, validation=0, test=0)
    assert (alone.train.tolist(), alone.validation.size, alone.test.size) == ([0], 0, 0)


@pytest.mark.parametrize(
    ("n", "seed", "fractions", "message"),
    [
        (2, 0, {}, "2 rows cannot be divided into 3 parts"),
        (0, 0, {"validation": 0, "test": 0}, "0 rows cannot be divided into 1 part"),
        (9, -1, {}, "a seed is a whole number"),
        (9, 0, {"test": 1}, "test is a fraction from 0 to below 1; got 1"),
        (9, 0, {"validation": -0.1}, "validation is a fraction"),
        (9, 0, {"validation": math.nan}, "validation is a fraction"),
        (9, 0, {"validation": 0.5, "test": 0.5}, "must leave rows to train with"),
    ],
)
def test_bad_splits(n, seed, fractions, message):
    with pytest.raises(TableError, match=message):
        split_rows(n, seed, **fractions)


# The package's promises


def test_tables_do_not_import_torch():
    folder = Path(tables.__file__).parent
    imported = {
        name.split(".")[0]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert imported - sys.stdlib_module_names == {"downslope", "numpy", "polars", "narwhals"}


@pytest.mark.slow
def test_a_large_file_takes_seconds(tmp_path):
    generator = np.random.default_rng(0)
    table = pl.DataFrame({f"c{i}": generator.normal(size=200_000) for i in range(20)})
    table.write_csv(tmp_path / "large.csv")
    start = time.perf_counter()
    read = read_table(tmp_path / "large.csv")
    schema = fit_schema(read, "c0")
    encoded = schema.encode(read)
    assert time.perf_counter() - start < 10
    assert read.equals(table)
    np.testing.assert_allclose(encoded.X.std(axis=0), 1, rtol=1e-12)
