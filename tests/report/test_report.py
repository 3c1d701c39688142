"""The report: its numbers by SciPy, its rules on planted faults, and the page in a real browser."""

import dataclasses
import inspect
import itertools
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.stats
import yaml
from markdown_it import MarkdownIt

from keras_mvn import Mixture, MultivariateNormal, MultivariateStudentT, calibration, report
from keras_mvn.calibration import diagnose
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.report import _advice, _figures, _format, _render, _svg
from keras_mvn.report._learning import learning_of
from keras_mvn_cli.fit import fit
from structures import STRUCTURES, named

pytestmark = pytest.mark.once

HOSTILE = (
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "a|b_c_ *d* `e`",
    "\"quoted\" & 'x'",
)


def normals(rng, n, d, names=None):
    """Correlated predictions whose covariances differ from row to row."""
    lower = np.tril(0.5 * rng.normal(size=(n, d, d)), -1)
    lower += np.exp(0.3 * rng.normal(size=(n, d)))[..., None] * np.eye(d)
    return MultivariateNormal(10 * rng.normal(size=(n, d)), scale_tril=lower, target_names=names)


def with_tails(normal):
    """Student's t with the same means and scale matrices, and ν from 3.5 to 8."""
    nu = np.linspace(3.5, 8.0, len(normal)).round(1)
    return MultivariateStudentT(
        normal.mean, nu, scale_tril=normal.scale_tril, target_names=normal.target_names
    )


def report_data(rng, n=400, d=3, model=None, y=None, others=None, **changes):
    """A report of a model that is right, unless said otherwise."""
    model = normals(rng, n, d) if model is None else model
    n, d = model.mean.shape
    fields = {
        "title": "A title",
        "source": "table.csv",
        "rows": {"train": 800, "validation": 100, "calibration": 100, "test": n},
        "inputs": ("u", "v", "kind"),
        "targets": model.target_names or tuple(f"t{j}" for j in range(d)),
        "covariance": "cholesky",
        "command": "keras-mvn fit table.csv --targets t0,t1",
        "versions": {"keras": "3.12"},
        "created": "2026-01-31",
        "predictions": {"model": model, **(others or {})},
        "y": model.sample(seed=1) if y is None else y,
        "x": {
            "u": rng.normal(size=n),
            "v": rng.normal(size=n),
            "kind": rng.choice(["p", "q"], size=n),
        },
        "row_labels": np.array([f"row-{i:04d}" for i in range(n)]),
        "history": {},
        "calibration": "",
        "decisions": ("Column v was read as a number.",),
        "seconds": 12.0,
    }
    return report.ReportData(**{**fields, **changes})


