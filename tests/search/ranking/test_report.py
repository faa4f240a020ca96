import dataclasses
import json

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import PLANTED, planted
from scipy import stats

from fedpareto.search.ranking.fitting.learning import Learned
from fedpareto.search.ranking.fitting.weights import LeftOut
from fedpareto.search.ranking.measuring.measured_sample import FIGURES
from fedpareto.search.ranking.report import print_learned, print_ranking, print_weights, rank, ranking_to_json
from fedpareto.supernet.fitness_settings import FitnessSettings, settings_to_mapping


def test_a_ranking_is_that_of_scipy_in_each_band() -> None:
    sample = planted(tiny_space(), noise=0.1)
    report = ranking_to_json(sample, rank(sample, tiny_space().fitness, seed=0))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [band["networks"] for band in report["bands"]] == [20] * 4
    figures = sample.figures(tiny_space().fitness)
    for name, expected in (("kendall", stats.kendalltau), ("spearman", stats.spearmanr)):
        assert tuple(report[name]) == FIGURES
        for figure, found in report[name].items():
            of_bands = [
                expected(figures[figure][sample.band == band], sample.accuracy[sample.band == band]).statistic
                for band in range(4)
            ]
            assert [band["value"] for band in found["bands"]] == pytest.approx(of_bands)
            assert found["within"]["value"] == pytest.approx(np.mean(of_bands))
            assert found["within"]["low"] <= found["within"]["value"] <= found["within"]["high"]
            assert found["overall"]["value"] == pytest.approx(expected(figures[figure], sample.accuracy).statistic)


def test_the_seed_decides_the_intervals() -> None:
    sample = planted(tiny_space(), count=24, noise=0.1)
    one, same, other = (ranking_to_json(sample, rank(sample, PLANTED, seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert one["kendall"]["macs"]["within"]["value"] == other["kendall"]["macs"]["within"]["value"]


def test_a_fitness_that_ranks_perfectly_is_better_than_costs(capsys: pytest.CaptureFixture[str]) -> None:
    sample = planted(tiny_space())
    ranking = rank(sample, PLANTED, 0, other=tiny_space().fitness)
    assert ranking.found["kendall"]["fitness"].within.value == 1
    assert list(ranking.leads) == ["before", "macs", "params", "blocks"]
    print_ranking(sample, ranking, "80 networks", {"fitness": "fitted", "before": "before"})
    out = capsys.readouterr().out
    assert "Kendall's τ with accuracy, 80 networks" in out
    assert "1.00 [1.00, 1.00]" in out
    assert "within bands fitted ranks better than before: τ 1." in out
    assert max(map(len, out.splitlines())) <= 120


def test_a_fitness_that_ranks_backwards_is_said_to_rank_worse(capsys: pytest.CaptureFixture[str]) -> None:
    sample = planted(tiny_space())
    backwards = dataclasses.replace(sample, accuracy=1 - sample.accuracy)
    print_ranking(backwards, rank(backwards, PLANTED, 0), "some")
    out = capsys.readouterr().out
    assert "within bands fitness ranks worse than blocks: τ -" in out


def test_what_cannot_be_said_is_null_and_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    space = dataclasses.replace(tiny_space(), depths=(2,))
    sample = planted(space, count=16)
    ranking = rank(sample, space.fitness, 0)
    assert ranking_to_json(sample, ranking)["kendall"]["blocks"]["within"] == {"value": None, "low": None, "high": None}
    print_ranking(sample, ranking, "some")
    out = capsys.readouterr().out
    assert "– [–, –]" in out
    assert "number" not in out


def test_the_noise_of_accuracies_is_a_row_where_both_halves_of_the_images_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = planted(tiny_space())
    noise = 0.05 * np.random.default_rng(0).normal(size=(2, len(sample)))
    halves = dataclasses.replace(sample, halves=sample.accuracy + noise)
    ranking = rank(halves, PLANTED, 0)
    assert 0.5 < ranking.found["kendall"]["ceiling"].within.value < 1
    assert "ceiling" not in ranking.found["spearman"]
    assert "ceiling" not in ranking.leads
    print_ranking(halves, ranking, "some")
    assert "(ceiling: exact accuracies)" in capsys.readouterr().out
    assert "ceiling" not in rank(sample, PLANTED, 0).found["kendall"]


def test_every_strength_of_the_penalty_is_printed_and_the_chosen_one_said(capsys: pytest.CaptureFixture[str]) -> None:
    tried = {10.0: LeftOut(0.52, 0.01), 1.0: LeftOut(0.48, 0.02)}
    print_learned(Learned(FitnessSettings(), 0.05, 10.0, tried), 240)
    lines = capsys.readouterr().out.splitlines()
    assert "left out of a fit, of 240 networks" in lines[0]
    assert [("chosen" in line) for line in lines if "±" in line] == [True, False]
    assert any("0.48 ± 0.02" in line for line in lines)


def test_changed_weights_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_weights(FitnessSettings(), FitnessSettings(kind_weights=(1.0, 0.5, 2.0), block_penalty=3.25))
    out = capsys.readouterr().out
    assert "1, 0.5, 2" in out
    assert "3.25" in out
    assert "depth_penalty" not in out
    assert settings_to_mapping(FitnessSettings())["kind_weights"] == [1.0]
