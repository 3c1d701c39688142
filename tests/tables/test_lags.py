"""Lags, and inputs that only grow with time; pandas is the oracle."""

import numpy as np
import pandas
import pyarrow
import pytest

from keras_mvn.tables import (
    Cells,
    Clock,
    Question,
    TableError,
    columnar,
    lagged,
    lags_of,
    open_table,
    plan,
    survey,
    text,
)
from keras_mvn.tables.clock import grows

pytestmark = pytest.mark.once


def hourly(rng, n=400):
    times = pandas.date_range("2023-02-01", periods=n, freq="h")
    frame = pandas.DataFrame({"time": times.strftime("%d.%m.%Y %H:%M")})
    frame["a"], frame["b"] = rng.normal(size=(2, n)).round(4)
    frame["wind"] = rng.normal(5, 2, n).round(3)
    frame.loc[[50, 51, 90], "wind"] = np.nan
    frame.loc[n - 3 :, ["a", "b"]] = np.nan
    return frame


def with_lags(path, columns=("wind", "a"), steps=(1, 2, 24)):
    return lagged(open_table(path), lags_of(columns, steps), Clock("time", None, Cells()))


def written(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


class TestLags:
    @pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
    def test_values_and_changes_as_pandas_shifts_them(self, tmp_path, rng, monkeypatch, name):
        monkeypatch.setattr(text, "BLOCK", 512)
        monkeypatch.setattr(columnar, "ROWS", 7)
        frame = hourly(rng)
        table = with_lags(written(frame, tmp_path / name))
        read = pyarrow.Table.from_batches(table.batches()).to_pandas()
        assert list(read) == [*frame, *table.derived]
        for column in ("wind", "a"):
            for step in (1, 2, 24):
                np.testing.assert_array_equal(
                    read[f"{column} lag {step}"], frame[column].shift(step)
                )
            for near, far in ((1, 2), (2, 24)):
                np.testing.assert_array_equal(
                    read[f"{column} change {far} to {near}"],
                    frame[column].shift(near) - frame[column].shift(far),
                )
        some = pyarrow.Table.from_batches(table.batches(["a lag 2", "b"])).to_pandas()
        np.testing.assert_array_equal(some["a lag 2"], frame["a"].shift(2))

    def test_first_rows_are_left_out_and_targets_may_be_lagged(self, tmp_path, rng):
        frame = hourly(rng)
        table = with_lags(written(frame, tmp_path / "t.csv"))
        question = Question(("a", "b"), features=("wind",), time="time")
        found = survey(table, question, Cells(), lambda *_: None)
        planned = plan(table, question, Cells(), found)
        np.testing.assert_array_equal(planned.rows, np.arange(24, 397))
        assert planned.preprocessing.columns == ["wind", *table.derived]
        complete = set(planned.preprocessing.complete)
        assert "a lag 1" in complete
        assert "wind lag 1" not in complete
        assert any("first 24 rows lack earlier ones" in note for note in planned.notes)
        assert any("3 of 376 rows have no target" in note for note in planned.notes)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda f: f.iloc[[1, 0, *range(2, 400)]], r"not later.*line 3 of t\.csv \(1 such row"),
            (lambda f: f.iloc[[0, 0, *range(1, 400)]], r"not later.*line 3.*one row for each time"),
            (lambda f: f.assign(time=f.time.where(f.index != 7)), "no time in line 9"),
            (lambda f: f.assign(wind=f.wind.astype(str).where(f.index != 7, "calm")), "'calm'"),
            (lambda f: f.drop(columns="wind"), "--lag-columns"),
        ],
    )
    def test_refused(self, tmp_path, rng, change, match):
        path = written(change(hourly(rng)), tmp_path / "t.csv")
        with pytest.raises(TableError, match=match):
            list(with_lags(path).batches())

    def test_uneven_steps_are_told(self, tmp_path, rng):
        frame = hourly(rng)
        assert not with_lags(written(frame, tmp_path / "t.csv"))._notes
        table = with_lags(written(frame.drop(index=[30, 31, 60]), tmp_path / "t.csv"))
        assert "lags count rows, and 2 of 396 steps in time differ from 1 h" in table.notes

    def test_too_few_rows_for_a_lag(self, tmp_path, rng):
        table = with_lags(written(hourly(rng)[:24], tmp_path / "t.csv"))
        with pytest.raises(TableError, match="has 24 rows; --lags 24 needs more"):
            survey(table, Question(("a", "b"), time="time"), Cells(), lambda *_: None)

    def test_numbers_too_large_to_tell_apart(self, tmp_path, rng):
        frame = hourly(rng).assign(time=2**62 + 2 * np.arange(400))
        with pytest.raises(TableError, match="cannot be told apart"):
            with_lags(written(frame, tmp_path / "t.csv"))

    @pytest.mark.parametrize(
        ("columns", "steps", "match"),
        [((), (1,), "needs --lag-columns"), (("a",), (), "needs --lags"), (("a",), (0, 2), "one")],
    )
    def test_options_that_do_not_fit(self, columns, steps, match):
        with pytest.raises(TableError, match=match):
            lags_of(columns, steps)


