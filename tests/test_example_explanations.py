"""What the examples explain holds: their numbers against closed forms and computations anew."""

import re

import numpy as np
import pytest
import torch
from example_runs import ran_example
from torch import nn, optim

from downslope.views.data.grids import outcome_map


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs an example once; gives what it printed and its names."""

    def run(name):
        made = ran_example(name, tmp_path_factory)
        return made.printed, made.names

    return run


def number(text, pattern):
    """The number in the first group of a pattern."""
    found = re.search(pattern, text)
    assert found is not None, pattern
    return float(found[1])


def rows(text, start, count):
    """The numbers in the lines after the one that starts so, (count, numbers)."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip().startswith(start)) + 1
    pattern = r"-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf)"
    return [
        [float(found) for found in re.findall(pattern, line)]
        for line in lines[first : first + count]
    ]


def largest_curvature(network, parameters, x, y):
    """The greatest eigenvalue of the dense Hessian of the mean squared error."""
    shapes = [(name, value.shape) for name, value in parameters.items()]
    flat = torch.cat([value.reshape(-1).double() for value in parameters.values()])
    model = network().double()

    def loss(at):
        parts = at.split([shape.numel() for _, shape in shapes])
        named = {n: part.reshape(s) for (n, s), part in zip(shapes, parts, strict=True)}
        made = torch.func.functional_call(model, named, (x.double(),))
        return ((made - y.double()) ** 2).mean()

    return float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1])


def second_moment_factor(hessians, rate, batch_size):
    """What a step multiplies E[θ θᵀ] by, batches with replacement: (n·n matrices, written out)."""
    steps = np.eye(hessians.shape[1]) - rate * hessians
    mean = steps.mean(0)
    singles = np.mean([np.kron(step, step) for step in steps], axis=0)
    both = (1 - 1 / batch_size) * np.kron(mean, mean) + singles / batch_size
    return np.abs(np.linalg.eigvals(both)).max()


class TestLine:
    X = np.arange(-50, 50) / 10

    def test_the_batch_s_limits_are_those_of_the_closed_form(self, ran):
        text, _ = ran("line")
        a, b, c = 2 * (self.X**2).mean(), 2 * self.X.mean(), 2.0
        root = np.sqrt(((a - c) / 2) ** 2 + b**2)
        least, largest = (a + c) / 2 - root, (a + c) / 2 + root
        bends = rf"bends by {least:.5f} in its flattest direction, {largest:.5f} in its steepest"
        assert re.search(bends, text)
        assert number(text, r"= (0\.\d+);") == pytest.approx(2 / largest, abs=5e-7)
        assert number(text, r"the fastest is (0\.\d+),") == pytest.approx(
            2 / (least + largest), abs=5e-7
        )
        assert "two factors are 0.8001 and -0.6671" in text

    def test_single_samples_limits(self, ran):
        text, _ = ran("line")
        assert number(text, r"every order +below (\S+)") == pytest.approx(1 / 26, abs=5e-7)
        mean_square = number(text, r"average of squares +below (\S+)")
        # At x = ±3 the factor is -1, which rounding may put on either side.
        assert f"\n{(np.abs(np.arange(-50, 50)) > 30).sum()} of the 100 samples" in text
        a = np.stack([self.X, np.ones(100)], axis=1)
        hessians = 2 * a[:, :, None] * a[:, None, :]
        assert mean_square == pytest.approx(0.064183, abs=1e-6)
        assert second_moment_factor(hessians, mean_square - 2e-6, 1) < 1
        assert second_moment_factor(hessians, mean_square + 2e-6, 1) > 1

    def test_the_gain_within_an_epoch(self, ran):
        text, _ = ran("line")
        for rate, gain, factor in rows(text, "rate   largest gain", 5):
            product, largest = np.eye(2), 1.0
            for x in self.X:
                a = np.array([x, 1.0])
                product = product - rate * np.outer(2 * a, a @ product)
                largest = max(largest, np.linalg.svd(product)[1][0])
            assert gain == pytest.approx(largest, rel=1e-3)
            assert factor == pytest.approx(np.abs(np.linalg.eigvals(product)).max(), rel=5e-3)

    def test_runs_fail_where_theory_says(self, ran):
        text, names = ran("line")
        singles = names["singles"]
        lr = singles.settings["lr"].to_numpy()
        assert not singles.diverged[lr < 0.0641].any()
        assert singles.diverged[lr > 0.12].all()
        final = singles.table["final_loss"].to_numpy()
        assert (final[lr < 1 / 26] < 1).all()
        assert names["finding"].verdict == "diverged"
        assert "Trying that: It held" in text


