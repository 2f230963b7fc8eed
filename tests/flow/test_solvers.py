"""Solvers on flows whose exact solution is available: order of convergence, steps, straight flows."""

import math
from itertools import pairwise

import pytest
import torch
from helpers import close

from pixeldit_core.flow.solvers import SOLVERS
from pixeldit_core.flow.times import sigma_grid


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"flow_dpmpp_2m"}))
def test_solvers_converge_to_the_exact_solution(solver):
    """dx/dt = x, from 1: e at t = 1; the error of second order falls with the square of the steps."""

    def error(steps):
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        x = torch.ones(1, dtype=torch.float64)
        return abs(float(SOLVERS[solver](lambda x, t: x, x, times)) - torch.e)

    order = torch.log2(torch.tensor(error(128) / error(256)))
    # heun's last step is Euler's (locally of second order), so it keeps the order
    assert order == pytest.approx(1 if solver == "euler" else 2, abs=0.2)


def error_on_the_sigma_grid(solver, steps, slope, exact):
    """Of dx/dt = slope(t) * x, whose solution is exact(t)."""
    times = sigma_grid(steps).double()
    start = torch.tensor([exact(float(times[0]))], dtype=torch.float64)
    return abs(float(SOLVERS[solver](lambda x, t: slope(t) * x, start, times)) - exact(1.0))


def test_the_text_solver_converges_though_its_last_steps_are_infinitely_long():
    """In ln(t / (1 - t)) the grid's spacing grows without end towards the image, so dx/dt = x loses half an order."""
    errors = [error_on_the_sigma_grid("flow_dpmpp_2m", steps, lambda t: 1.0, math.exp) for steps in (512, 1024)]
    assert errors[1] < 5e-6 and math.log2(errors[0] / errors[1]) == pytest.approx(1.5, abs=0.2)
    assert error_on_the_sigma_grid("euler", 1024, lambda t: 1.0, math.exp) > 100 * errors[1]


def test_the_text_solver_is_nearly_of_second_order_on_the_flow_to_a_gaussian():
    """Towards images of variance 1/4, the state's deviation at t is sqrt(t^2 / 4 + (1 - t)^2)."""

    def variance(t):
        return t**2 / 4 + (1 - t) ** 2

    errors = [
        error_on_the_sigma_grid(
            "flow_dpmpp_2m", steps, lambda t: (t / 4 - (1 - t)) / variance(t), lambda t: math.sqrt(variance(t))
        )
        for steps in (512, 1024)
    ]
    assert errors[1] < 1e-5 and math.log2(errors[0] / errors[1]) == pytest.approx(1.8, abs=0.1)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_solvers_leave_their_input_alone_and_report_each_step(solver):
    start = torch.ones(2)
    times = torch.tensor([0.0, 0.25, 0.5, 1.0])
    steps = []
    end = SOLVERS[solver](lambda x, t: x, start, times, lambda *step: steps.append(step))
    assert torch.equal(start, torch.ones(2))
    assert [step[0] for step in steps] == [0, 1, 2] and [step[1] for step in steps] == [0.25, 0.5, 1.0]
    assert torch.equal(steps[-1][2], end)
    states = [start] + [step[2] for step in steps]
    assert not any(torch.equal(a, b) for a, b in pairwise(states))


def test_a_straight_flow_is_exact_with_every_solver():
    image, start = torch.randn(2, 3), torch.randn(2, 3)
    for solve in SOLVERS.values():
        close(solve(lambda x, t: image - start, start, torch.linspace(0, 1, 5)), image, 1e-6)
