"""Tables: reading in batches, kinds of columns, preprocessing, splitting; pandas is the oracle."""

import gzip
import io
import itertools
import re

import numpy as np
import pandas
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from keras_mvn.tables import (
    Cells,
    Preprocessing,
    Question,
    Reading,
    TableError,
    columnar,
    columns_named,
    lines,
    open_table,
    plan,
    survey,
    text,
    write_arrays,
)
from keras_mvn.tables.deciding import decide
from keras_mvn.tables.dividing import Division
from keras_mvn.tables.encoders import CategoryEncoder
from keras_mvn.tables.profiling import Profile
from keras_mvn.tables.sampling import RowSample
from keras_mvn.tables.splitting import by_groups, by_time, random_split, shares

pytestmark = pytest.mark.once


def silent(*_):
    pass


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def frame_of(table):
    batches = list(table.batches())
    return pyarrow.Table.from_batches(batches).to_pandas()


def refused(path, match, **options):
    with pytest.raises(TableError, match=match) as caught:
        list(open_table(path, Reading(**options)).batches())
    assert "\n" not in str(caught.value)


@pytest.fixture
def small_blocks(monkeypatch):
    """Many batches out of little text."""
    monkeypatch.setattr(text, "BLOCK", 512)
    monkeypatch.setattr(lines, "BLOCK", 512)
    monkeypatch.setattr(columnar, "ROWS", 7)


CSV = "a,b,c\n1,x,2020-01-01\n2,,2020-01-02\n"


class TestReading:
    @pytest.mark.parametrize(
        ("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.txt", ";"), ("t.dat", "|")]
    )
    def test_the_separator_is_that_of_the_suffix_or_found(self, tmp_path, name, separator):
        table = open_table(write(tmp_path / name, CSV.replace(",", separator)))
        assert table.columns == ("a", "b", "c")
        assert frame_of(table)["a"].tolist() == ["1", "2"]

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
    def test_marks_and_encodings(self, tmp_path, encoding):
        table = open_table(write(tmp_path / "t.csv", "größe,b\n1,é\n2,ü\n", encoding))
        assert table.columns == ("größe", "b")
        assert frame_of(table)["b"].tolist() == ["é", "ü"]

    def test_a_byte_that_is_not_utf8_far_down_is_explained(self, tmp_path):
        text = b"a,b\n" + b"1,2\n" * 100_000 + b"1,\xe9\n"
        (tmp_path / "t.csv").write_bytes(text)
        refused(tmp_path / "t.csv", "--encoding latin-1")
        table = open_table(tmp_path / "t.csv", Reading(encoding="latin-1"))
        assert sum(batch.num_rows for batch in table.batches()) == 100_001

    def test_compressed_text(self, tmp_path):
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
        compressed = pyarrow.compress(CSV.encode(), "zstd", asbytes=True)
        (tmp_path / "t.csv.zst").write_bytes(compressed)
        for name in ("t.csv.gz", "t.csv.zst"):
            assert frame_of(open_table(tmp_path / name))["b"].tolist() == ["x", ""]

    def test_quotes_hold_separators_and_line_feeds(self, tmp_path):
        text = 'a,"b, or\nnot"\n1,"x,y"\n2,"u\nv"\n'
        table = open_table(write(tmp_path / "t.csv", text))
        assert table.columns == ("a", "b, or\nnot")
        assert frame_of(table).iloc[:, 1].tolist() == ["x,y", "u\nv"]

    @pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
    def test_batches_together_are_the_table(self, tmp_path, rng, suffix, small_blocks):
        frame = pandas.DataFrame(rng.normal(size=(500, 3)), columns=list("abc"))
        path = tmp_path / f"t.{suffix}"
        getattr(frame, f"to_{suffix}")(path, **({"index": False} if suffix == "csv" else {}))
        batches = list(open_table(path).batches(["c", "a"]))
        assert len(batches) > 5
        found = pyarrow.Table.from_batches(batches).to_pandas().astype(float)
        pandas.testing.assert_frame_equal(found, frame[["c", "a"]])

    def test_a_column_without_a_name_gets_one(self, tmp_path):
        assert open_table(write(tmp_path / "t.csv", ",b\n0,1\n")).columns == ("column 1", "b")


