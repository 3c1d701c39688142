"""Odd files, as in public bug reports: each is read right, or refused in one line that helps."""

import codecs
import datetime

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from keras_mvn.tables import (
    Cells,
    DateReading,
    Question,
    Reading,
    TableError,
    columns_named,
    open_table,
    plan,
    survey,
)
from keras_mvn.tables import lines as lines_module
from keras_mvn.tables.deciding import decide
from keras_mvn.tables.numerals import Numerals
from keras_mvn.tables.obstacles import obstacle
from keras_mvn.tables.profiling import Profile

pytestmark = pytest.mark.once

ROWS = 60


def silent(*_):
    pass


def write(path, text, encoding="utf-8"):
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def numbers(n=ROWS, seed=0):
    return np.random.default_rng(seed).normal(size=n).round(3)


def csv_of(n=ROWS, **columns):
    """CSV of the given columns of texts, after two of numbers, y and z."""
    frame = pandas.DataFrame({"y": numbers(n, 1), "z": numbers(n, 2), **columns})
    return frame.to_csv(index=False)


def planned(path, cells=None, reading=None, targets=("y", "z"), **options):
    question = Question(tuple(targets), **options)
    table = open_table(path, reading)
    cells = cells or Cells()
    return plan(table, question, cells, survey(table, question, cells, silent))


def decision_on(path, column="x", cells=None, **options):
    found = planned(path, cells, **options)
    return next(one for one in found.decisions if one.column == column)


def column_of(path, name="x", reading=None, cells=None):
    """The numbers of a column."""
    batches = open_table(path, reading).batches([name])
    return np.concatenate([(cells or Cells()).numbers(b.column(0)).numbers for b in batches])


