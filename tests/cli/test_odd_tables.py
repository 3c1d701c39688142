"""The command on odd tables: no wrong answer and no lost value without a word."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run

pytestmark = pytest.mark.once

QUICK = ["--epochs", "1", "--hidden", "4", "--covariance", "diagonal", "--members", 1]
QUICK += [
    "--no-baselines",
    "--tails",
    "normal",
    "--cv",
    "none",
    "--embedding",
    "none",
    "--mean",
    "none",
]


def frame(n=90, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    names = ["NOx, ppb [µg/m³]", "CO, ppm"]
    data = {"wind": x[:, 0], "sun": x[:, 1], **dict(zip(names, y.T, strict=True))}
    return pandas.DataFrame(data).round(3)


TARGETS = ["--targets", "NOx, ppb [µg/m³]", "--targets", "CO, ppm"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit to a table with a title, semicolons, decimal commas, and °C beside numbers."""
    folder = tmp_path_factory.mktemp("odd")
    table = frame()
    table["sun"] = [f"{v} °C".replace(".", ",") for v in table["sun"]]
    table["where"] = np.where(np.arange(90) % 3, "None", "north")
    text = "Report\n\n" + table.to_csv(index=False, sep=";", decimal=",")
    (folder / "t.csv").write_text(text)
    options = ["--skip-rows", 2, "--separator", ";", "--decimal", ",", "--strip", "°C"]
    arguments = ["fit", folder / "t.csv", *TARGETS, "--out", folder / "fit", *options, *QUICK]
    return folder, table, run(*arguments)


class TestOptions:
    def test_targets_repeated_are_all_targets(self, fitted):
        folder, _, result = fitted
        about = json.loads((folder / "fit/fit.json").read_text())
        assert about["targets"] == ["NOx, ppb [µg/m³]", "CO, ppm"]
        assert about["columns"] == ["wind", "sun", "where"]
        assert "where: category, 2 different texts" in result.output

    def test_one_list_splits_at_names_that_exist(self, tmp_path):
        frame().to_csv(tmp_path / "t.csv", index=False)
        targets = ["--targets", "CO, ppm,NOx, ppb [µg/m³]", "--features", "wind"]
        run(
            "fit",
            tmp_path / "t.csv",
            *targets,
            "--features",
            "sun",
            "--out",
            tmp_path / "f",
            *QUICK,
        )
        about = json.loads((tmp_path / "f/fit.json").read_text())
        assert about["targets"] == ["CO, ppm", "NOx, ppb [µg/m³]"]
        assert about["columns"] == ["wind", "sun"]
        kept = run("predict", tmp_path / "f", tmp_path / "t.csv", "--keep", "sun", "--keep", "wind")
        assert kept.stdout.startswith("sun,wind,")

    def test_drop_is_repeatable_and_a_column_is_grouped_by_once(self, tmp_path):
        frame().assign(a=1.5, b=2.5).to_csv(tmp_path / "t.csv", index=False)
        arguments = ["fit", tmp_path / "t.csv", *TARGETS, "--out", tmp_path / "f", *QUICK]
        run(*arguments, "--drop", "a", "--drop", "wind,b")
        assert json.loads((tmp_path / "f/fit.json").read_text())["columns"] == ["sun"]
        text = run(*arguments, "--group", "a", "--group", "b", code=2).stderr
        assert "--group is given 2 times" in text

    def test_they_are_kept_and_may_be_overridden(self, fitted, tmp_path):
        folder, table, _ = fitted
        found = run("predict", folder / "fit", folder / "t.csv")
        same = found.stdout
        assert "lines of t.csv are left out as in the fit: --skip-rows=2" in found.stderr
        plain = table.assign(sun=[t.replace(",", ".").rstrip(" °C") for t in table["sun"]])
        plain.to_csv(tmp_path / "plain.csv", index=False)
        text = refused("predict", folder / "fit", tmp_path / "plain.csv")
        assert "plain.csv" in text
        options = ["--skip-rows", 0, "--separator", ","]
        text = refused("predict", folder / "fit", tmp_path / "plain.csv", *options)
        assert "'wind' must hold numbers, as in training; found '0.126' in line 2" in text
        assert "--decimal . reads '0.126' as 0.126" in text
        options = ["--skip-rows", 0, "--separator", ",", "--decimal", "."]
        assert run("predict", folder / "fit", tmp_path / "plain.csv", *options).stdout == same
        comma = refused("condition", folder / "fit", folder / "t.csv", "--given", "CO, ppm=0,5")
        assert "a point: CO, ppm=0.5" in comma
        plain.astype({"sun": float}).to_parquet(tmp_path / "plain.parquet")
        assert run("predict", folder / "fit", tmp_path / "plain.parquet").stdout == same

    def test_evaluate_and_condition_read_alike(self, fitted):
        folder, _, _ = fitted
        told = run("evaluate", folder / "fit", folder / "t.csv", "--json")
        assert json.loads(told.stdout)["rows"] == 90
        rest = run("condition", folder / "fit", folder / "t.csv", "--given", "CO, ppm=@CO, ppm")
        assert len(rest.stdout.splitlines()) == 91

    def test_a_mark_for_both_is_refused(self, fitted, tmp_path):
        folder, _, _ = fitted
        arguments = ["fit", folder / "t.csv", *TARGETS, "--out", tmp_path / "f"]
        assert "--decimal , as well" in refused(*arguments, "--thousands", ".")
        assert "expected one of" in refused(*arguments, "--thousands", "x")

    def test_names_of_predictions_are_checked_before_training(self, tmp_path):
        table = frame().rename(columns={"wind": "a", "sun": "a_b"})
        table.columns = ["a", "a_b", "c", "b_c"]
        table.assign(x=1.0 * np.arange(90)).to_csv(tmp_path / "t.csv", index=False)
        text = refused(
            "fit", tmp_path / "t.csv", "--targets", "a,a_b,c,b_c", "--out", tmp_path / "f"
        )
        assert "a_b_c_correlation" in text

    def test_inputs_that_are_all_text_name_the_option(self, tmp_path):
        table = frame()[["NOx, ppb [µg/m³]"]].set_axis(["y"], axis=1)
        table.assign(x=[f"{v}%" for v in frame()["wind"]]).to_csv(tmp_path / "t.csv", index=False)
        text = refused("fit", tmp_path / "t.csv", "--targets", "y", "--out", tmp_path / "f")
        assert "no input is left" in text
        assert "--strip % reads" in text

    def test_they_are_in_the_help_of_each_command(self):
        for name in ("fit", "predict", "evaluate", "condition"):
            text = run(name, "--help").stdout
            for option in (
                *("--skip-rows", "--skip-footer", "--comment", "--units-row", "--no-quotes"),
                *("--numeric-header", "--thousands", "--strip", "--accounting", "--decimal"),
                *("--limits-as-missing", "--missing-value", "--date-format", "--day-first"),
            ):
                assert option in text, (name, option)