class TestRefusedFiles:
    @pytest.mark.parametrize(
        ("name", "text", "match"),
        [
            ("t.csv", "", "is empty"),
            ("t.csv", "\n\n", "is empty"),
            ("t.csv", "a;b;c\n1;2;3\n4;5;6\n", "--separator ';'"),
            ("t.tsv", "a,b,c\n1,2,3\n4,5,6\n", "--separator ','"),
            ("t.csv", "a,b,a\n1,2,3\n", "several columns are called 'a'"),
            ("t.csv", "a,b\n1,2\n1,2,3\n4,5\n", "line 3: 3 fields where the header has 2"),
            ("t.csv", "a,b\n1,2\n1\n", "line 3: 1 fields where the header has 2"),
            ("t.csv", "1.5,2\n1,2\n", "looks like data"),
            ("t.xlsx", "PK", "save it as CSV"),
            ("t.csv", "a\0b", "is not text"),
            ("t.parquet", "no", "cannot be read as a table"),
            ("t.feather", "no", "cannot be read as a table"),
            ("t.csv.gz", "no", "cannot be read|t.csv.gz:"),
            ("t.parquet.gz", "no", "unpack it first"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, name, text, match):
        refused(write(tmp_path / name, text), match)

    def test_places_that_hold_no_file(self, tmp_path):
        refused(tmp_path / "none.csv", "No such file")
        refused(tmp_path, "Is a directory")
        refused(write(tmp_path / "f", "x") / "t.csv", "Not a directory")

    def test_a_file_that_breaks_off(self, tmp_path):
        whole = gzip.compress(("a,b\n" + "1,2\n" * 200_000).encode())
        (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
        refused(tmp_path / "t.csv.gz", "t.csv.gz")

    def test_unknown_columns_and_encodings(self, tmp_path):
        table = open_table(write(tmp_path / "t.csv", CSV))
        with pytest.raises(TableError, match="no column 'B'"):
            list(table.batches(["B"]))
        refused(tmp_path / "t.csv", "--encoding martian", encoding="martian")


def profiled(values, missing=(), decimal=".", batches=2):
    array = values if isinstance(values, pyarrow.Array) else pyarrow.array(values)
    profile = Profile("x", Cells(decimal, tuple(missing)))
    rows = np.arange(len(array))
    for part in np.array_split(rows, batches):
        profile.update(array.take(pyarrow.array(part)), part)
    return profile


MANY_TEXTS = [f"text {i % 97} {i % 89}" for i in range(500)]


class TestKinds:
    @pytest.mark.parametrize(
        ("values", "kind", "why"),
        [
            (["1", "2.5", "-3e2", " 4 "], "number", "from -300 to 4"),
            (["1", "", "NA", "2"], "number", "from 1 to 2"),
            ([1, 2, None], "number", "from 1 to 2"),
            (["yes", "no", "", "No"], "boolean", "yes"),
            ([True, False, None, True], "boolean", "true"),
            (["red", "green", "red", "blue"], "category", "3 different"),
            (["2020-01-31", "2021-02-01"], "date", "2020-01-31 to 2021-02-01"),
            (["2020-01-31T10:00:00Z", "2021-02-01 11:30:00"], "date", "2020"),
            (["31/01/2020", "01/02/2020"], "date", "%d/%m/%Y"),
            (["01/31/2020", "02/01/2020"], "date", "%m/%d/%Y"),
            (["01/02/2020", "02/03/2020"], "date", "the month could be first"),
            (["31.01.2020 10:00", "01.02.2020 11:00"], "date", "%d.%m.%Y %H:%M"),
            (["0812-05-04", "2021-02-01", "3021-02-01"], "date", "0812-05-04 to 3021-02-01"),
            (["18.00.00", "19.30.00"], "time of day", "%H.%M.%S"),
            (["1,5", "1,5", "2,5"], "category", "--decimal , reads '1,5' as 1.5"),
            ([f"{i},5" for i in range(60)], "dropped", "--decimal , reads '0,5' as 0.5"),
            (["18:00", "19:30"], "time of day", "%H:%M"),
            (["7", "7", "7"], "dropped", "always 7"),
            (["a", "a", "a"], "dropped", "always 'a'"),
            (["yes", "yes"], "dropped", "always"),
            (["", "NA", None], "dropped", "no values"),
            ([f"id-{i}" for i in range(30)], "dropped", "an identifier"),
            (MANY_TEXTS, "dropped", "text: 500|an identifier"),
            ([[1], [2]], "dropped", "list"),
        ],
    )
    def test_all_cells_decide(self, values, kind, why):
        decision = decide(profiled(values))
        assert decision.kind == kind
        assert why in f"{decision.why} {decision.advice}" or re.search(why, decision.why)

    def test_types_of_parquet_are_believed(self):
        stamps = pandas.Series(pandas.date_range("2020-01-01", periods=5, freq="12h"))
        assert decide(profiled(pyarrow.array(stamps))).kind == "date"
        assert decide(profiled(pyarrow.array(stamps.dt.time))).kind == "time of day"
        assert (
            decide(profiled(pyarrow.array(["a", "b", "a"]).dictionary_encode())).kind == "category"
        )

    def test_codes_that_the_file_calls_categories_are_categories(self):
        codes = pyarrow.array([1, 2, 1, 3, None]).dictionary_encode()
        profile = profiled(codes)
        assert decide(profile).kind == "category"
        assert decide(profile, "number").why == "from 1 to 3"

    def test_nanoseconds_are_more_than_is_kept(self):
        exact = pyarrow.array([0, 1, 90_000_000_000_001], pyarrow.timestamp("ns"))
        assert decide(profiled(exact)).why.startswith("1970-01-01 to 1970-01-02")
        assert decide(profiled(exact.cast(pyarrow.time64("ns"), safe=False))).kind == "time of day"

    def test_a_late_text_makes_no_category_of_numbers(self):
        values = [str(i) for i in range(99)] + ["n.a. today"]
        with pytest.raises(TableError, match=r"numbers, except for 'n\.a\. today' in row 100"):
            decide(profiled(values))
        assert decide(profiled(values, missing=["n.a. today"])).kind == "number"

    def test_declared_numbers_are_missing(self):
        profile = profiled(["1", "-200", "-200.0", "3"], missing=["-200"])
        assert (profile.present, profile.number.low) == (2, 1.0)
        assert profiled([1.0, -200.0], missing=["-200"]).present == 1

    def test_decimal_commas(self):
        assert profiled(["1,5", "2,5"], decimal=",").number.high == 2.5
        assert profiled(["1,5", "1.234"], decimal=",").number.example == ("1.234", 1)

    def test_infinite_numbers_are_refused_unless_declared(self):
        with pytest.raises(TableError, match="infinite number in row 2"):
            decide(profiled(["1", "inf", "2"]))
        assert decide(profiled(["1", "inf", "2"], missing=["inf"])).kind == "number"

    def test_what_the_user_says_counts(self):
        codes = profiled(["1", "2", "3"] * 5)
        assert decide(codes, "category").kind == "category"
        with pytest.raises(TableError, match="--as x=date: its cells are numbers from 1 to 3"):
            decide(codes, "date")
        with pytest.raises(TableError, match="expected one of"):
            decide(codes, "color")

    def test_numbers_of_rows_are_dropped_by_name(self):
        profile = profiled([str(i) for i in range(50)])
        assert decide(profile).kind == "number"
        profile.name = "column 1"
        assert decide(profile).why == "the row number"


def table_of(rng, n=400):
    day = pandas.Timestamp("2023-01-15") + pandas.to_timedelta(rng.integers(0, 600, n), "D")
    frame = pandas.DataFrame(
        {
            "when": day + pandas.to_timedelta(rng.integers(0, 86400, n), "s"),
            "color": rng.choice(["red", "green", "blue"], n),
            "open": rng.choice([True, False], n),
            "size": rng.normal(5, 2, n).round(6),
            "note": [f"note {i}" for i in range(n)],
            "a": rng.normal(size=n).round(6),
            "b": rng.normal(100, 10, n).round(6),
        }
    )
    frame.loc[5, "color"] = "violet"
    for column, share in (("size", 0.1), ("color", 0.05), ("a", 0.2)):
        frame.loc[rng.random(n) < share, column] = None
    frame.loc[7, ["a", "b"]] = None
    return frame


def prepared(path, folder, **options):
    folder.mkdir(exist_ok=True)
    question = Question(("a", "b"), **options)
    table, cells = open_table(path), Cells()
    planned = plan(table, question, cells, survey(table, question, cells, silent))
    raw = write_arrays(table, planned, folder, planned.rows[planned.split.test], silent)
    return planned, np.load(folder / "X.npy"), np.load(folder / "y.npy"), raw


class TestPreprocessing:
    @pytest.fixture
    def made(self, tmp_path, rng, small_blocks):
        frame = table_of(rng)
        frame.to_csv(tmp_path / "t.csv", index=False)
        return frame, *prepared(tmp_path / "t.csv", tmp_path / "work")

    def test_targets_and_rows_without_any(self, made):
        frame, planned, x, y, raw = made
        used = frame.drop(index=7)
        np.testing.assert_array_equal(y, used[["a", "b"]].to_numpy())
        np.testing.assert_array_equal(planned.rows, used.index)
        assert (x.dtype, y.dtype, len(x)) == (np.float32, np.float64, 399)
        test = planned.rows[planned.split.test]
        assert raw.column("note" if "note" in raw.column_names else "size").to_pylist() == [
            "" if pandas.isna(v) else str(v) for v in frame["size"][test]
        ]

    def test_numbers_dates_categories_as_pandas_has_them(self, made):
        frame, planned, x, _, _ = made
        used, train = frame.drop(index=7), planned.split.train
        found = pandas.DataFrame(x, columns=planned.preprocessing.names)

        size = used["size"].reset_index(drop=True)
        seen = size[train].dropna()
        expected = (size.fillna(seen.median()) - seen.mean()) / seen.std(ddof=0)
        np.testing.assert_allclose(found["size"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found["size missing"], size.isna())

        color = used["color"].reset_index(drop=True)
        dummies = pandas.get_dummies(color.fillna(color[train].mode()[0]))
        for name in ("red", "green", "blue"):
            np.testing.assert_array_equal(found[f"color={name}"], dummies[name])
        np.testing.assert_array_equal(found["color missing"], color.isna())

        when = used["when"].reset_index(drop=True).dt
        seconds = (when.hour * 60 + when.minute) * 60 + when.second
        turns = {
            "day of year": (when.day_of_year - 1 + seconds / 86400) / 365.2425,
            "weekday": when.day_of_week / 7,
            "hour": seconds / 86400,
        }
        for part, turn in turns.items():
            np.testing.assert_allclose(
                found[f"when {part} sin"], np.sin(2 * np.pi * turn), atol=1e-5
            )
            np.testing.assert_allclose(
                found[f"when {part} cos"], np.cos(2 * np.pi * turn), atol=1e-5
            )
        np.testing.assert_array_equal(found["when year"] + 2000, when.year.clip(2023, 2024))
        first = used["when"].reset_index(drop=True)[train]
        elapsed = used["when"].reset_index(drop=True).clip(first.min(), first.max())
        slope, _ = np.polyfit(
            elapsed.astype("datetime64[ns]").astype("int64") / 1e9, found["when elapsed"], 1
        )
        assert slope == pytest.approx(2 / (first.max() - first.min()).total_seconds(), rel=1e-4)

        np.testing.assert_array_equal(found["open"], used["open"])
        assert not any(name.startswith("note") for name in found)

    def test_what_was_decided_is_said(self, made):
        _, planned, *_ = made
        decisions = {d.column: d for d in planned.decisions}
        assert decisions["note"].kind == "dropped"
        assert "identifier" in decisions["note"].why
        assert "missing: imputed" in decisions["size"].why
        assert any("1 of 400 rows have no target" in note for note in planned.notes)
        assert any("--time when" in note for note in planned.notes)

    def test_the_same_from_json_and_from_other_formats(self, made, tmp_path):
        frame, planned, x, _, _ = made
        planned.preprocessing.save(tmp_path / "p.json")
        loaded = Preprocessing.load(tmp_path / "p.json")
        assert loaded == planned.preprocessing
        frame["color"] = frame["color"].astype("category")
        frame.to_parquet(tmp_path / "t.parquet")
        frame.to_feather(tmp_path / "t.feather")
        for name in ("t.parquet", "t.feather"):
            batches = open_table(tmp_path / name).batches(loaded.columns)
            found = np.concatenate([loaded.inputs(batch) for batch in batches])
            np.testing.assert_allclose(found[planned.rows], x, atol=1e-6)

    def test_statistics_are_of_training_rows_only(self, tmp_path, rng):
        frame = table_of(rng)
        frame["moment"] = np.arange(400)
        frame.loc[frame.index >= 300, "size"] = 1e6
        frame.to_csv(tmp_path / "t.csv", index=False)
        planned, *_ = prepared(tmp_path / "t.csv", tmp_path / "w", time="moment")
        number = next(e for e in planned.preprocessing.encoders if e.column == "size")
        assert number.fill < 10
        assert number.center < 10

    def test_a_table_that_does_not_fit_is_refused_by_name(self, made, tmp_path):
        frame, planned, *_ = made
        lacking = frame.drop(columns=["size", "open"])
        lacking.to_csv(tmp_path / "l.csv", index=False)
        with pytest.raises(TableError, match="the columns 'open', 'size' are missing"):
            planned.preprocessing.check(open_table(tmp_path / "l.csv"))
        frame["size"] = frame["size"].astype(object)
        frame.loc[3, "size"] = "large"
        frame.to_csv(tmp_path / "text.csv", index=False)
        batch = next(open_table(tmp_path / "text.csv").batches())
        with pytest.raises(TableError, match="'size' must hold numbers.* found 'large'"):
            planned.preprocessing.inputs(batch)

    def test_unknown_categories(self):
        column = pyarrow.array(["a"] * 10 + ["b"] * 10 + ["rare"])
        decision = decide(profiled(column))
        encoder = CategoryEncoder.fit(decision, column, Cells(), False)
        assert encoder.names == ["x=a", "x=b", "x=(other)"]
        new = pyarrow.array(["b", "never seen", None])
        np.testing.assert_array_equal(
            encoder.encode(new, Cells())[0], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
        )
        assert encoder.unknown(new, Cells()) == ["never seen"]

    def test_numbers_beyond_squares_of_float64(self, tmp_path, rng):
        frame = pandas.DataFrame({"x": rng.normal(size=50) * 1e200, "a": rng.normal(size=50)})
        frame["b"] = frame["a"] + 1
        frame.to_csv(tmp_path / "t.csv", index=False)
        _, x, *_ = prepared(tmp_path / "t.csv", tmp_path / "w")
        assert x.std() == pytest.approx(1, abs=0.3)


class TestQuestions:
    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"features": ("size", "colour")}, "--features.*'colour'.*Did you mean 'color'"),
            ({"features": ("a", "size")}, "'a' is a target too"),
            ({"features": ("size", "color"), "drop": ("color",)}, "--features: 'color' .* --drop"),
            ({"drop": ("what",)}, "--drop"),
            ({"group": "what"}, "--group"),
            ({"group": "open"}, "2 groups; at least 4"),
            ({"time": "color"}, "neither number nor date"),
            ({"drop": ("when", "color", "open", "size", "note")}, "no column left"),
            ({"features": ("note",)}, "no input is left"),
            ({"kinds": {"size": "date"}}, "--as size=date"),
        ],
    )
    def test_refused(self, tmp_path, rng, change, match):
        table_of(rng).to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(TableError, match=match):
            prepared(tmp_path / "t.csv", tmp_path / "w", **change)

    @pytest.mark.parametrize(
        ("values", "match"),
        [
            ("word", "'b' must hold numbers; found 'word' in line 2"),
            ("3", "'b' is always 3"),
            ("", "'b' is missing in every row"),
            ("inf", "'b' holds an infinite number in line 2"),
            ("2020-01-01", "'b' must hold numbers"),
        ],
    )
    def test_targets_that_are_none(self, tmp_path, rng, values, match):
        frame = table_of(rng)
        frame["b"] = values
        frame.to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(TableError, match=match):
            prepared(tmp_path / "t.csv", tmp_path / "w")

    def test_too_few_rows_and_too_many_columns(self, tmp_path, rng):
        table_of(rng).iloc[:1].to_csv(tmp_path / "one.csv", index=False)
        with pytest.raises(TableError, match="has 1 row; at least 20"):
            prepared(tmp_path / "one.csv", tmp_path / "w")
        wide = pandas.DataFrame(np.zeros((30, 10_000)), columns=[f"c{i}" for i in range(10_000)])
        wide.assign(a=1, b=2).to_csv(tmp_path / "wide.csv", index=False)
        with pytest.raises(TableError, match="10000 columns besides the targets; up to 1998"):
            prepared(tmp_path / "wide.csv", tmp_path / "w")

    def test_names_with_commas(self):
        assert columns_named("a,b", ["a,b", "c"]) == ("a,b",)
        assert columns_named("a, b", ["a", "b"]) == ("a", "b")


