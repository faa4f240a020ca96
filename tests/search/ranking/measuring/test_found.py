import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from helpers.networks.learned import drawn_terms
from helpers.networks.strategies import tiny_space

from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.search.ranking.measuring.found import find_networks, findings_to_json, gains, print_findings
from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.terminal.progress import SILENT

SPACE = tiny_space()
FORMS = {"before": SPACE.fitness, "fitted": dataclasses.replace(SPACE.fitness, learned=drawn_terms(SPACE, scale=30.0))}
BUDGETS = [500_000, 4_000_000]


def _measure(architecture: Architecture) -> Mapping[str, float]:
    """An accuracy that adds up kernels and expand ratios."""
    share = sum(block.kernel * block.expand for stage in architecture.stages for block in stage.blocks) / 1000
    return {"validation": share, "test": share / 2}


@pytest.mark.slow
def test_each_form_finds_its_fittest_network_within_every_budget() -> None:
    found = find_networks(SPACE, FORMS, BUDGETS, _measure, SILENT)
    assert [(each.budget, each.form) for each in found] == [(b, form) for b in BUDGETS for form in FORMS]
    for each in found:
        frontier = exact_frontier(SPACE, FORMS[each.form])
        index = frontier.best_within(each.budget)
        assert index is not None
        assert each.entry == frontier.entry(index)
        assert each.accuracies == _measure(each.entry.architecture)


def test_a_network_that_both_find_is_measured_once() -> None:
    measured: list[Architecture] = []

    def measure(architecture: Architecture) -> Mapping[str, float]:
        measured.append(architecture)
        return _measure(architecture)

    found = find_networks(SPACE, {"one": SPACE.fitness, "same": SPACE.fitness}, BUDGETS, measure, SILENT)
    assert len(found) == 4
    assert len(measured) == len(set(measured)) == 2


def test_gains_are_differences_in_percentage_points(capsys: pytest.CaptureFixture[str]) -> None:
    found = find_networks(SPACE, FORMS, BUDGETS, _measure, SILENT)
    expected = [
        100 * (found[i + 1].accuracies["validation"] - found[i].accuracies["validation"]) for i in range(0, 4, 2)
    ]
    assert gains(found, "fitted", "before", "validation") == pytest.approx(expected)
    assert gains(found, "fitted", "before", "test") == pytest.approx([gain / 2 for gain in expected])
    assert any(expected)
    print_findings(found, "fitted", "before")
    out = capsys.readouterr().out
    assert "networks found, on images for validation" in out
    assert "networks found, on images for test" in out
    mean = float(np.mean(gains(found, "fitted", "before", "validation")))
    assert f"fitted less before, in points of accuracy for validation: {mean:+.1f} on average" in out
    assert max(map(len, out.splitlines())) <= 160


def test_findings_are_written_with_their_architectures() -> None:
    found = find_networks(SPACE, FORMS, BUDGETS, _measure, SILENT)
    written = findings_to_json(found)
    assert [architecture_from_json(each["architecture"]) for each in written] == [
        each.entry.architecture for each in found
    ]
    assert written[0]["accuracy"] == dict(found[0].accuracies)