def advice(data):
    """kind → sentences of the section that says what to do."""
    found = {}
    for line in report.to_markdown(data).split("## Comparison")[0].split("\n"):
        if match := re.match(r"- \*\*(To do|Note|Good)\.\*\* (.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def table(markdown, first):
    """A Markdown table as row header → cells, by the beginning of its heading row."""
    lines = markdown.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        header, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[re.sub(r"(?<!^in) \(.*", "", header)] = cells
    return rows


def value(cell):
    """The number of "1.23 ± 0.04"."""
    return float(cell.split(" ±")[0].replace("−", "-").replace(" %", ""))


class TestNumbers:
    @pytest.fixture
    def data(self, rng):
        model = normals(rng, 300, 3)
        diagonal = MultivariateNormal(model.mean, covariance=model.variance[..., None] * np.eye(3))
        y = model.sample(seed=1)
        y[::7, 1] = np.nan
        return report_data(rng, model=model, y=y, others={"diagonal": diagonal})

    @staticmethod
    def nll(normal, y):
        """−log density of what was observed, row by row, by SciPy."""
        found = []
        for mean, covariance, row in zip(normal.mean, normal.covariance, y, strict=True):
            seen = np.flatnonzero(~np.isnan(row))
            part = scipy.stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
            found.append(-part.logpdf(row[seen]))
        return np.array(found)

    def test_likelihoods_and_their_paired_difference(self, data):
        shown = table(report.to_markdown(data), "| score |")
        count = (~np.isnan(data.y)).sum()
        totals = {name: self.nll(normal, data.y) for name, normal in data.predictions.items()}
        for column, name in enumerate(["model", "diagonal"]):
            assert value(shown["NLL"][column]) == pytest.approx(totals[name].mean(), abs=0.01)
            per_target = totals[name].sum() / count
            assert value(shown["NLL per target"][column]) == pytest.approx(per_target, abs=1e-3)
        gain = (totals["diagonal"] - totals["model"]).sum() / count
        assert value(shown["The model gains"][1]) == pytest.approx(gain, abs=1e-3)
        (sentence,) = [text for text in advice(data)["Good"] if "diagonal" in text]
        assert f"by {gain:.3f} " in sentence
        assert "correlations matter" in sentence

    def test_coverage_and_errors(self, data):
        markdown = report.to_markdown(data)
        shown = table(markdown, "| score |")
        residual = data.y - data.model.mean
        squared = []
        for r, covariance in zip(residual, data.model.covariance, strict=True):
            seen = np.flatnonzero(~np.isnan(r))
            q = r[seen] @ np.linalg.solve(covariance[np.ix_(seen, seen)], r[seen])
            squared.append(scipy.stats.chi2.cdf(q, len(seen)))
        coverage = 100 * np.mean(np.array(squared) <= 0.9)
        assert value(shown["Coverage of the 90 % region"][0]) == pytest.approx(coverage, abs=0.05)
        assert f"covers {coverage:.1f} % of 300 test rows" in markdown
        targets = table(markdown, "| target | RMSE |")
        for j, name in enumerate(data.targets):
            e = residual[:, j] / data.model.stddev[:, j]
            rmse, _, inside, bias, size = map(value, targets[name])
            assert rmse == pytest.approx(np.sqrt(np.nanmean(residual[:, j] ** 2)), rel=5e-3)
            held = np.mean(np.abs(e[~np.isnan(e)]) <= scipy.stats.norm.ppf(0.95))
            assert inside == pytest.approx(100 * held, abs=0.05)
            assert bias == pytest.approx(np.nanmean(e), abs=0.005)
            assert size == pytest.approx(np.sqrt(np.nanmean(e**2)), rel=5e-3)

    def test_rows_that_are_furthest_off(self, data):
        y = data.y.copy()
        y[41] = data.model.mean[41] + 9.0 * data.model.stddev[41] * [0, 0, 1]
        markdown = report.to_markdown(report_data(np.random.default_rng(0), model=data.model, y=y))
        first = next(iter(table(markdown, "| row | distance").items()))
        assert first[0] == "row-0041"
        assert first[1][2:] == ["t2", "+9.0"]

    @pytest.mark.parametrize("structure", STRUCTURES, ids=named)
    def test_any_structure(self, structure, rng):
        shape = 0.4 * rng.normal(size=(60, structure.shape_size(4)))
        scale = np.exp(0.2 * rng.normal(size=(60, 1 if structure.name == "isotropic" else 4)))
        y_pred = np.concatenate([rng.normal(size=(60, 4)), np.ones((60, 4)) * scale, shape], axis=1)
        data = report_data(rng, model=MultivariateNormal.from_prediction(y_pred, structure))
        shown = table(report.to_markdown(data), "| score |")
        expected = self.nll(data.model, data.y).mean()
        assert value(shown["NLL"][0]) == pytest.approx(expected, abs=0.01)


class TestAdvice:
    def test_of_a_model_that_is_right(self, rng):
        """p < 0.01 in few of many: a rule that fires on chance would fire here."""
        acts = [
            sentence
            for seed in range(20)
            for sentence in advice(report_data(np.random.default_rng(seed), n=500)).get("To do", [])
        ]
        assert len(acts) <= 4, acts

    @pytest.mark.parametrize(("factor", "word"), [(0.7, "too small"), (1.4, "too large")])
    def test_on_the_size_of_the_regions(self, factor, word, rng):
        model = normals(rng, 2000, 3)
        y = model.sample(seed=2)
        wrong = model.rescale(factor)
        sentence = advice(report_data(rng, model=wrong, y=y))["To do"][0]
        temperature = float(re.search(r"a single temperature would be ([\d.]+)\.", sentence)[1])
        assert word in sentence
        assert temperature == pytest.approx(1 / factor, rel=0.03)
        again = advice(report_data(rng, model=wrong, y=y, others={"uncalibrated": model}))["To do"]
        assert "was already recalibrated on 100 rows" in again[0]
        assert not any("targets are off" in sentence for sentence in again)

    def test_before_and_after_recalibration(self, rng):
        model = normals(rng, 2000, 3)
        data = report_data(
            rng, model=model, others={"uncalibrated": model.rescale(0.7)}, calibration="by 1.43"
        )
        before = 100 * np.mean(
            model.mahalanobis(data.y) ** 2 / 0.49 <= scipy.stats.chi2.ppf(0.9, 3)
        )
        (note,) = advice(data)["Note"]
        assert f"from {before:.1f} % to" in note
        assert "To do" not in advice(data)

    def test_on_heavy_tails(self, rng):
        model = normals(rng, 2000, 3)
        t = rng.normal(size=(2000, 3)) / np.sqrt(rng.chisquare(4, size=(2000, 1)) / 2)
        y = model.mean + (model.scale_tril @ t[..., None])[..., 0]
        for already in (False, True):
            data = report_data(rng, model=model, y=y, calibrated_for_coverage=already)
            (text,) = [text for text in advice(data)["To do"] if "Tails are heavier" in text]
            assert ("--calibration coverage" in text) != already
            assert '"conformal"' in text

    def test_light_tails_are_not_called_heavy(self, rng):
        """All rows at about the same distance: far from normal, the other way."""
        model = normals(rng, 1000, 3)
        z = rng.normal(size=(1000, 3))
        z *= np.sqrt(3) / np.linalg.norm(z, axis=1, keepdims=True)
        y = model.mean + (model.scale_tril @ z[..., None])[..., 0]
        data = report_data(rng, model=model, y=y)
        assert "tails" in report.to_markdown(data).split("Deviations beyond chance")[1]
        assert "Tails are heavier" not in " ".join(advice(data).get("To do", []))

    def test_on_one_target(self, rng):
        model = normals(rng, 2000, 4)
        y = model.mean + (model.sample(seed=3) - model.mean) * [1.0, 1.0, 1.5, 1.0]
        found = [t for t in advice(report_data(rng, model=model, y=y))["To do"] if "1 of 4" in t]
        held = 100 * np.mean(
            np.abs(y - model.mean)[:, 2] <= scipy.stats.norm.ppf(0.95) * model.stddev[:, 2]
        )
        assert f"{held:.1f} % of t2" in found[0]

    def test_on_means_that_are_off(self, rng):
        model = normals(rng, 2000, 2)
        y = model.sample(seed=4) + 0.3 * model.stddev * [0, 1]
        found = advice(report_data(rng, model=model, y=y))["To do"]
        assert any(
            "not zero on average" in t and re.search(r"\+0\.(2\d|3\d) \(t1\)", t) for t in found
        )

    def test_on_a_part_of_the_data(self, rng):
        model = normals(rng, 2000, 2)
        kind = rng.choice(["good", "bad"], size=2000, p=[0.9, 0.1])
        wide = np.where(kind == "bad", 2.0, 1.0)[:, None]
        y = model.mean + wide * (model.sample(seed=5) - model.mean)
        found = advice(report_data(rng, model=model, y=y, x={"kind": kind}))["To do"]
        assert any(t.startswith("Where kind = bad, the 90 % region covers") for t in found)

    def test_on_a_part_whose_squared_distances_are_right_on_average(self, rng):
        """A quarter of its rows outside the 90 % region, the others too near."""
        model = normals(rng, 2000, 2)
        bad = np.arange(2000) < 400
        z = rng.normal(size=(2000, 2))
        squared = np.where(np.arange(2000) % 4 == 0, 5.0, 1.0)
        z[bad] *= np.sqrt(squared / (z**2).sum(axis=1))[bad, None]
        y = model.mean + (model.scale_tril @ z[..., None])[..., 0]
        x = {f"u{j}": rng.normal(size=2000) for j in range(12)}
        found = advice(report_data(rng, model=model, y=y, x={**x, "bad": bad.astype(int)}))["To do"]
        assert any(
            t.startswith("Where bad = 1, the 90 % region covers 75.0 % of 400 rows") for t in found
        )

    def test_on_alternatives_that_do_as_well(self, rng):
        n = 1000
        mean = rng.normal(size=(n, 2))
        constant = MultivariateNormal(mean, covariance=np.stack([np.diag([1.0, 4.0])] * n))
        model = MultivariateNormal(
            mean, covariance=constant.covariance * np.exp(0.5 * rng.normal(size=(n, 1, 1)))
        )
        others = {"constant Σ": constant, "diagonal": constant}
        found = advice(report_data(rng, model=model, y=constant.sample(seed=6), others=others))
        text = " ".join(found["To do"])
        assert "A constant covariance does better" in text
        assert "The diagonal model does better" in text
        assert "--covariance auto tries both" in text.replace("`", "")
        chosen = ("cholesky", "constant covariance")
        data = report_data(
            rng, model=model, y=constant.sample(seed=6), others=others, chosen_from=chosen
        )
        text = " ".join(advice(data)["To do"])
        assert "between cholesky and constant covariance, train on more rows" in text
        assert "--covariance auto tries" not in text

    @pytest.mark.parametrize(
        ("covariance", "alternative", "words"),
        [
            ("diagonal", "diagonal", "The chosen covariance is diagonal"),
            ("cholesky, the same for all rows", "constant Σ", "is the same for all rows"),
        ],
    )
    def test_no_comparison_with_itself(self, covariance, alternative, words, rng):
        model = normals(rng, 400, 2)
        twin = MultivariateNormal(model.mean + 1e-3, covariance=model.covariance)
        data = report_data(rng, model=model, others={alternative: twin}, covariance=covariance)
        text = report.to_markdown(data)
        assert any(words in note for note in advice(data)["Note"])
        assert "does as well" not in text
        assert "does better" not in text
        assert alternative not in text.split("| score |")[1].split("\n")[0]

    def test_equal_predictions_are_not_compared(self, rng):
        """Whatever the structure is called: an ensemble has no name for it."""
        model = normals(rng, 400, 2)
        text = report.to_markdown(report_data(rng, model=model, others={"diagonal": model}))
        assert "The model gains" not in text
        assert "The chosen covariance is diagonal" in text

    def test_a_constant_covariance_that_other_scores_contradict(self, rng):
        """Copies: the likelihood is that of the noise between them, CRPS and energy are not."""
        n = 600
        a = rng.normal(size=n)
        y = np.stack([a, 2.0 * a], axis=1)
        model = MultivariateNormal(0.9 * y, covariance=np.stack([[[0.05, 0.0], [0.0, 0.2]]] * n))
        narrow = 9.0 * (np.outer([1.0, 2.0], [1.0, 2.0]) + 1e-9 * np.eye(2))
        constant = MultivariateNormal(np.zeros((n, 2)), covariance=np.stack([narrow] * n))
        data = report_data(rng, model=model, y=y, others={"constant Σ": constant})
        found = advice(data)
        assert not any("Use the constant" in text for text in found["To do"])
        assert any(text.startswith("t1 is (nearly) a copy of t0") for text in found["To do"])
        (note,) = [text for text in found["Note"] if "A constant covariance" in text]
        assert "does better" in note
        assert "but the model has a better CRPS" in note
        assert "energy score" in note
        assert "nearly singular" in note

    @pytest.mark.parametrize("n", [4, 30])
    def test_with_few_rows_nothing_is_chosen_by_them(self, n, rng):
        mean = rng.normal(size=(n, 2))
        constant = MultivariateNormal(mean, covariance=np.stack([np.eye(2)] * n))
        model = constant.rescale(np.exp(0.7 * rng.normal(size=n)))
        others = {"constant Σ": constant, "diagonal": constant, "uncalibrated": constant}
        data = report_data(rng, model=model, y=constant.sample(seed=6), others=others)
        first = report.to_markdown(data).split("## What to do next")[1].split("\n- ")[1]
        assert f"{n} test rows tell us little" in first
        acts = " ".join(advice(data).get("To do", []))
        assert not re.search("constant|diagonal|likelihood", acts)
        assert "Good" not in advice(data)

    def test_calibration_with_few_rows(self):
        """Several tests at once: of 300 models that are right about 1 % are called wrong."""
        called = 0
        for seed in range(300):
            rng = np.random.default_rng(seed)
            found = diagnose(model := normals(rng, 12, 2), model.sample(seed=seed))
            called += bool(found.deviations)
        assert called <= 10  # 3 expected; p = 1e-3

    def test_verdicts_do_not_contradict(self, rng):
        """Of the right size on average, but heavy-tailed: not "good"."""
        model = normals(rng, 2000, 3)
        t = rng.normal(size=(2000, 3)) / np.sqrt(rng.chisquare(4, size=(2000, 1)) / 4)
        y = model.mean + (model.scale_tril @ t[..., None])[..., 0]
        t = np.sqrt((model.mahalanobis(y) ** 2).mean() / 3)
        data = report_data(rng, model=model.rescale(t), y=y, others={"uncalibrated": model})
        assert not any("no evidence that" in text for text in advice(data).get("Good", []))
        assert any("but not calibrated (" in text for text in advice(data)["Note"])
        before = report.to_markdown(data).split("**Before.**")[1].split("\n")[0]
        assert "Deviations beyond chance" in before

    def test_recalibration_that_changes_no_coverage(self, rng):
        model = normals(rng, 400, 2)
        data = report_data(rng, model=model, others={"uncalibrated": model.rescale(1.0 + 1e-9)})
        (note,) = [text for text in advice(data)["Note"] if "Recalibration" in text]
        assert re.search(r"left the coverage of the 90 % region at \d\d\.\d %, and changed", note)

    @pytest.mark.parametrize("missing", ["", None])
    def test_missing_categories(self, missing, rng):
        model = normals(rng, 1200, 2)
        kind = rng.choice(np.array(["p", "q", missing], dtype=object), size=1200)
        gone = np.array([value == missing for value in kind])
        y = model.mean + np.where(gone, 2.0, 1.0)[:, None] * (model.sample(seed=5) - model.mean)
        data = report_data(rng, model=model, y=y, x={"kind": kind})
        shown = table(report.to_markdown(data), "| rows where |")
        assert set(shown) == {"all rows", "kind is missing", "kind = p", "kind = q"}
        assert int(shown["kind is missing"][0]) == gone.sum()
        assert any(t.startswith("Where kind is missing, the") for t in advice(data)["To do"])

    def test_no_negative_zeros(self):
        cells = [
            _format.number(-0.0),
            _format.estimate(-0.0, 0.0),
            _format.estimate(-1e-4, 0.012),
            _format.estimate(-1e-9, 1e-3),
            _format.signed(-1e-9),
        ]
        assert not any("−" in cell for cell in cells), cells

    def test_actions_can_be_taken(self):
        """Every option is one of `keras-mvn fit`, every parameter one of the estimator."""
        source = inspect.getsource(_advice)
        options = {name for one in fit.params for name in one.opts}
        assert (found := set(re.findall(r"--[a-z][a-z-]+", source))) <= options
        assert {"--covariance", "--calibration", "--epochs", "--seed"} <= found
        parameters = inspect.signature(MultivariateNormalRegressor).parameters
        calls = re.findall(r"\{PYTHON\}\((\w+)=|or \((\w+)=", source)
        named_parameters = {one or other for one, other in calls}
        assert {"calibration", "target_transform", "constant"} <= named_parameters
        assert named_parameters <= set(parameters)
        for name in re.findall(r"keras_mvn\.calibration\.([A-Z]\w+)", source):
            assert hasattr(calibration, name)
        choices = next(one for one in fit.params if one.name == "calibration").type.choices
        assert set(re.findall(r"--calibration (\w+)", source)) <= set(choices)
        for value in re.findall(r'calibration="(\w+)"', source):
            assert calibration_kind(value) is not None

    def test_on_targets_that_the_inputs_do_not_explain(self, rng):
        model = MultivariateNormal(
            np.stack([np.zeros(900), 5 * rng.normal(size=900)], axis=1),
            covariance=np.stack([np.eye(2)] * 900),
        )
        (note,) = advice(report_data(rng, model=model))["Note"]
        assert "means of t0 (RMSE 1.00) are" in note

    def test_few_rows(self, rng):
        (note,) = [t for t in advice(report_data(rng, n=100))["Note"] if "test rows" in t]
        assert "±6 points" in note  # 2 · √(0.9 · 0.1/100)

    def test_learning_curves(self, rng):
        epochs = np.arange(60)
        falling = np.exp(-epochs / 10)
        valley = 1.0 + 0.5 * ((epochs - 20) / 20) ** 2
        history = {"loss": list(falling), "val_loss": list(valley)}
        notes = advice(report_data(rng, history=history))["Note"]
        assert any(
            t.startswith("From epoch 21 to 60 the training loss fell from 0.135") for t in notes
        )
        history = {"loss": list(falling), "val_loss": list(1.0 + falling)}
        acts = advice(report_data(rng, history=history))["To do"]
        assert any("best in epoch 60 of 60" in t for t in acts)
        flat = {"loss": list(falling), "val_loss": list(1.0 + np.maximum(falling, falling[40]))}
        assert not learning_of(flat).overfitted
        assert not learning_of(flat).cut_short
        broken = {"loss": [1.0, np.nan, 0.5], "val_loss": [1.0, 0.9, 0.8]}
        acts = advice(report_data(rng, history=broken))["To do"]
        assert any("not finite in 1 epoch, the first being epoch 2" in t for t in acts)


class TestDependence:
    def test_an_input_that_changes_a_correlation(self, rng):
        n = 1200
        u = rng.uniform(-1, 1, size=n)
        covariance = np.stack([np.eye(3)] * n)
        covariance[:, 0, 1] = covariance[:, 1, 0] = 0.8 * u
        covariance[:, 1, 2] = covariance[:, 2, 1] = 0.5
        model = MultivariateNormal(np.zeros((n, 3)), covariance=covariance)
        y = model.sample(seed=7)
        data = report_data(rng, model=model, y=y, x={"u": u, "noise": rng.normal(size=n)})
        markdown = report.to_markdown(data)
        (line,) = [x for x in markdown.split("\n") if x.startswith("- t0 and t1")]
        assert re.search(r"u changes it most: from −0\.(59|6\d) \(u in", line)
        shown = table(markdown, "| u | rows | predicted")
        edges = np.quantile(u, [0, 0.25, 0.5, 0.75, 1])
        for k, (count, predicted, found, _) in enumerate(shown.values()):
            rows = (u > edges[k]) & (u <= edges[k + 1])
            rows |= (k == 0) & (u == edges[0])
            assert int(count) == rows.sum()
            assert value(predicted) == pytest.approx(0.8 * u[rows].mean(), abs=0.005)
            assert value(found) == pytest.approx(np.corrcoef(y[rows, :2].T)[0, 1], abs=0.005)
        (line,) = [x for x in markdown.split("\n") if x.startswith("- t1 and t2")]
        assert "+0.50 on average, the same in all rows" in line

    def test_inputs_that_do_not_are_not_named(self, rng):
        """Every pair of every report, at p < 0.01: about one in a hundred."""
        named_inputs = 0
        for seed in range(20):
            markdown = report.to_markdown(report_data(np.random.default_rng(100 + seed), n=200))
            named_inputs += markdown.count("changes it most") + markdown.count("changes it much")
        assert named_inputs <= 4

    def test_the_most_correlated_of_many_targets(self, rng):
        covariance = np.eye(30)
        for i in range(6):
            covariance[i, 29 - i] = covariance[29 - i, i] = 0.9 - 0.05 * i
        model = MultivariateNormal(
            np.zeros((50, 30)), covariance=np.broadcast_to(covariance, (50, 30, 30))
        )
        shown = table(report.to_markdown(report_data(rng, model=model)), "| | t0 |")
        assert list(shown) == [f"t{i}" for i in (0, 1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29)]


class TestShapes:
    @pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 3), (5, 1), (5, 2), (40, 30), (400, 2)])
    def test_small_and_wide(self, n, d, rng):
        model = normals(rng, n, d)
        y = model.sample(seed=8)
        y[rng.random(y.shape) < 0.2] = np.nan
        y[0, 0] = 0.0
        data = report_data(rng, model=model, y=y, others={"uncalibrated": model.rescale(0.9)})
        text = report.to_html(data)
        assert "nan" not in _visible(text).lower().replace("covariance", "")
        assert len(text) < 3e6

    def test_low_rank_with_hundreds_of_targets(self, rng):
        y_pred = np.concatenate(
            [rng.normal(size=(30, 300)), np.ones((30, 300)), 0.3 * rng.normal(size=(30, 600))],
            axis=1,
        )
        structure = next(s for s in STRUCTURES if s.name == "low_rank")
        text = report.to_html(
            report_data(rng, model=MultivariateNormal.from_prediction(y_pred, structure))
        )
        assert "The 12 targets of 300" in text
        assert "Variogram" not in text

    def test_rows_and_targets_without_observations(self, rng):
        model = normals(rng, 50, 3)
        y = model.sample(seed=9)
        y[:, 1] = np.nan
        y[3] = np.nan
        markdown = report.to_markdown(report_data(rng, model=model, y=y))
        assert "not evaluated: t1" in markdown
        assert list(table(markdown, "| target | RMSE |")) == ["t0", "t2"]
        assert "of 49 rows" in markdown

    def test_very_many_inputs(self, rng):
        x = {f"u{j}": rng.normal(size=40) for j in range(2000)}
        markdown = report.to_markdown(report_data(rng, n=40, x=x, inputs=tuple(x)))
        assert "u59 and 1940 more; the first 300 columns" in markdown

    def test_a_constant_target(self, rng):
        model = normals(rng, 50, 2)
        y = model.sample(seed=9)
        y[:, 0] = 4.0
        report.to_html(report_data(rng, model=model, y=y))

    def test_three_megabytes_are_enough_for_many_rows_of_twelve(self, rng):
        text = report.to_html(report_data(rng, n=1500, d=12))
        assert len(text.encode()) < 3e6

    def test_the_embedded_rows(self, rng):
        model = normals(rng, 700, 3)
        y = model.sample(seed=1)
        y[333] = model.mean[333] + 30.0
        explorer = _explorer(report.to_html(report_data(rng, model=model, y=y)))
        assert len(explorer["labels"]) <= 300
        assert "row-0333" in explorer["labels"]
        for k, label in enumerate(explorer["labels"]):
            i = int(label[4:])
            lower = np.zeros((3, 3))
            lower[np.tril_indices(3)] = explorer["parts"][k][0]["factor"]
            np.testing.assert_allclose(lower @ lower.T, model.covariance[i], rtol=1e-7, atol=1e-7)
            np.testing.assert_allclose(explorer["parts"][k][0]["mean"], model.mean[i], rtol=1e-8)
            np.testing.assert_allclose(explorer["observed"][k], y[i], rtol=1e-8)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"predictions": {}}, "'model' first"),
            ({"y": np.zeros((400, 2))}, r"y has shape \(400, 2\)"),
            ({"y": np.full((400, 3), np.nan)}, "nothing to report"),
            ({"y": np.full((400, 3), np.inf)}, "infinite"),
            ({"x": {"u": np.zeros(3)}}, r"x\['u'\] has shape"),
            ({"row_labels": np.zeros(399)}, "399 row_labels"),
            ({"targets": ("a", "a", "b")}, "3 different names"),
        ],
    )
    def test_what_does_not_fit(self, changes, message, rng):
        with pytest.raises(ValueError, match=message):
            report_data(rng, **changes)