class TestSplits:
    def parts_are_a_partition(self, split, n):
        together = np.concatenate(split)
        assert len(together) == n
        assert len(np.unique(together)) == n
        assert all((np.diff(part) > 0).all() for part in split if len(part))

    def test_at_random(self):
        split = random_split(1000, shares(True), seed=3)
        self.parts_are_a_partition(split, 1000)
        assert [len(part) for part in split] == [600, 150, 100, 150]
        assert [len(p) for p in random_split(1000, shares(False), 3)] == [700, 150, 0, 150]
        assert (random_split(1000, shares(True), 4).test != split.test).any()

    def test_groups_stay_together(self, rng):
        groups = rng.integers(0, 60, 2000)
        split = by_groups(groups, shares(True), seed=0)
        self.parts_are_a_partition(split, 2000)
        for i, part in enumerate(split):
            others = np.concatenate([p for j, p in enumerate(split) if j != i])
            assert not set(groups[part]) & set(groups[others])
            assert len(part) / 2000 == pytest.approx(shares(True)[i], abs=0.03)

    def test_four_groups_fill_four_parts(self):
        split = by_groups(np.repeat(np.arange(4), 10), shares(True), seed=0)
        assert [len(part) for part in split] == [10] * 4

    @pytest.mark.parametrize("seed", range(10))
    def test_few_groups_do_not_starve_training(self, seed):
        sizes = np.array([35, 120, 120, 120])
        split = by_groups(np.repeat(np.arange(4), sizes), shares(True), seed)
        self.parts_are_a_partition(split, 395)
        assert len(split.train) == 120
        assert sorted(map(len, split)) == [35, 120, 120, 120]

    @pytest.mark.parametrize("sizes", [(300, 20, 20, 30, 30), (90, 80, 70, 20, 20, 10, 10, 5)])
    def test_few_groups_come_as_near_to_the_shares_as_any_deal(self, sizes):
        """Against all assignments: no more rows are misplaced than half as many again."""
        wanted = np.array(shares(True)) * sum(sizes)

        def misplaced(part_of):
            return np.abs(np.bincount(part_of, sizes, minlength=4) - wanted).sum()

        deals = (np.array(d) for d in itertools.product(range(4), repeat=len(sizes)))
        best = min(misplaced(deal) for deal in deals if len(set(deal)) == 4)
        for seed in range(5):
            split = by_groups(np.repeat(np.arange(len(sizes)), sizes), shares(True), seed)
            found = np.abs(np.array(list(map(len, split))) - wanted).sum()
            assert found <= max(1.5 * best, 0.06 * sum(sizes))
            assert len(split.train) == max(map(len, split))

    def test_the_largest_groups_are_not_always_trained_on(self):
        sizes = np.repeat([4, 5, 6, 7], 50)
        groups = np.repeat(np.arange(200), sizes)
        splits = [by_groups(groups, shares(True), seed) for seed in range(30)]
        means = [[sizes[np.unique(groups[part])].mean() for part in split] for split in splits]
        np.testing.assert_allclose(np.mean(means, axis=0), 5.5, atol=0.2)

    def test_groups_are_reproducible_and_depend_on_the_seed(self):
        for sizes in ([10] * 8, [7] * 50):
            groups = np.repeat(np.arange(len(sizes)), sizes)
            first, again, other = (by_groups(groups, shares(True), seed) for seed in (1, 1, 2))
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a, b)
            assert not np.array_equal(first.train, other.train)

    def test_rows_without_a_group_are_one_group_and_told(self, tmp_path, rng):
        frame = table_of(rng)
        frame["who"] = [None if i % 10 == 0 else f"p{i % 37}" for i in range(400)]
        frame.to_csv(tmp_path / "t.csv", index=False)
        planned, *_ = prepared(tmp_path / "t.csv", tmp_path / "w", group="who")
        alone = frame["who"].isna().to_numpy()[planned.rows]
        assert sum(alone[part].any() for part in planned.split) == 1
        told = f"group who: {alone.sum()} rows have none and count as one group"
        assert told in planned.notes

    def test_the_last_rows_test(self, rng):
        times = rng.permutation(np.repeat(np.arange(250.0), 4))
        split = by_time(times, shares(True))
        self.parts_are_a_partition(split, 1000)
        for earlier, later in itertools.pairwise(split):
            assert times[earlier].max() < times[later].min()
        assert len(split.test) == pytest.approx(150, abs=4)

    def test_times_that_cannot_be_cut(self):
        with pytest.raises(TableError, match="2 different times"):
            by_time(np.repeat([0.0, 1.0], 50), shares(True))