class TestFunction:
    def test_factors_steps_and_verdicts(self, ran):
        text, _ = ran("function")
        table = rows(text, "rate   factor", 7)
        for rate, factor, measured, steps in table:
            assert factor == pytest.approx(1 - 2 * rate, abs=0.0051)
            assert measured == factor
            size = abs(1 - 2 * rate)
            if 0 < size < 1:
                assert steps == pytest.approx(np.log(1000) / -np.log(size), abs=0.051)
        told = dict(re.findall(r"^ +(\S+) +\S+ +\S+ +\S+  (\w+)$", text, re.M))
        assert told["0.01"] == "creeping" and told["1"] == "cycling" and told["1.02"] == "diverged"
        assert told["0.7"] == told["0.3"] == told["0.5"] == "converged"
        assert "stable below a rate of 1," in text and "best at 0.5" in text

    def test_the_valley_of_the_line(self, ran):
        text, _ = ran("function")
        steep = 2 * 400 * 82 / 240  # 81 places from -20 to 20: mean x² = 400 (n + 1) / (3 (n - 1))
        assert f"curvatures {steep:.2f} and 2.00: c takes {steep / 2:.0f} times" in text
        assert f"stable below a rate of {2 / steep:.6f}" in text

    def test_wrong_gradients_are_refused_in_one_sentence(self, ran):
        text, _ = ran("function")
        # The wrong one is +2 mean y where the right one is -2 mean y.
        assert f"wrong_sign: the gradient by hand of parameter 'c' differs from autograd's by " \
               f"{4 * 9.1297:.4f}" in text  # fmt: skip
        assert "undefined_name: the gradient by hand fails with NameError" in text


class TestNetwork:
    def test_the_curvature_is_that_of_the_dense_hessian(self, ran):
        text, names = ran("network")
        run = names["found"]["parabola"]
        measured = rows(text.partition("parabola: 2 / rate is 40")[2], "after", 6)
        dense = largest_curvature(
            names["network"], run.parameters, names["x"], names["tasks"]["parabola"][0]
        )
        assert measured[-1][0] == 5000
        assert measured[-1][1] == pytest.approx(dense, rel=2e-3)
        assert all(row[1] < 2 / 0.05 for row in measured)

    def test_where_it_breaks(self, ran):
        text, names = ran("network")
        limit = number(text, r"met at rate 0.05\): (\S+)")
        learns_nothing = number(text, r"learns nothing from a rate of (\S+) on")
        assert 0.1 < limit < learns_nothing < 2
        assert names["constant"] == pytest.approx(float(names["y"].double().var(correction=0)))
        # A rate of 0.4 is above the limit at its starts, and has left for flatter places.
        at = names["bent"].filter(names["bent"]["lr"] == 0.4)
        start = at.filter(at["step"] == 0)["largest_curvature"].to_numpy()
        end = at.filter(at["step"] == 1000)["largest_curvature"].to_numpy()
        assert np.median(start) > 2 / 0.4 and (end < 2 / 0.4).all()


class TestSlope:
    def test_rates_follow_the_closed_form(self, ran):
        text, names = ran("slope")
        x, y = names["x"].double().numpy(), names["y"].double().numpy()
        curvature, best = 2 * (x * x).mean(), (x * y).mean() / (x * x).mean()
        assert f"curvature {curvature:.4f}: stable below {2 / curvature:.6f}" in text
        for run in names["tried"]:
            factor = 1 - run.row["lr"] * curvature
            assert float(run.parameters["w"]) == pytest.approx(
                best * (1 - factor**100), rel=1e-4, abs=1e-4
            )
        told = [finding.verdict for finding in names["tried"].explain()]
        assert told[-1] == "diverged" and "diverged" not in told[:-1]

    def test_no_loss_is_stale(self, ran):
        text, _ = ran("slope")
        assert "different losses among the 101 records: 101" in text
        assert number(text, r"from the weights: (\S+) apart") < 1e-5