# --- the files -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Start tags with their attributes, and text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._stack.append(tag)

    def handle_endtag(self, tag):
        if self._stack and self._stack[-1] == tag:
            self._stack.pop()

    def handle_data(self, data):
        if not self._stack:
            self.words.append(data)


def _visible(text):
    return " ".join(Page(text).words)


def _explorer(text):
    return json.loads(
        re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1]
    )


@pytest.fixture
def hostile(rng):
    """Names, labels and values that are markup."""
    model = normals(rng, 60, 4, HOSTILE)
    x = {HOSTILE[1]: rng.normal(size=60), HOSTILE[0]: rng.choice(HOSTILE, size=60)}
    fields = dict.fromkeys(("title", "source", "covariance", "command", "calibration"), HOSTILE[1])
    return report_data(
        rng,
        model=model,
        x=x,
        inputs=tuple(x),
        row_labels=np.array([f"{HOSTILE[i % 4]} {i}" for i in range(60)]),
        others={"uncalibrated": model.rescale(0.9), HOSTILE[0]: model.rescale(1.2)},
        versions={HOSTILE[1]: HOSTILE[0]},
        decisions=HOSTILE,
        **fields,
    )


class TestFiles:
    def test_names_that_are_markup(self, hostile):
        text = report.to_html(hostile)
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("script") == 2
        assert not any(tag == "b" and attrs for tag, attrs in page.tags)
        bold = re.findall(r"<b>(.*?)</b>", text)
        assert set(bold) == {"Before.", "After."}
        assert _explorer(text)["targets"] == list(HOSTILE)
        for name in HOSTILE:
            assert name in " ".join(page.words)

    def test_names_that_are_markup_in_markdown(self, hostile):
        text = report.to_markdown(hostile)
        html = MarkdownIt("commonmark").enable("table").render(text)
        page = Page(html)
        assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "em", "a", "img"})
        tables = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
        firsts = [
            ["".join(Page(cell).words) for cell in re.findall(r"<tr>\n<td>(.*?)</td>", rows)]
            for rows in tables
        ]
        assert firsts.count(list(HOSTILE)) == 2  # targets, and their correlations
        code = [Page(found).words[0].strip() for found in re.findall("<code>.*?</code>", html)]
        assert code == [HOSTILE[1]]  # the command

    def test_self_contained(self, rng):
        text = report.to_html(report_data(rng))
        for tag, attrs in Page(text).tags:
            assert "src" not in attrs
            assert attrs.get("href", "#").startswith(("#", "data:")), tag
            assert not any(name.startswith("on") for name in attrs)
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)

    def test_structure(self, rng):
        tags = Page(report.to_html(report_data(rng, history={"loss": [2.0, 1.0]}))).tags
        assert tags[0] == ("html", {"lang": "en"})
        ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        assert all("scope" in attrs for tag, attrs in tags if tag == "th")
        assert all(attrs.get("aria-label") for tag, attrs in tags if tag == "svg")
        for _, attrs in tags:
            for name in ("aria-labelledby", "for"):
                assert attrs.get(name, ids[0]) in ids
            if attrs.get("href", "").startswith("#"):
                assert attrs["href"][1:] in ids

    def test_contrast(self):
        """WCAG AA: 4.5 for text, 3 for lines."""

        def luminance(color):
            channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
            linear = np.where(
                channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
            )
            return float(linear @ [0.2126, 0.7152, 0.0722])

        def contrast(a, b):
            light, dark = sorted([luminance(a), luminance(b)], reverse=True)
            return (light + 0.05) / (dark + 0.05)

        def full(color):
            return color if len(color) == 7 else "#" + "".join(2 * c for c in color[1:])

        schemes = re.findall(r":root \{(.*?)\}", _render._read("style.css"), re.DOTALL)
        assert len(schemes) == 3
        for scheme in schemes:
            colors = {k: full(v) for k, v in re.findall(r"--(\w+): (#\w+);", scheme)}
            for name in ("ink", "soft", "link", "act", "good"):
                assert contrast(colors[name], colors["paper"]) >= 4.5, (name, scheme)
            for name in ("c0", "c1", "c2", "c3", "c4", "c5"):
                assert contrast(colors[name], colors["paper"]) >= 3, (name, scheme)
        for rho in np.linspace(-1, 1, 21):
            assert contrast("#111111", _figures.heat(rho)) >= 4.5

    def test_write(self, rng, tmp_path):
        data = report_data(rng)
        paths = report.write(data, tmp_path / "new" / "folder")
        assert [path.name for path in paths] == ["report.html", "report.md", "model_card.md"]
        assert paths[0].read_text(encoding="utf-8") == report.to_html(data)
        assert paths[1].read_text(encoding="utf-8") == report.to_markdown(data)
        names = ["model_card.md", "report.html", "report.md"]
        assert sorted(p.name for p in paths[0].parent.iterdir()) == names
        assert paths[2].read_text(encoding="utf-8") == _render._model_card(
            data, _render._find(data)
        )

    def test_write_leaves_what_was_there_if_it_fails(self, rng, tmp_path, monkeypatch):
        (tmp_path / "report.html").write_text("before")

        def fail(*_):
            raise RuntimeError("no")

        monkeypatch.setattr(_render, "_markdown", fail)
        with pytest.raises(RuntimeError):
            report.write(report_data(rng), tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        assert (tmp_path / "report.html").read_text() == "before"

    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_model_card(self, rng, hostile, tmp_path):
        data = dataclasses.replace(report_data(rng), title=hostile, source=hostile)
        _, front, text = report.write(data, tmp_path)[2].read_text("utf-8").split("---\n", 2)
        metadata = yaml.safe_load(front)
        assert metadata["library_name"] == "keras"
        (entry,) = metadata["model-index"]
        assert entry["name"] == hostile
        metrics = {one["type"]: one["value"] for one in entry["results"][0]["metrics"]}
        found = _render._find(data).comparison.model
        assert metrics["rmse"] == pytest.approx(found["rmse"].mean, rel=1e-3)
        assert "<script>" not in MarkdownIt().render(text)
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == ["Model", "Use", "Training data", "Evaluation", "Limits"]

    def test_markdown_has_every_section(self, rng):
        data = report_data(rng, history={"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
        text = report.to_markdown(data)
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == [
            "What to do next",
            "Comparison on the test rows",
            "Is it calibrated?",
            "Which targets move together",
            "Where the model is worst",
            "Learning curves",
            "Data and training",
        ]
        assert len(table(text, "| rows where |")["all rows"]) == 4
        for words in ("table.csv", "800 train, 100 validation", data.command, "12 s", "keras 3.12"):
            assert words in text
        assert "training loss went from 2.00 to 1.00" in text


class TestDrawing:
    def test_ticks(self):
        for low, high in [(0, 1), (-3.3, 12.1), (1e-9, 3e-9), (-2e6, 5e7)]:
            found = np.array(_svg.ticks(low, high))
            assert 3 <= len(found) <= 9
            assert low <= found.min()
            assert found.max() <= high
            np.testing.assert_allclose(np.diff(found), found[1] - found[0], rtol=1e-6)

    def test_places(self):
        chart = _svg.Chart((0, 10), (-1, 1), "x", "y", (400, 300))
        x, y = chart.place([0, 10], [-1, 1])
        assert (x[0], y[0]) == (_svg.LEFT, 300 - _svg.BOTTOM)
        assert (x[1], y[1]) == (400 - _svg.RIGHT, _svg.TOP)

    def test_reliability_curve_is_the_empirical_distribution(self, rng):
        data = report_data(rng, n=200)
        figure = _figures.calibration_figures(_render._find(data).calibration)[0]
        path = re.search(r'class="line c0" d="M([^"]*)"', figure.svg)[1]
        points = np.array([list(map(float, p.split())) for p in path.split("L")])
        chart = _svg.Chart((0, 100), (0, 100), "", "", (400, 340))
        pit = scipy.stats.chi2.cdf(data.model.mahalanobis(data.y) ** 2, 3)
        levels = np.array([0, *np.arange(1, 20) / 20, 0.99, 1])
        expected = chart.place(100 * levels, [100 * np.mean(pit <= p + 1e-12) for p in levels])
        np.testing.assert_allclose(points.T, expected, atol=0.06)


# --- in a browser --------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and not os.environ.get("KMVN_REQUIRE_BROWSER"):
        pytest.skip("needs a Chromium or Chrome on the PATH")
    from playwright import sync_api

    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a report; at the end, nothing may have been complained of, or fetched."""
    complaints, contexts = [], []

    def open_(data, width=1600, **options):
        path = report.write(data, tmp_path)[0]
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:"))
                else complaints.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def shown(page, target):
    """Mean and standard deviation that the page gives for a target, given what is fixed."""
    cell = page.locator("#rows tr").nth(target).locator("td[data-head^=Given] data")
    return float(cell.get_attribute("value")), float(cell.get_attribute("data-stddev"))


def axes_of(page):
    """From the drawing to data, by the positions and labels of the ticks."""
    ticks = page.eval_on_selector_all(
        "#drawing text:not(.axis)",
        "all => all.map((t) => [t.getAttribute('text-anchor'), +t.getAttribute('x'), "
        "+t.getAttribute('y'), t.textContent.replace('−', '-')])",
    )
    across = np.polyfit(*np.array([(x, float(v)) for a, x, _, v in ticks if a == "middle"]).T, 1)
    up = np.polyfit(*np.array([(y - 4, float(v)) for a, _, y, v in ticks if a == "end"]).T, 1)
    return lambda points: np.stack(
        [np.polyval(across, np.array(points)[:, 0]), np.polyval(up, np.array(points)[:, 1])], axis=1
    )


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.slow
class TestBrowser:
    @pytest.mark.parametrize(("width", "tails"), [(400, "normal"), (1600, "normal"), (1600, "t")])
    def test_conditioning_is_that_of_python(self, width, tails, open_page, rng):
        model = normals(rng, 50, 4)
        data = report_data(rng, model=model if tails == "normal" else with_tails(model))
        page = open_page(data, width)
        page.select_option("#row", label="row-0017")
        normal = data.model[17]
        for target in range(4):
            mean, sd = shown(page, target)
            assert mean == pytest.approx(normal.mean[target], rel=1e-7)
            assert sd == pytest.approx(normal.stddev[target], rel=1e-7)
        page.get_by_label("Fix t2 at", exact=True).fill("1.25")
        page.get_by_role("button", name="Fix t0 at its observed value").click()
        given = normal.condition({"t2": 1.25, "t0": data.y[17, 0]})
        for k, target in enumerate((1, 3)):
            mean, sd = shown(page, target)
            assert mean == pytest.approx(given.mean[k], rel=1e-6)
            assert sd == pytest.approx(given.stddev[k], rel=1e-6)
            text = page.locator("#rows tr").nth(target).inner_text().replace("−", "-")
            assert f"{given.mean[k]:.4g}" in text
            lower, upper = given.interval(0.9)
            assert f"{lower[k]:.3g} to {upper[k]:.3g}" in text
        assert shown(page, 2) == (1.25, 0.0)
        assert "Given" in page.locator("#said").inner_text()
        assert overflow(page) <= 0
        page.get_by_role("button", name="Release all").click()
        assert shown(page, 1)[1] == pytest.approx(normal.stddev[1], rel=1e-7)
        page.get_by_label("Fix t2 at, slider").press("ArrowRight")
        value = float(page.get_by_label("Fix t2 at", exact=True).input_value())
        assert shown(page, 2)[0] == value > normal.mean[2]

    @pytest.mark.parametrize("tails", ["normal", "t"])
    def test_a_mixture(self, tails, open_page, rng):
        """Means and intervals are those of Python, and the region holds 90 % of draws."""
        names = ["t0", "t1", "t2"]
        parts = [
            MultivariateNormal(0.2 * one.mean + by, scale_tril=one.scale_tril, target_names=names)
            for one, by in ((normals(rng, 20, 3), 0.0), (normals(rng, 20, 3), 3.0))
        ]
        parts = parts if tails == "normal" else [with_tails(one) for one in parts]
        share = rng.uniform(0.3, 0.7, size=20)
        model = Mixture(parts, np.stack([share, 1.0 - share]))
        page = open_page(report_data(rng, model=model))
        page.select_option("#row", label="row-0007")
        path = page.locator("#drawing .ellipse.prior").get_attribute("d")
        points = axes_of(page)([list(map(float, p.split())) for p in re.split("[ML]", path)[1:]])
        pair = model[7].marginal(["t0", "t1"])
        limits = pair.log_prob(points)
        drawn = pair.log_prob(pair.sample(20_000, seed=0))
        for limit in np.quantile(limits, [0.1, 0.5, 0.9]):
            assert (drawn >= limit).mean() == pytest.approx(0.9, abs=0.015)
        page.get_by_label("Fix t1 at", exact=True).fill("1.25")
        given = model[7].condition({"t1": 1.25})
        lower, upper = given.interval(0.9)
        for k, target in enumerate((0, 2)):
            mean, sd = shown(page, target)
            assert mean == pytest.approx(given.mean[k], rel=1e-6)
            assert sd == pytest.approx(given.stddev[k], rel=1e-6)
            text = page.locator("#rows tr").nth(target).inner_text().replace("−", "-")
            assert f"{lower[k]:.3g} to {upper[k]:.3g}" in text
        assert "90 % region of t0" in page.locator("#drawing svg").get_attribute("aria-label")

    def test_strong_correlations(self, open_page, rng):
        """At ρ = 0.99999 a naive elimination of rounded covariances would show."""
        covariance = np.array([[1.0, 0.99999, 0.5], [0.99999, 1.0, 0.5], [0.5, 0.5, 1.0]])
        covariance *= np.outer([1e-3, 1.0, 1e4], [1e-3, 1.0, 1e4])
        model = MultivariateNormal(np.zeros((10, 3)), covariance=np.stack([covariance] * 10))
        page = open_page(report_data(rng, model=model))
        page.get_by_label("Fix t0 at", exact=True).fill("0.002")
        given = model[0].condition({0: 0.002})
        assert shown(page, 1)[0] == pytest.approx(given.mean[0], rel=1e-6)
        assert shown(page, 1)[1] == pytest.approx(given.stddev[0], rel=1e-3)

    @pytest.mark.parametrize("tails", ["normal", "t"])
    def test_ellipse(self, tails, open_page, rng):
        """Every point of the drawn outlines is at the distance of 90 %, read off the axes."""
        model = normals(rng, 20, 3).transform_errors([[1, 0, 0], [0.5, 1, 0], [2, -0.5, 1]])
        model = MultivariateNormal(
            model.mean, covariance=model.covariance, target_names=["t0", "t1", "t2"]
        )
        model = model if tails == "normal" else with_tails(model)
        page = open_page(report_data(rng, model=model))
        page.select_option("#across", label="t2")
        page.select_option("#up", label="t0")
        page.get_by_label("Fix t1 at", exact=True).fill("0.5")
        to_data = axes_of(page)
        for css, normal in (("prior", model[0]), ("now", model[0].condition({"t1": 0.5}))):
            pair = normal.marginal(["t2", "t0"])
            assert abs(pair.correlation[0, 1]) > 0.3
            path = page.locator(f"#drawing .ellipse.{css}").get_attribute("d")
            points = to_data([list(map(float, p.split())) for p in path.strip("MZ").split("L")])
            r = points - pair.mean
            squared = np.einsum("ki,ij,kj->k", r, np.linalg.inv(pair.scale_matrix), r)
            expected = scipy.stats.chi2.ppf(0.9, 2)
            if tails == "t":
                expected = 2.0 * scipy.stats.f(2, pair.degrees_of_freedom).ppf(0.9)
            np.testing.assert_allclose(squared, expected, rtol=1e-4)
            assert np.ptp(np.arctan2(*(r / pair.stddev).T)) > 6

    def test_a_fixed_target_leaves_an_interval(self, open_page, rng):
        data = report_data(rng, n=20, d=2)
        page = open_page(data)
        page.get_by_label("Fix t0 at", exact=True).fill("1.5")
        path = page.locator("#drawing .ellipse.now").get_attribute("d")
        points = axes_of(page)([list(map(float, p.split())) for p in path.strip("MZ").split("L")])
        left = data.model[0].condition({"t0": 1.5})
        np.testing.assert_allclose(points[:, 0], 1.5, rtol=1e-5)
        ends = left.mean[0] + scipy.stats.norm.ppf([0.05, 0.95]) * left.stddev[0]
        np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], ends, rtol=1e-3)

    def test_what_is_far_from_the_prediction_is_in_the_drawing(self, open_page, rng):
        covariance = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.9], [0.9, 0.9, 1.0]])
        model = MultivariateNormal(np.zeros((10, 3)), covariance=np.stack([covariance] * 10))
        page = open_page(report_data(rng, model=model))
        page.select_option("#across", label="t1")
        page.select_option("#up", label="t2")
        page.get_by_label("Fix t0 at", exact=True).fill("40")
        path = page.locator("#drawing .ellipse.now").get_attribute("d")
        points = np.array([list(map(float, p.split())) for p in path.strip("MZ").split("L")])
        x, y, width, height = map(
            float, page.locator("#drawing svg").get_attribute("viewBox").split()
        )
        assert ((points >= [x, y]) & (points <= [x + width, y + height])).all()

    def test_search(self, open_page, rng):
        page = open_page(report_data(rng, n=50))
        page.get_by_label("Find a row").fill("-004")
        assert page.locator("#row option").all_inner_texts() == [f"row-004{i}" for i in range(10)]
        assert page.locator("#matches").inner_text() == "10 rows"
        page.select_option("#row", label="row-0042")
        assert page.locator("#picked").inner_text() == "row-0042"

    def test_values_of_another_row_are_released(self, open_page, rng):
        data = report_data(rng, n=20)
        page = open_page(data)
        page.get_by_label("Fix t1 at", exact=True).fill("3")
        page.select_option("#row", label="row-0005")
        assert page.get_by_label("Fix t1 at", exact=True).input_value() == ""
        assert shown(page, 0)[0] == pytest.approx(data.model[5].mean[0], rel=1e-7)

    @pytest.mark.parametrize("d", [1, 2, 30])
    @pytest.mark.parametrize("width", [400, 1600])
    def test_fits_the_window(self, width, d, open_page, rng):
        names = tuple(f"a_rather_long_name_of_a_target_without_any_spaces_{j}" for j in range(d))
        page = open_page(report_data(rng, model=normals(rng, 30, d, names)), width)
        assert overflow(page) <= 0
        assert page.locator("#plane").is_visible() == (d > 1)
        beyond = page.evaluate(
            """() => [...document.querySelectorAll("main *")].filter((node) =>
              !node.closest(".scroll, svg, option") && node.checkVisibility() &&
              node.getBoundingClientRect().right > window.innerWidth + 1).map((n) => n.outerHTML)"""
        )
        assert beyond == []

    def test_keyboard(self, open_page, rng):
        page = open_page(report_data(rng, n=20, d=2))
        reached, outlined = [], []
        for _ in range(80):
            page.keyboard.press("Tab")
            name, outline = page.evaluate(
                """() => { const a = document.activeElement;
                  return [a.id || a.getAttribute("aria-label") || a.textContent,
                          getComputedStyle(a).outlineStyle]; }"""
            )
            reached.append(name)
            outlined.append(outline)
        for wanted in (
            "Skip to the report",
            "search",
            "row",
            "across",
            "up",
            "Fix t1 at",
            "release",
        ):
            assert wanted in reached
            assert outlined[reached.index(wanted)] != "none"
        page.locator("#row").focus()
        page.keyboard.press("ArrowDown")
        assert page.locator("#picked").inner_text() == "row-0001"

    def test_controls_have_names(self, open_page, rng):
        page = open_page(report_data(rng))
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("input, select, button")].filter((node) =>
              !node.labels?.length && !node.getAttribute("aria-label") &&
              !node.textContent.trim()).map((node) => node.outerHTML)"""
        )
        assert unnamed == []
        label = page.locator("#drawing svg").get_attribute("aria-label")
        assert "90 % ellipse of t0 and t1 in row row-0000" in label

    def test_markup_in_names_stays_text(self, hostile, open_page):
        page = open_page(hostile)
        assert page.locator("#up option").all_inner_texts() == list(HOSTILE)
        assert page.locator("#rows th").all_inner_texts() == list(HOSTILE)
        assert page.locator("main b:not(p > b)").count() == 0
        page.get_by_text("Inputs of this row").click()
        assert page.locator("#inputs dt").all_inner_texts() == list(hostile.x)

    def test_without_javascript(self, open_page, rng):
        data = report_data(rng, history={"loss": [2.0, 1.0]})
        page = open_page(data, java_script_enabled=False)
        assert page.get_by_text("needs JavaScript").is_visible()
        assert page.locator("#app").is_hidden()
        assert not open_page(data).get_by_text("needs JavaScript").is_visible()
        assert page.locator("table:visible").count() >= 5
        assert page.locator("svg:visible").count() >= 5

    def test_tables_that_go_on_to_the_right_show_it(self, open_page, rng):
        page = open_page(report_data(rng, d=8), 400)
        heat = page.locator(".scroll:has(.heat)")
        assert "more" in heat.get_attribute("class")
        heat.evaluate("one => one.scrollTo(one.scrollWidth, 0)")
        # Not wait_for_function: what it polls with is `eval`, which the page's policy forbids.
        page.locator(".scroll.more:has(.heat)").wait_for(state="detached")
        page.set_viewport_size({"width": 1600, "height": 900})
        page.locator(".scroll.more").first.wait_for(state="detached")

    def test_prints(self, open_page, rng):
        page = open_page(report_data(rng))
        page.emulate_media(media="print")
        assert page.locator("nav").is_hidden()
        assert page.get_by_role("heading", name="Is it calibrated?").is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")