class TestRowSample:
    def sampled(self, n, size, seed, sizes):
        sample = RowSample(1, seed)
        sample._size = size
        batch = pyarrow.record_batch({"x": np.arange(n)})
        first = 0
        while first < n:
            step = int(next(sizes))
            sample.update(batch.slice(first, step))
            first += step
        return np.array(sample.among(np.arange(n)).column("x"))

    def test_does_not_depend_on_the_batches(self, rng):
        one = self.sampled(1000, 50, 1, iter([1000]))
        many = self.sampled(1000, 50, 1, iter(rng.integers(1, 40, 1000)))
        np.testing.assert_array_equal(np.sort(one), np.sort(many))
        assert len(one) == 50

    def test_every_row_has_the_same_chance(self):
        counts = np.zeros(100)
        for seed in range(2000):
            counts[self.sampled(100, 10, seed, iter([30, 30, 40]))] += 1
        # Binomial(2000, 0.1): standard deviation 13.4; the largest of 100 within 4.5 of them.
        assert abs(counts - 200).max() < 4.5 * 13.4

    def test_small_tables_are_kept_whole(self):
        assert len(self.sampled(100, 1000, 0, iter([60, 40]))) == 100


def test_numbers_in_text_are_read_as_python_reads_them(rng):
    numbers = rng.normal(size=2000) * 10.0 ** rng.integers(-300, 300, 2000)
    texts = [repr(float(number)) for number in numbers]
    np.testing.assert_array_equal(Cells().numbers(pyarrow.array(texts)).numbers, numbers)
    values = Cells().numbers(pyarrow.array([*texts, "0x1F", "1_000", "1 000"]))
    assert values.unreadable.sum() == 3
    np.testing.assert_array_equal(values.numbers[:2000], numbers)