class TestOptimizers:
    def test_a_bound_optimizer_is_refused(self, ran):
        assert "error: give the class Adam, not an instance" in ran("optimizers")[0]

    @pytest.mark.parametrize(("optimizer", "rate"), [(optim.SGD, 0.01), (optim.Adam, 0.1)])
    def test_epochs_to_the_target_are_plain_torch_s(self, ran, optimizer, rate):
        _, names = ran("optimizers")
        data = names["Line"]()
        found = []
        for seed in range(3):
            generator = torch.Generator().manual_seed(10 + seed)
            w, b = (
                torch.tensor([-10.0], requires_grad=True),
                torch.tensor([-20.0], requires_grad=True),
            )
            made = optimizer([w, b], lr=rate)
            epochs = 0
            while epochs < 20:
                epochs += 1
                for row in torch.randperm(100, generator=generator).tolist():
                    made.zero_grad()
                    (w * data.x[row] + b - data.y[row]).square().sum().backward()
                    made.step()
                if float((w * data.x + b - data.y).detach().square().mean()) < names["TARGET"]:
                    break
            found.append(epochs)
        ours = next(
            median
            for (name, lr), median in names["medians"].items()
            if name == optimizer.__name__ and np.isclose(lr, rate)
        )
        assert abs(np.median(found) - ours) <= 1

    def test_each_wins_at_some_rate(self, ran):
        _, names = ran("optimizers")
        medians = names["medians"]
        rates = sorted({rate for _, rate in medians})
        sgd, adam = (np.array([medians[n, r] for r in rates]) for n in ("SGD", "Adam"))
        assert (sgd[np.array(rates) < 0.03] <= adam[np.array(rates) < 0.03]).all()
        assert np.isinf(sgd[-6:]).all() and np.isfinite(adam[-6:]).all()


class TestRatesAndBatches:
    def test_thresholds_are_those_of_the_second_moments(self, ran):
        text, names = ran("rates_and_batches")
        table = rows(text, "batch  threshold", 9)
        for size, threshold, half, _ in table:
            assert second_moment_factor(names["hessians"], threshold * 0.999, size) < 1
            assert second_moment_factor(names["hessians"], threshold * 1.001, size) > 1
            assert 0.93 * threshold < half < 1.6 * threshold
        assert [row[0] for row in table] == [2**k for k in range(9)]
        assert table[-1][2] == pytest.approx(table[-1][1], rel=0.1)

    def test_the_floor_of_noise(self, ran):
        _, names = ran("rates_and_batches")
        floors, least = names["floors"], names["least_loss"]
        for size in (1, 8, 64):
            for rate in (0.01, 0.02):
                made = floors.where(lr=rate, batch_size=size).table["final_loss"].mean() - least
                assert made == pytest.approx(rate / (4 * size) * names["noise"], rel=0.35)


class TestMomentum:
    def test_best_settings_are_those_of_the_closed_form(self, ran):
        text, _ = ran("momentum")
        plain = rows(text, "rate  momentum", 1)[0]
        heavy = rows(text, "plain descent", 1)[0]
        assert plain[:3] == [pytest.approx(v, abs=6e-7) for v in (2 / 101, 0, 99 / 101)]
        assert heavy[:3] == [pytest.approx(v, abs=6e-7) for v in (4 / 121, 81 / 121, 9 / 11)]
        assert heavy[3] == pytest.approx(np.log(1e6) / np.log(11 / 9), abs=0.06)

    def test_descents_shrink_as_theory_says(self, ran):
        text, _ = ran("momentum")
        found = re.findall(r"leaves (\S+) of the error at a step; measured (\S+)", text)
        assert len(found) == 4
        for theory, measured in found:
            assert float(measured) == pytest.approx(float(theory), abs=0.01)

    def test_the_map_s_best_is_beside_theory_s_and_within_the_limit_nothing_fails(self, ran):
        text, names = ran("momentum")
        best = names["sweep"].best.row
        assert best["lr"] == pytest.approx(4 / 121, rel=0.1)
        assert best["momentum"] == pytest.approx(81 / 121, abs=0.04)
        assert "runs within the limit that diverged: 0" in text
        assert names["limits"][0] == pytest.approx(0.02)