class TestFindings:
    def with_gaps(self, folder, table, rows):
        table = table.copy()
        table.loc[rows, "wind"] = np.nan
        table.to_csv(folder / "new.csv", index=False, sep=";", decimal=",")
        return folder / "new.csv", ["--skip-rows", 0]

    @pytest.mark.parametrize("rows", [[3, 7], list(range(90))])
    def test_cells_missing_only_now_are_told_and_counted(self, fitted, tmp_path, rows):
        folder, table, _ = fitted
        path, options = self.with_gaps(tmp_path, table, rows)
        words = f"wind: {len(rows)} of 90 rows have no value"
        out = ["--out", tmp_path / "p.csv", "--json"]
        found = run("predict", folder / "fit", path, *options, *out)
        assert words in found.stderr
        assert json.loads(found.stdout)["imputed"] == {"wind": len(rows)}
        found = run("evaluate", folder / "fit", path, *options, "--json")
        assert words in found.stderr
        assert json.loads(found.stdout)["imputed"] == {"wind": len(rows)}
        found = run("condition", folder / "fit", path, *options, *out, "--given", "CO, ppm=1")
        assert words in found.stderr
        assert json.loads(found.stdout)["imputed"] == {"wind": len(rows)}

    @pytest.mark.parametrize("name", ["predict", "evaluate", "condition"])
    def test_strict_refuses_them(self, fitted, tmp_path, name):
        folder, table, _ = fitted
        path, options = self.with_gaps(tmp_path, table, [3, 7])
        given = ["--given", "CO, ppm=1"] if name == "condition" else []
        text = refused(name, folder / "fit", path, *options, *given, "--strict")
        assert "'wind' has no value in line 5 of new.csv" in text

    def test_complete_rows_say_nothing(self, fitted, tmp_path):
        folder, table, _ = fitted
        path, options = self.with_gaps(tmp_path, table[:50], [])
        found = run("predict", folder / "fit", path, *options, "--strict", "--json",
                    "--out", tmp_path / "p.csv")  # fmt: skip
        assert "warning" not in found.stderr
        assert json.loads(found.stdout)["imputed"] == {}

    def test_a_cell_that_is_no_number_is_named_by_its_line(self, fitted, tmp_path):
        folder, table, _ = fitted
        table = table.assign(wind=[f"{v}".replace(".", ",") for v in table["wind"]])
        table.loc[40, "wind"] = "calm"
        path, options = self.with_gaps(tmp_path, table, [])
        text = refused("predict", folder / "fit", path, *options)
        assert (
            "'wind' must hold numbers, as in training; found 'calm' in line 42 of new.csv" in text
        )

    def test_a_quote_that_swallows_rows_loses_none(self, fitted, tmp_path):
        folder, table, _ = fitted
        path, options = self.with_gaps(tmp_path, table, [])
        lines = path.read_text().splitlines()
        lines[60] = lines[60].rsplit(";", 1)[0] + ';"None'
        path.write_text("\n".join(lines))
        text = refused("predict", folder / "fit", path, *options, "--out", tmp_path / "p.csv")
        assert "line 61: a quote opens here" in text
        assert not (tmp_path / "p.csv").exists()