def test_a_code_is_the_same_however_it_is_written():
    for values in (["2", "2.0", " 2", "02"], [2.0, 2.0, 2.0, np.nan], [2, 2, 2, None]):
        texts = Cells().categories(pyarrow.array(values, from_pandas=True)).to_pylist()
        assert texts == ["2", "2", "2", "02" if values[-1] == "02" else None]
    assert Cells().categories(pyarrow.array(["v2.0", "1.05"])).to_pylist() == ["v2.0", "1.05"]


def test_views_of_strings_are_read_as_strings(tmp_path, rng):
    frame = table_of(rng)[["color", "a", "b"]]
    table = pyarrow.Table.from_pandas(frame)
    views = table.set_column(0, "color", table["color"].cast(pyarrow.string_view()))
    with pyarrow.ipc.new_file(str(tmp_path / "t.arrow"), views.schema) as file:
        file.write_table(views)
    frame.to_csv(tmp_path / "t.csv", index=False)
    of_views, of_text = (prepared(tmp_path / f"t.{s}", tmp_path / s) for s in ("arrow", "csv"))
    assert of_views[0].preprocessing.names == of_text[0].preprocessing.names
    np.testing.assert_array_equal(of_views[1], of_text[1])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_typed_in_training_may_be_text_later(tmp_path, rng, zone):
    frame = table_of(rng, 100).assign(time=rng.integers(0, 86400, 100))
    frame["when"] = frame["when"].dt.tz_localize(zone)
    frame["time"] = pandas.to_datetime(frame["time"], unit="s").dt.time
    frame.to_parquet(tmp_path / "t.parquet")
    planned, x, _, _ = prepared(tmp_path / "t.parquet", tmp_path / "work")
    frame.to_csv(tmp_path / "t.csv", index=False)
    (batch,) = open_table(tmp_path / "t.csv").batches()
    found = planned.preprocessing.inputs(batch)[planned.rows]
    np.testing.assert_allclose(found, x, atol=1e-5)
    iso = [f"{when:%Y-%m-%dT%H:%M:%S%z}" for when in frame["when"][:3]]
    texts = pyarrow.Table.from_pandas(frame[:3].assign(when=iso), preserve_index=False)
    np.testing.assert_allclose(planned.preprocessing.inputs(texts), x[:3], atol=1e-5)