class TestEdge:
    def test_curvature_rises_to_two_over_the_rate_and_stays(self, ran):
        _, names = ran("edge")
        bent = names["bent"]
        for number_, rate in enumerate(names["rates"]):
            mine = bent.filter(bent["run"] == number_)["largest_curvature"].to_numpy()
            assert mine[0] < 0.8 * 2 / rate
            np.testing.assert_allclose(mine[-40:], 2 / rate, rtol=0.06)
            dense = largest_curvature(
                names["network"], names["runs"][number_].parameters, names["x"], names["y"]
            )
            assert mine[-1] == pytest.approx(dense, rel=2e-3)

    def test_the_loss_rises_only_at_the_edge_and_falls_in_all(self, ran):
        text, names = ran("edge")
        found = re.findall(r"the loss rose (\d+) times before and (\d+) times since", text)
        assert len(found) == 3
        assert all(int(before) == 0 and int(since) > 5 for before, since in found)
        assert (names["runs"].loss[:, -1] < 0.02 * names["runs"].loss[:, 0]).all()
        assert all(f.verdict == "edge-of-stability" for f in names["runs"].explain())


class TestBoundary:
    @pytest.mark.parametrize(("first", "second"), [(4, 3), (8, 7), (10, 2), (3, 8)])
    def test_a_pixel_is_a_plain_training(self, ran, first, second):
        _, names = ran("boundary")
        rates, model = names["rates"], names["runs"].plan.problem.fresh(0).model
        layers = [
            {"params": [model[0].weight], "lr": float(rates[first])},
            {"params": [model[2].weight], "lr": float(rates[second])},
        ]
        made, losses = optim.SGD(layers, lr=0.1), []
        for _ in range(40):
            made.zero_grad()
            loss = nn.functional.mse_loss(model(names["x"]), names["y"])
            losses.append(loss.item())
            if not np.isfinite(losses[-1]) or losses[-1] > 1e8:
                break
            loss.backward()
            made.step()
        run = names["runs"][first * 16 + second]
        # Rounding is amplified where rates are too large: as far as the loss is not blown up.
        held = [loss for loss in losses[: run.row["steps"]] if loss < 1e3][:12]
        assert len(held) >= 2
        np.testing.assert_allclose(run.batch_loss[: len(held)], held, rtol=2e-3)

    def test_colours_are_sums_of_the_losses_at_every_step(self, ran):
        _, names = ran("boundary")
        runs, data = names["runs"], outcome_map(names["runs"], "lr[2.*]", "lr[0.*]", "sum")
        assert names["went_down"](runs).mean() == 1 - data.grown.mean()
        for first, second in [(4, 3), (8, 7), (10, 2), (3, 8), (0, 15)]:
            run = runs[first * 16 + second]
            losses = np.append(run.batch_loss, run.row["final_loss"]).astype(np.float64)
            held = np.where(np.isfinite(losses), losses, np.inf)
            shares = np.minimum(held / held[0], 1e6)
            assert data.grown[first, second] == (not shares[-20:].mean() < 1)
            inverse = np.where(np.isfinite(held), 1 / shares, 0)
            expected = inverse.sum() if data.grown[first, second] else shares.sum()
            assert data.values[first, second] == pytest.approx(expected, rel=1e-6)

    def test_both_kinds_are_there_and_steps_end_with_divergence(self, ran):
        text, names = ran("boundary")
        assert 0.2 < names["went_down"](names["runs"]).mean() < 0.8
        assert names["runs"].batch_loss.shape == (256, 500)
        done = names["runs"].batch_loss[names["runs"].diverged]
        assert np.isnan(done[:, -1]).all()
        assert "of all pairs of rates converge" in text