def refusal(call, *arguments, **options):
    with pytest.raises(TableError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 420
    return text


def profiled(texts, **cells):
    profile = Profile("x", Cells(**cells))
    profile.update(pyarrow.array(texts), np.arange(len(texts)))
    return profile


class TestNumerals:
    @pytest.mark.parametrize(
        ("text", "options", "number"),
        [
            ("343.814,04", {"decimal": ",", "thousands": "."}, 343814.04),
            ("343,814", {"thousands": ","}, 343814.0),
            ("-1,234,567.5", {"thousands": ","}, -1234567.5),
            ("12,34,567", {"thousands": ","}, 1234567.0),  # as in India
            ("1234", {"thousands": ","}, 1234.0),
            ("1'234.5", {"thousands": "'"}, 1234.5),
            ("1\u2019234.5", {"thousands": "'"}, 1234.5),
            ("1 234,5", {"decimal": ",", "thousands": " "}, 1234.5),
            ("1\u00a0234\u202f567", {"thousands": " "}, 1234567.0),
            ("1\u2009234", {"thousands": " "}, 1234.0),
            ("1,23", {"thousands": ","}, None),
            ("0,123", {"thousands": ","}, None),
            ("12,3456", {"thousands": ","}, None),
            ("1.5", {"decimal": ","}, None),
            (",5", {"decimal": ","}, 0.5),
            ("54.2%", {"strip": ("%",)}, 54.2),
            ("54.2 %", {"strip": ("%",)}, 54.2),
            ("$12.50", {"strip": ("$",)}, 12.5),
            ("-$12.50", {"strip": ("$",)}, -12.5),
            ("$-12.50", {"strip": ("$",)}, -12.5),
            ("20.1 °C", {"strip": ("°C", "C")}, 20.1),
            ("USD 1,234.5", {"strip": ("USD",), "thousands": ","}, 1234.5),
            ("(1.23)", {"accounting": True}, -1.23),
            ("($1,234)", {"accounting": True, "strip": ("$",), "thousands": ","}, -1234.0),
            ("(1.23)", {}, None),
            ("\u22121.2", {}, -1.2),
            ("\u20131.2", {}, -1.2),
            ("1.2D+01", {}, 12.0),
            ("1.2d-1", {}, 0.12),
            ("1_000", {}, None),
            ("nan", {}, None),
            ("5 %%", {"strip": ("%",)}, None),
            ("510.00-", {"accounting": True}, -510.0),
            ("510.00-", {}, None),
            ("$(1,296.92)", {"accounting": True, "strip": ("$",), "thousands": ","}, -1296.92),
            ("(0.51)%", {"accounting": True, "strip": ("%",)}, -0.51),
        ],
    )
    def test_a_number_is_read_or_it_is_none(self, text, options, number):
        assert Numerals(**options).number(text) == number

    @pytest.mark.parametrize(
        ("texts", "advice"),
        [
            (["343,814", "123,456"], "343814 with --thousands , or 343.814 with --decimal ,"),
            (["343,814", "0,123"], "--decimal , reads '343,814' as 343.814"),
            (["343,814", "12,5"], "--decimal , reads"),
            (["343,814", "1,2345"], "--decimal , reads"),
            (["343,814", "12345,678"], "--decimal , reads"),
            (["343,814", "1,343,814"], "--thousands , reads '343,814' as 343814"),
            (["343,814", "12.5"], "--thousands , reads"),
            (["343,814.5"], "--thousands , reads '343,814.5' as 343814.5"),
            (["343.814,04", "1,5"], "--decimal , --thousands . reads '343.814,04' as 343814.04"),
            (["1'234", "5"], '--thousands "\'" reads'),
            (["1 234", "5"], '--thousands " " reads'),
            (["54.2%", "3%"], "--strip % reads '54.2%' as 54.2"),
            (["$12.50", "$3"], "--strip '$' reads"),
            (["20.1 °C", "3.0 °C"], "--strip '°C' reads"),
            (["12 km", "7 km"], "--strip km reads"),
            (["\u20ac 1.234,50", "\u20ac 2,5"], "--decimal , --thousands . --strip '\u20ac' reads"),
            (["<0.05", "< 0.1", "0.3"], "is a limit, not a number"),
            (["\u2264 5", "7"], "is a limit, not a number"),
            (["(1.23)", "4"], "--accounting reads '(1.23)' as -1.23"),
            (["510.00-", "300.00"], "--accounting reads '510.00-' as -510"),
            (["12 CR", "7 DR"], "'CR', 'DR' stand beside the numbers, which may differ in sign"),
            (["1297K", "0.3M", "5K"], "'K', 'M' stand beside the numbers"),
            (["$(1,296.92)", "$12"], "--accounting"),
            (["row 17", "row 18"], ""),
            (["ID-3", "ID-4"], ""),
            (["red", "green"], ""),
            (["1", "2.5"], ""),
        ],
    )
    def test_what_stands_in_the_way_is_named_with_its_option(self, texts, advice):
        found = obstacle(texts, Numerals())
        assert advice in found if advice else found == ""

    def test_with_a_decimal_comma_a_point_is_not_guessed(self):
        assert "--thousands . reads '1.234' as 1234" in obstacle(["1.234", "12,5"], Numerals(","))
        assert "--decimal . reads" in obstacle(["1.5", "12.25"], Numerals(","))


class TestThousands:
    TEXTS = [f"{i},{j:03d}" for i, j in zip(range(100, 160), range(200, 260), strict=True)]

    def test_a_target_that_may_be_either_names_both_with_their_values(self, tmp_path):
        path = write(tmp_path / "t.csv", csv_of(x=self.TEXTS))
        text = refusal(planned, path, targets=("x",))
        assert "'100,200' is 100200 with --thousands , or 100.2 with --decimal ," in text
        assert "line 2 of t.csv" in text

    def test_either_option_reads_what_it_says(self, tmp_path):
        path = write(tmp_path / "t.csv", csv_of(x=self.TEXTS))
        whole = column_of(path, cells=Cells(thousands=","))
        np.testing.assert_array_equal(whole, [float(t.replace(",", "")) for t in self.TEXTS])
        np.testing.assert_array_equal(column_of(path, cells=Cells(",")), whole / 1000.0)

    def test_a_decimal_comma_that_may_be_wrong_is_warned_of(self, tmp_path):
        text = csv_of().replace(",", ";").replace(".", ",").splitlines()
        rows = [f"{line};{t}" for line, t in zip(text, ["x", *self.TEXTS], strict=True)]
        path = write(tmp_path / "t.csv", "\n".join(rows))
        found = planned(path, Cells(","), Reading(";"), targets=("x",))
        assert any("x: its commas" in text and "--thousands ," in text for text in found.warnings)
        assert not any(text.startswith("y:") for text in found.warnings)  # 0,123 settles it

    def test_points_among_whole_numbers_are_doubted(self, tmp_path):
        texts = [f"{n:,}".replace(",", ".") for n in np.random.default_rng(5).integers(1, 9000, 60)]
        path = write(tmp_path / "t.csv", csv_of(x=texts))
        found = planned(path)
        assert [text for text in found.warnings if "--thousands . --decimal ," in text]
        assert len(found.warnings) == 1
        fixed = write(tmp_path / "f.csv", csv_of(x=[f"{v:.3f}" for v in 100 + numbers()]))
        assert planned(fixed).warnings == ()

    @pytest.mark.parametrize(
        ("form", "option"),
        [("{:.1f}%", "--strip %"), ("${:.2f}", "--strip"), ("{:.1f} °C", "--strip '°C'")],
    )
    def test_inputs_are_not_lost_without_a_hint(self, tmp_path, form, option):
        texts = [form.format(value) for value in np.abs(numbers())]
        found = planned(write(tmp_path / "t.csv", csv_of(x=texts, w=numbers(seed=3))))
        assert any(text.startswith("x: ") and option in text for text in found.warnings)

    def test_limits_are_no_numbers(self, tmp_path):
        texts = [f"{v:.2f}" if v > 0.3 else "<0.30" for v in np.abs(numbers())]
        path = write(tmp_path / "t.csv", csv_of(x=texts, w=numbers(seed=3)))
        assert "is a limit, not a number" in refusal(planned, path)
        assert decision_on(path, cells=Cells(limits_as_missing=True)).kind == "number"
        values = column_of(path, cells=Cells(limits_as_missing=True))
        np.testing.assert_array_equal(np.isnan(values), [text[0] == "<" for text in texts])

    def test_units_that_differ_are_warned_of(self, tmp_path):
        texts = [f"{v:.1f} {'°F' if i % 7 else '°C'}" for i, v in enumerate(numbers())]
        path = write(tmp_path / "t.csv", csv_of(x=texts))
        found = planned(path, Cells(strip=("°C", "°F")))
        assert any("'°F' in 51, '°C' in 9 of 60" in text for text in found.warnings)

    def test_what_typesetters_and_fortran_write_is_read(self, tmp_path):
        texts = [f"{v:.3E}".replace("E", "D").replace("-", "\u2212") for v in numbers()]
        path = write(tmp_path / "t.csv", csv_of(x=texts))
        np.testing.assert_allclose(column_of(path), numbers(), rtol=1e-3)
        assert decision_on(path).kind == "number"


class TestMissing:
    SPELLINGS = (
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
        "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
        "na", "n.a.", "--", "-", ".", r"\N", "#DIV/0!", "#VALUE!", "(null)", "missing",
        "*", "?", "Missing", "N.A.", "\u2014",
    )  # fmt: skip

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_among_numbers_dates_and_truths(self, spelling):
        assert decide(profiled(["1.5", spelling, "2", "3"])).kind == "number"
        assert decide(profiled(["yes", spelling, "no"])).kind == "boolean"
        assert decide(profiled(["2024-01-05", spelling, "2024-02-05"])).kind == "date"
        assert np.isnan(Cells().numbers(pyarrow.array([spelling])).numbers[0])

    def test_the_list_is_that_of_pandas_and_more(self):
        from pandas._libs.parsers import STR_NA_VALUES

        for text in STR_NA_VALUES:
            assert Cells().values(pyarrow.array([text])).null_count == 1, text

    def test_signs_are_categories(self):
        assert decide(profiled(["+", "-", "+", "-"])).why == "2 different texts"
        assert Cells().texts(pyarrow.array(["-", "--", "?", "."])).null_count == 0

    @pytest.mark.parametrize(("code", "count"), [(-999.0, 10), (-9999.0, 1), (1e20, 2)])
    def test_numbers_that_often_mean_missing_are_doubted(self, tmp_path, code, count):
        values = numbers(seed=3)
        values[:count] = code
        path = write(tmp_path / "t.csv", csv_of(x=values, w=numbers(seed=4) * 400))
        found = planned(path).warnings
        assert len(found) == 1
        assert f"x: {code:g} in {count} cells is far from all others" in found[0]
        assert f"--missing-value {code:g}" in found[0]
        assert planned(path, Cells(missing=(f"{code:g}",))).warnings == ()
        as_target = planned(path, targets=("x",)).warnings
        assert any(text.startswith("x: ") for text in as_target)

    def test_categories_keep_none_and_na(self):
        texts = ["None", "NA", "brick", "brick", "NA", "None", ""]
        profile = profiled(texts)
        assert decide(profile).why.startswith("3 different")
        assert profile.gaps("category") == 1
        assert Cells().texts(pyarrow.array(texts)).null_count == 1
        assert Cells(missing=("NA",)).texts(pyarrow.array(texts)).null_count == 3

    def test_a_batch_of_words_alone_is_counted(self):
        profile = Profile("x", Cells())
        for start, texts in ((0, ["None", "None"]), (2, ["Garage", "Garage"])):
            profile.update(pyarrow.array(texts), np.arange(start, start + 2))
        assert decide(profile).kind == "category"

    @pytest.mark.parametrize("share", [0.02, 0.17, 0.5, 0.8])
    @pytest.mark.parametrize("n", [40, 400])
    def test_codes_among_numbers_are_named_whatever_their_share(self, tmp_path, share, n):
        texts = [f"{v:.3f}" for v in numbers(n)]
        for i in range(max(1, round(share * n))):
            texts[(7 * i) % n] = "sensor off" if i % 2 else "ooo"
        path = write(tmp_path / "t.csv", csv_of(n, x=texts, w=numbers(n, 3)))
        text = refusal(planned, path)
        assert "column 'x' holds numbers, except for 'ooo' in line 2 of t.csv" in text
        assert "--missing-value ooo" in text
        cells = Cells(missing=("ooo", "sensor off"))
        assert decision_on(path, cells=cells).kind == "number"

    def test_grades_are_categories(self):
        found = decide(profiled(["1", "2", "A", "3", "1", "2", "B", "A", "3"]))
        assert found.kind == "category"
        assert "all but 'A', 'B' are numbers" in found.advice

    def test_what_was_asked_for_names_the_first_unreadable_cell(self, tmp_path):
        texts = ["1.5", "2", "3", "x1", "4", *map(str, range(54)), "x2"]
        path = write(tmp_path / "t.csv", csv_of(x=texts))
        text = refusal(planned, path, kinds={"x": "number"})
        assert "'x1' in line 5" in text


QUOTED = [f'{i}.5,{i % 7},"a text"' for i in range(300)]


class TestQuotes:
    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        monkeypatch.setattr(lines_module, "BLOCK", 300)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_never_closed_in_the_last_field(self, tmp_path, end):
        lines = ["y,z,note", *QUOTED]
        lines[121] = '1.5,2,"a text'
        lines = [line.replace('"', "") if i > 121 else line for i, line in enumerate(lines)]
        path = write(tmp_path / "t.csv", end.join(lines) + end)
        text = refusal(lambda: list(open_table(path).batches(["y"])))
        assert "line 122: a quote opens here and is never closed" in text
        assert "--no-quotes" in text
        table = open_table(path, Reading(quotes=False))
        assert sum(batch.num_rows for batch in table.batches(["y"])) == 300

    def test_closed_by_the_quote_of_a_later_row(self, tmp_path):
        lines = ["y,z,note", *QUOTED]
        lines[121] = '1.5,2,"a text'
        path = write(tmp_path / "t.csv", "\n".join(lines))
        text = refusal(lambda: list(open_table(path).batches(["y"])))
        assert "line 122: a quote opens here and closes in line 123" in text

    def test_closed_at_the_end_of_a_later_row(self, tmp_path):
        lines = ["y,z,note", *(line.replace('"', "") for line in QUOTED)]
        lines[121], lines[200] = '1.5,2,"', '1.5,2,"'
        path = write(tmp_path / "t.csv", "\n".join(lines))
        text = refusal(lambda: list(open_table(path).batches(["y"])))
        assert "line 122: a quote opens here and closes in line 201, after what look like" in text

    def test_in_a_first_or_middle_field(self, tmp_path):
        lines = ["note,y,z", *(f"b,{i}.5,{i % 7}" for i in range(300))]
        lines[200] = '"a text,1.5,2'
        path = write(tmp_path / "t.csv", "\n".join(lines))
        text = refusal(lambda: list(open_table(path).batches(["y"])))
        assert "line 201: a quote opens here and is never closed" in text

    def test_texts_of_several_lines_and_inches_are_right(self, tmp_path):
        notes = ["one\ntwo", 'say ""a"", b', "plain", "five, six\n\nseven", "x\r\ny"]
        lines = [f'{i},"{notes[i % 5]}",{i % 3}" pipe' for i in range(200)]
        path = write(tmp_path / "t.csv", "\n".join(["y,note,size", *lines]))
        frame = pyarrow.Table.from_batches(list(open_table(path).batches())).to_pandas()
        assert frame["y"].tolist() == [str(i) for i in range(200)]
        assert frame["note"][1] == 'say "a", b'
        assert frame["size"][4] == '1" pipe'
        wanted = "\n".join(["y,note,size", *lines]).split("\n").index('7,"plain",1" pipe') + 1
        assert open_table(path).place(7) == f"line {wanted}"


class TestIndex:
    def frame(self):
        return pandas.DataFrame({"y": numbers(), "x": numbers(seed=4)})

    def test_of_parquet(self, tmp_path):
        frame = self.frame().sample(frac=1.0, random_state=0)
        frame.to_parquet(tmp_path / "t.parquet")
        frame.rename_axis("id").to_parquet(tmp_path / "n.parquet")
        frame.rename_axis(["id"]).reset_index().to_parquet(tmp_path / "r.parquet", index=False)
        found = planned(tmp_path / "t.parquet", targets=("y",))
        assert found.preprocessing.columns == ["x"]
        assert "__index_level_0__: left out" in found.notes[0]
        assert planned(tmp_path / "n.parquet", targets=("y",)).preprocessing.columns == ["x"]
        assert "id" in planned(tmp_path / "r.parquet", targets=("y",)).preprocessing.columns

    def test_saved_again_and_again_and_out_of_order(self, tmp_path):
        shuffled = self.frame().sample(frac=1.0, random_state=0)
        shuffled.to_csv(tmp_path / "1.csv")
        pandas.read_csv(tmp_path / "1.csv").to_csv(tmp_path / "2.csv")
        twice = pandas.read_csv(tmp_path / "2.csv")
        twice.to_csv(tmp_path / "3.csv", index=False)
        twice.to_parquet(tmp_path / "3.parquet", index=False)
        for name in ("3.csv", "3.parquet"):
            assert open_table(tmp_path / name).index == ("Unnamed: 0.1", "Unnamed: 0")
            assert planned(tmp_path / name, targets=("y",)).preprocessing.columns == ["x"]
        shuffled.reset_index().to_csv(tmp_path / "r.csv", index=False)
        assert planned(tmp_path / "r.csv", targets=("y",)).preprocessing.columns == ["x"]
        moved = twice[["x", "y", "Unnamed: 0"]]
        moved.to_csv(tmp_path / "m.csv", index=False)
        assert planned(tmp_path / "m.csv", targets=("y",)).preprocessing.columns == ["x"]

    @pytest.mark.parametrize("name", ["", "Unnamed: 0"])
    def test_of_text(self, tmp_path, name):
        shuffled = self.frame().sample(frac=1.0, random_state=0)
        shuffled.rename_axis(name).to_csv(tmp_path / "t.csv")
        found = planned(tmp_path / "t.csv", targets=("y",))
        assert found.preprocessing.columns == ["x"]
        assert len(found.notes) == 1

    def test_it_comes_back_if_asked_for(self, tmp_path):
        self.frame().rename_axis("Unnamed: 0").to_csv(tmp_path / "t.csv")
        for options in ({"features": ("x", "Unnamed: 0")}, {"kinds": {"Unnamed: 0": "category"}}):
            found = planned(tmp_path / "t.csv", targets=("y",), **options)
            assert "Unnamed: 0" in {one.column for one in found.decisions}
            assert not any("left out" in note for note in found.notes)


PREAMBLES = {
    "titles": ("Report of station 7\nexported 2024-05-05\n\n", {"skip_rows": 3}),
    "a wide title": ("Report,of,station\n", {"skip_rows": 1}),
    "comments": ("# a, b, c, d, e\n# more\n", {"comment": "#"}),
    "a sep line": ("sep=,\n", {}),
    "a quoted sep line": ('"sep=,"\n', {}),
}


class TestPreambles:
    @pytest.mark.parametrize("kind", PREAMBLES)
    def test_it_is_skipped_and_lines_are_those_of_the_file(self, tmp_path, kind):
        before, options = PREAMBLES[kind]
        path = write(tmp_path / "t.csv", before + csv_of(x=numbers(seed=3)))
        table = open_table(path, Reading(**options))
        assert table.columns == ("y", "z", "x")
        np.testing.assert_array_equal(column_of(path, "y", Reading(**options)), numbers(seed=1))
        assert table.place(4) == f"line {before.count(chr(10)) + 6}"

    @pytest.mark.parametrize("kind", ["titles", "a wide title", "comments"])
    def test_without_the_option_it_is_named(self, tmp_path, kind):
        before, options = PREAMBLES[kind]
        path = write(tmp_path / "t.csv", before + csv_of(x=numbers(seed=3)))
        lines = before.count("\n")
        text = refusal(planned, path)
        assert f"line {lines + 1}: use --skip-rows {lines}" in text
        assert ("or --comment '#'" in text) == ("comment" in options)

    def test_names_with_commas_below_a_title(self, tmp_path):
        rows = csv_of(x=numbers(seed=3)).replace("y,z,", '"NOx, ppb","CO, ppm",', 1)
        path = write(tmp_path / "t.csv", "Report\n\n" + rows)
        wanted = columns_named(["NOx, ppb", "CO, ppm"], open_table(path).columns)
        assert "use --skip-rows 2" in refusal(planned, path, targets=wanted)

    def test_another_separator_after_a_title(self, tmp_path):
        text = "Report of station 7\n\n" + csv_of(x=numbers(seed=3)).replace(",", ";")
        path = write(tmp_path / "t.csv", text)
        assert "use --skip-rows 2" in refusal(planned, path)
        assert open_table(path, Reading(";", skip_rows=2)).columns == ("y", "z", "x")

    @pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
    def test_a_sep_line_names_the_separator(self, tmp_path, first):
        text = f"{first}\r\n" + csv_of().replace(",", ";").replace("\n", "\r\n")
        path = write(tmp_path / "t.csv", text)
        assert open_table(path).columns == ("y", "z")
        np.testing.assert_array_equal(column_of(path, "z"), numbers(seed=2))

    def test_a_row_of_units_and_a_loggers_header(self, tmp_path):
        rows = csv_of(x=numbers(seed=3)).split("\n", 1)
        path = write(tmp_path / "u.csv", f"{rows[0]}\nm/s,°C,ppb\n{rows[1]}")
        assert "--units-row" in refusal(planned, path)
        table = open_table(path, Reading(units_row=1))
        assert table.notes == ("units 'm/s', '°C', 'ppb'",)
        assert table.place(0) == "line 3"
        np.testing.assert_array_equal(column_of(path, "y", Reading(units_row=1)), numbers(seed=1))
        path = write(
            tmp_path / "TOA5.dat",
            f'"TOA5","CR1000","prog","17"\n{rows[0]}\n"TS","RN","V"\n"","Avg","Smp"\n{rows[1]}',
        )
        reading = Reading(skip_rows=1, units_row=2)
        np.testing.assert_array_equal(column_of(path, "x", reading), numbers(seed=3))

    def test_footers(self, tmp_path):
        path = write(tmp_path / "t.csv", csv_of(x=numbers(seed=3)) + "\nSource: us\nAll rights\n\n")
        text = refusal(planned, path)
        assert "line 63: 1 fields where the header has 3" in text
        assert "--skip-footer 2" in text
        values = column_of(path, "x", Reading(skip_footer=2))
        np.testing.assert_array_equal(values, numbers(seed=3))
        path = write(tmp_path / "s.csv", csv_of(x=numbers(seed=3)) + "Total,1.5,2\n")
        assert "f the last row is no data, use --skip-footer 1" in refusal(planned, path)

    def test_comments_within(self, tmp_path):
        lines = csv_of(x=numbers(seed=3)).splitlines()
        lines.insert(30, "# calibrated again")
        path = write(tmp_path / "t.csv", "\n".join(lines))
        assert "--comment '#'" in refusal(planned, path)
        reading = Reading(comment="#")
        np.testing.assert_array_equal(column_of(path, "x", reading), numbers(seed=3))
        table = open_table(path, reading)
        assert table.place(29) == "line 32"
        list(table.batches())
        assert table.notes == ("1 line left out as comments",)

    @pytest.mark.parametrize(
        ("header", "row"), [("y,z", "1,2.5,3"), ("y,z,w", "1,2.5,3,"), ("y,z,w,", "1,2.5,3")]
    )
    def test_a_header_is_never_called_a_preamble(self, tmp_path, header, row):
        path = write(tmp_path / "t.csv", "\n".join([header, *[row] * 40]))
        text = refusal(lambda: list(open_table(path).batches()))
        assert "--skip-rows" not in text
        assert "name each column in the header" in text

    @pytest.mark.parametrize("header", ['"y,z,w', 'y,"z,w', 'y,z,"w'])
    def test_a_quote_that_opens_in_the_header(self, tmp_path, header):
        rows = [f"{i},2,3" for i in range(40)]
        path = write(tmp_path / "t.csv", "\n".join([header, *rows]))
        assert "line 1: a quote opens here and is never closed" in refusal(open_table, path)

    def test_a_line_of_blanks_is_no_row(self, tmp_path):
        lines = csv_of(x=numbers(seed=3)).splitlines()
        lines.insert(30, "   ")
        path = write(tmp_path / "t.csv", "\n".join(lines))
        np.testing.assert_array_equal(column_of(path), numbers(seed=3))
        assert open_table(path).place(29) == "line 32"

    def test_a_first_row_is_no_row_of_units(self, tmp_path):
        path = write(tmp_path / "t.csv", csv_of(x=numbers(seed=3)))
        assert "--no-units-row" in refusal(open_table, path, Reading(units_row=1))

    def test_a_header_of_years(self, tmp_path):
        path = write(tmp_path / "t.csv", "2019,2020,2021\n1,2,3\n4,5,6\n")
        assert "--numeric-header" in refusal(open_table, path)
        assert open_table(path, Reading(numeric_header=True)).columns == ("2019", "2020", "2021")

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
    def test_wide_encodings(self, tmp_path, encoding):
        text = "größe,y\n" + "".join(f"{v},{i}\n" for i, v in enumerate(numbers(3000)))
        path = write(tmp_path / "t.csv", text, encoding)
        values = column_of(path, "größe", Reading(encoding=encoding))
        np.testing.assert_array_equal(values, numbers(3000))
        if encoding == "utf-16-le":
            assert "--encoding utf-16-le" in refusal(open_table, path)
            marked = write(tmp_path / "m.csv", codecs.BOM_UTF16_LE + text.encode(encoding))
            assert open_table(marked, Reading(encoding=encoding)).columns == ("größe", "y")


def seconds(*arguments):
    return datetime.datetime(*arguments, tzinfo=datetime.UTC).timestamp()


class TestDates:
    @pytest.mark.parametrize(
        ("texts", "options", "wanted"),
        [
            (["01/02/2024 24:00", "31/12/2024 24:00", "13/02/2024 01:00"], {},
             [(2024, 2, 2), (2025, 1, 1), (2024, 2, 13, 1)]),
            (["2024-02-28 24:00:00", "2024-03-01 05:00:00"], {},
             [(2024, 2, 29), (2024, 3, 1, 5)]),
            (["13/02/2024 10:00", "14/02/2024", "15/02/2024 11:30"], {},
             [(2024, 2, 13, 10), (2024, 2, 14), (2024, 2, 15, 11, 30)]),
            (["2024-02-13 10:00", "2024-02-14"], {}, [(2024, 2, 13, 10), (2024, 2, 14)]),
            (["2024-02-13 10:00 UTC", "2024-02-13T10:00Z", "2024-02-13 10:00+02:00"], {},
             [(2024, 2, 13, 10), (2024, 2, 13, 10), (2024, 2, 13, 8)]),
            (["13.02.2024 10:00 UTC", "13.02.2024 10:00Z", "13.02.2024 10:00 -0530"], {},
             [(2024, 2, 13, 10), (2024, 2, 13, 10), (2024, 2, 13, 15, 30)]),
            (["2/13/2024 12:00AM", "2/13/2024 12:30 PM", "2/13/2024 1:05pm", "2/14/2024"], {},
             [(2024, 2, 13), (2024, 2, 13, 12, 30), (2024, 2, 13, 13, 5), (2024, 2, 14)]),
            (["03/04/2024", "04/05/2024"], {"day_first": True}, [(2024, 4, 3), (2024, 5, 4)]),
            (["03/04/2024", "04/05/2024"], {"day_first": False}, [(2024, 3, 4), (2024, 4, 5)]),
            (["2024|060", "2024|061"], {"formats": ("%Y|%j",)}, [(2024, 2, 29), (2024, 3, 1)]),
        ],
    )  # fmt: skip
    def test_they_are_read_as_written(self, texts, options, wanted):
        cells = Cells(dates=DateReading(**options))
        profile = Profile("x", cells)
        profile.update(pyarrow.array(texts), np.arange(len(texts)))
        decision = decide(profile)
        assert decision.kind == "date"
        found = cells.instants(pyarrow.array(texts), decision.form)
        np.testing.assert_array_equal(
            found.numbers, [seconds(*w, *[1] * (3 - len(w))) for w in wanted]
        )

    def test_times_of_day(self):
        texts = ["24:00", "23:59", "00:01"]
        decision = decide(profiled(texts))
        found = Cells().times_of_day(pyarrow.array(texts), decision.form).numbers
        np.testing.assert_array_equal(found, [0.0, 86340.0, 60.0])

    def test_numbers_are_dates_if_a_format_says_so(self, tmp_path):
        days = [f"202401{i % 28 + 1:02d}" for i in range(ROWS)]
        cells = Cells(dates=DateReading(("%Y%m%d",)))
        path = write(tmp_path / "t.csv", csv_of(x=days))
        found = decision_on(path, cells=cells, kinds={"x": "date"})
        assert "2024-01-01 to 2024-01-28" in found.why
        frame = pandas.DataFrame({"y": numbers(), "x": np.array(days, int)})
        frame.to_parquet(tmp_path / "t.parquet")
        found = decision_on(
            tmp_path / "t.parquet", cells=cells, targets=("y",), kinds={"x": "date"}
        )
        assert "2024-01-01 to 2024-01-28" in found.why
        assert decision_on(path).kind == "number"

    def test_times_in_another_form_are_not_called_missing(self, tmp_path):
        days = [f"{i % 28 + 1:02d}/02/2024 10:00" for i in range(300)]
        for i in range(9):
            days[31 * i] = f"2024-03-{i + 1:02d} 10:00"
        path = write(tmp_path / "t.csv", csv_of(300, x=days, w=numbers(300)))
        text = refusal(planned, path)
        assert "--missing-value" not in text
        assert "--date-format" in text
        both = Cells(dates=DateReading(("%d/%m/%Y %H:%M", "%Y-%m-%d %H:%M")))
        found = next(d for d in planned(path, both).decisions if d.column == "x")
        assert (found.kind, found.why[:24]) == ("date", "2024-02-01 to 2024-03-09")

    def test_a_later_file_may_have_another_order(self):
        texts = pyarrow.array(["03/04/2024", "05/06/2024 24:00"])
        for given, wanted in (
            ({"day_first": False}, [(2024, 3, 4), (2024, 5, 7)]),
            ({"day_first": True}, [(2024, 4, 3), (2024, 6, 6)]),
            ({}, [(2024, 4, 3), (2024, 6, 6)]),
        ):
            cells = Cells(dates=DateReading(**given))
            found = cells.instants(texts, "%d/%m/%Y %H:%M").numbers
            np.testing.assert_array_equal(found, [seconds(*parts) for parts in wanted])
        other = Cells(dates=DateReading(("%Y|%j",))).instants(
            pyarrow.array(["2024|060", "01/03/2024"]), "%d/%m/%Y"
        )
        np.testing.assert_array_equal(other.numbers, [seconds(2024, 2, 29), seconds(2024, 3, 1)])

    def test_other_columns_keep_their_forms(self, tmp_path):
        days = {"a": [f"2024|{i + 1:03d}" for i in range(60)],
                "b": [f"2024-01-{i % 28 + 1:02d}" for i in range(60)]}  # fmt: skip
        path = write(tmp_path / "t.csv", csv_of(**days))
        found = planned(path, Cells(dates=DateReading(("%Y|%j",))))
        assert [d.kind for d in found.decisions] == ["date", "date"]

    def test_a_header_that_is_repeated(self, tmp_path):
        lines = csv_of(x=numbers(seed=3)).splitlines()
        lines.insert(30, lines[0])
        text = refusal(planned, write(tmp_path / "t.csv", "\n".join(lines)))
        assert "'y' in line 31" in text
        assert "f the header is repeated there" in text

    def test_years_of_two_digits(self):
        first = profiled([f"23-01-{i:02d}" for i in range(1, 31)])
        assert decide(first).form == "%y-%m-%d"
        assert "the year could be elsewhere" in decide(first).why
        assert decide(profiled(["31-12-23", "01-01-24", "15-06-23"])).form == "%d-%m-%y"
        wide = decide(profiled([f"21-01-{i}" for i in range(60, 80)]))
        assert "read as 1969 to 2068" in wide.advice

    @pytest.mark.parametrize(
        ("form", "number"), [("unix", "1706745600"), ("excel", "45323"), ("excel", "45323.0")]
    )
    def test_serial_numbers(self, form, number):
        cells = Cells(dates=DateReading((form,)))
        for column in (pyarrow.array([number]), pyarrow.array([float(number)])):
            found = cells.instants(column, form).numbers
            np.testing.assert_array_equal(found, [seconds(2024, 2, 1)])
        assert "unix (seconds" in refusal(DateReading, ("tomorrow",))

    @pytest.mark.parametrize(
        ("form", "texts", "wanted"),
        [
            ("%H%M", ["102", "2359", "0"], [3720.0, 86340.0, 0.0]),
            ("%d%m%Y", ["1112023", "11112023"], [seconds(2023, 11, 1), seconds(2023, 11, 11)]),
        ],
    )
    def test_leading_zeros_that_were_lost(self, form, texts, wanted):
        cells = Cells(dates=DateReading((form,)))
        read = cells.instants if "%d" in form else cells.times_of_day
        np.testing.assert_array_equal(read(pyarrow.array(texts), form).numbers, wanted)

    def test_formats_that_are_none_and_days_that_are_none(self, tmp_path):
        days = [f"2023-02-{i % 28 + 1:02d}" for i in range(300)]
        days[7] = "2023-02-30"
        path = write(tmp_path / "t.csv", csv_of(300, x=days, w=numbers(300)))
        text = refusal(planned, path)
        assert "'2023-02-30' in line 9" in text
        assert "--missing-value 2023-02-30" in text
        for form in ("%Q", "%s"):
            assert f"--date-format {form}" in refusal(
                planned, path, Cells(dates=DateReading((form,)))
            )

    def test_an_order_that_does_not_fit_is_named(self, tmp_path):
        days = [f"{i % 28 + 1:02d}/02/2023" for i in range(ROWS)]
        path = write(tmp_path / "t.csv", csv_of(x=days, w=numbers(seed=3)))
        found = planned(path, Cells(dates=DateReading(day_first=False)))
        assert any("would be dates with --day-first" in text for text in found.warnings)

    def test_rows_without_a_time(self, tmp_path):
        days = [f"2024-02-{i % 28 + 1:02d}" for i in range(200)]
        days[70] = ""
        path = write(tmp_path / "t.csv", csv_of(200, x=days, w=numbers(200)))
        text = refusal(planned, path, time="x")
        assert "line 72 of t.csv has no time" in text
        assert "--skip-untimed" in text
        found = planned(path, time="x", skip_untimed=True)
        assert 70 not in found.rows
        assert len(found.rows) == 199
        assert any("1 rows have no x" in note for note in found.notes)


class TestTruths:
    def test_one_and_zero_are_true_and_false_where_that_was_trained_on(self):
        texts = pyarrow.array(["True", "0", "1", "false", "1.0", None, "2"])
        found = Cells().truths(texts)
        np.testing.assert_array_equal(found.numbers, [1, 0, 1, 0, 1, np.nan, np.nan])
        assert found.unreadable.tolist() == [False] * 6 + [True]
        typed = Cells().truths(pyarrow.array([1, 0, 2]))
        assert typed.unreadable.tolist() == [False, False, True]
        assert decide(profiled(["True", "0", "1", "False"])).kind == "boolean"
        assert decide(profiled(["1", "0", "1", "0"])).kind == "number"


class TestNames:
    COLUMNS = ("NOx, ppb", "NOx", "ppb", "CO", "a,b", "a")

    @pytest.mark.parametrize(
        ("texts", "names"),
        [
            (["NOx, ppb"], ("NOx, ppb",)),
            (["NOx, ppb,CO"], ("NOx, ppb", "CO")),
            (["NOx,CO"], ("NOx", "CO")),
            (["NOx", "ppb"], ("NOx", "ppb")),
            (["a,b,CO , NOx"], ("a,b", "CO", "NOx")),
            (["a, CO"], ("a", "CO")),
            (["none,CO"], ("none", "CO")),
            ([" CO,"], ("CO",)),
            ([], ()),
        ],
    )
    def test_the_longest_that_exist_win(self, texts, names):
        assert columns_named(texts, self.COLUMNS) == names