def test_numbers_beyond_float32_are_refused(tmp_path, rng):
    frame = table_of(rng)[["size", "a", "b"]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    planned = prepared(tmp_path / "t.csv", tmp_path / "work")[0]
    far = pyarrow.record_batch({"size": [1.0, 1e300]})
    with pytest.raises(TableError, match=r"column 'size' holds 1e\+300 in row 2: too far"):
        planned.preprocessing.inputs(far)
    frame.loc[3, "b"] = -1e300
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(TableError, match=r"the target 'b' holds -1e\+300"):
        prepared(tmp_path / "t.csv", tmp_path / "work")


def test_a_wide_head_is_no_trouble(tmp_path):
    buffer = io.StringIO()
    pandas.DataFrame(np.ones((2, 10_000))).to_csv(buffer, index=False)
    text = "\n".join(["n" + ",n".join(map(str, range(10_000))), *buffer.getvalue().split("\n")[1:]])
    assert len(open_table(write(tmp_path / "t.csv", text)).columns) == 10_000
    names = [f"a name of more than forty characters, number {i}" for i in range(10_000)]
    quoted = ",".join(f'"{name}"' for name in names)
    assert open_table(write(tmp_path / "t.csv", f"{quoted}\n")).columns == tuple(names)


class TestFolds:
    @pytest.mark.parametrize("by_time", [False, True])
    def test_labels_keep_groups_and_blocks_together(self, by_time):
        order = np.random.default_rng(0).integers(0, 40, 300)
        divided = Division(True, 5, np.inf, by_time, 0).of(300, order)
        train = divided.split.train
        assert divided.folds == 5
        assert not len(divided.split.validation) + len(divided.split.calibration)
        assert len(train) + len(divided.split.test) == 300
        if not by_time:
            np.testing.assert_array_equal(divided.together, order)
            return
        labels = divided.together[train]
        assert set(labels) == set(range(5))
        blocks = [order[train][labels == i] for i in range(5)]
        assert all(a.max() < b.min() for a, b in itertools.pairwise(blocks))
        assert max(map(len, blocks)) < 1.5 * min(map(len, blocks))
        assert order[divided.split.test].min() >= order[train].max()

    @pytest.mark.parametrize(
        ("rows", "order", "folds"),
        [(300, None, 5), (3000, None, 0), (300, np.arange(300) % 4, 0), (300, np.arange(300), 5)],
    )
    def test_many_rows_or_few_groups_are_not_folded(self, rows, order, folds):
        divided = Division(True, 5, 2000, False, 0).of(rows, order)
        assert divided.folds == folds
        assert bool(len(divided.split.validation)) == (folds == 0)