class TestTrends:
    def test_what_grows(self, rng):
        times = rng.permutation(300).astype(float)
        noise = rng.normal(size=300)
        assert grows(times, times)
        assert grows(-times, times)
        assert grows(np.floor(times / 30), times)
        assert grows(np.where(rng.random(300) < 0.2, np.nan, times), times)
        assert not grows(noise, times)
        assert not grows(times + 100 * noise, times)
        assert not grows((times > 150).astype(float), times)  # a step, seen in training
        assert not grows(np.sin(times / 50), times)

    def test_one_glitch_hides_no_trend(self):
        times = np.arange(300.0)
        for at in (10, 290):
            values = times.copy()
            values[at] = 1e9
            assert grows(values, times)

    @pytest.mark.parametrize(("days", "season"), [(200, False), (900, True)])
    def test_the_season_grows_within_a_year(self, tmp_path, rng, days, season):
        frame = pandas.DataFrame({"when": pandas.date_range("2020-01-01", periods=days)})
        frame["x"], frame["a"], frame["b"] = rng.normal(size=(3, days))
        path = written(frame, tmp_path / "t.csv")
        for trend in (False, True):
            table, question = open_table(path), Question(("a", "b"), time="when", trend=trend)
            found = survey(table, question, Cells(), lambda *_: None)
            names = plan(table, question, Cells(), found).preprocessing.names
            assert ("when day of year sin" in names) == (season or trend)
            assert "when weekday sin" in names

    def test_left_out_unless_asked_for(self, tmp_path, rng):
        n = 400
        times = pandas.date_range("2020-01-01", periods=n, freq="6D")
        frame = pandas.DataFrame(
            {"when": times, "counter": np.arange(n) * 7, "x": rng.normal(size=n)}
        )
        frame["year"] = times.year
        frame["installed"] = times[rng.integers(0, n, n)]
        frame["a"], frame["b"] = rng.normal(size=(2, n))
        path = written(frame, tmp_path / "t.csv")

        def names(**options):
            table, question = open_table(path), Question(("a", "b"), **options)
            found = survey(table, question, Cells(), lambda *_: None)
            planned = plan(table, question, Cells(), found)
            return planned.preprocessing.names, {d.column: d.why for d in planned.decisions}

        kept, why = names(time="when")
        assert [n for n in kept if n.startswith("when")] == [
            f"when {part} {wave}" for part in ("day of year", "weekday") for wave in ("sin", "cos")
        ]
        assert {"installed elapsed", "x"} < set(kept)
        assert not {"counter", "year"} & set(kept)
        assert "--trend keeps it" in why["counter"]
        assert "without its trend" in why["when"]
        for options in ({"time": "when", "trend": True}, {}):
            assert {"counter", "year", "when elapsed"} < set(names(**options)[0])
