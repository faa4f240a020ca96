import json

import numpy as np
from helpers.networks.strategies import tiny_space

from fedpareto.fitness.report import all_terms, costs_and_fitness
from fedpareto.fitness.score import score
from fedpareto.supernet.genes import random_genes


def test_reports_hold_the_scores_of_one_architecture_as_plain_json() -> None:
    space = tiny_space()
    scores = score(space, random_genes(space, 4, np.random.default_rng(0)))
    report = all_terms(scores, 2)
    assert json.loads(json.dumps(report)) == report
    assert report["macs"] == scores.macs[2]
    assert report["params"] == scores.params[2]
    assert report["activation_bytes"] == scores.activation_bytes[2]
    assert report["fitness"] == scores.fitness[2]
    assert report["rho"] == scores.rho[2]
    assert report["feasible"] is bool(scores.feasible[2])
    assert report["depth_regularity"] == scores.depth_regularity[2]
    assert report["width_violation"] == scores.width_violation[2]
    assert report["blocks"] == scores.blocks[2]
    assert report["entropy"] == scores.entropy[:, 2].tolist()
    assert costs_and_fitness(scores, 2).items() <= report.items()
    assert list(costs_and_fitness(scores, 2)) == ["macs", "params", "activation_bytes", "fitness", "rho"]
