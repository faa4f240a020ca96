"""Elastic resolution: networks of two resolutions are cached, drawn, trained at their own, and found again."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import run_main
from helpers.networks.latency import random_times, write_table
from helpers.runs.federation import arguments_of, micro_cache, micro_config, micro_space
from torch import Tensor

import fedpareto as fp
from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.fitness.score import score
from fedpareto.supernet.genes import gene_layout, smallest_genes
from fedpareto.training.cli import main
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.data.batches import Batches
from fedpareto.training.messages import Task, Update

SPACE = micro_space(name="elastic", resolutions=(8, 12))


def test_the_frontier_spans_the_resolutions() -> None:
    entries = micro_cache(SPACE, 12).entries
    assert Counter(entry.architecture.resolution for entry in entries).keys() == {8, 12}
    assert entries[0].architecture.resolution == 8
    assert entries[-1].architecture.resolution == 12


def test_macs_and_latency_follow_the_resolution(tmp_path: Path) -> None:
    low = smallest_genes(SPACE)
    high = low.copy()
    high[gene_layout(SPACE).resolution] += 1
    genes = np.stack([low, high])
    smaller, larger = score(SPACE, genes).macs
    assert smaller < larger
    # Every time is random: only a block that is timed at another side has another one.
    times = read_latency(write_table(tmp_path / "times.json", random_times(SPACE)), SPACE).of(SPACE, genes)
    assert times[0] != times[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["deepfednas", "superfednas"])
def test_both_resolutions_are_trained_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    tasks: list[int] = []
    sides: list[tuple[int, int]] = []
    train, epoch = LocalTrainer.train, Batches.epoch

    def noted_train(self: LocalTrainer, task: Task, *arguments: Any) -> Update:
        tasks.append(task.architecture.resolution)
        return train(self, task, *arguments)

    def noted_epoch(self: Batches, data: Any, resolution: int, *arguments: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in epoch(self, data, resolution, *arguments):
            sides.append((resolution, images.shape[-1]))
            yield images, labels

    monkeypatch.setattr(LocalTrainer, "train", noted_train)
    monkeypatch.setattr(Batches, "epoch", noted_epoch)
    config = micro_config(tmp_path, SPACE, method=method, rounds=4)
    assert run_main(main, capsys, *arguments_of(config)).code == 0
    assert set(tasks) == {8, 12}
    assert set(sides) == {(8, 8), (12, 12)}
    opened = fp.open_run(str(config.output))
    found = [opened.find(macs=macs, progress=False).entry for macs in ("100K", "330K")]
    assert [entry.architecture.resolution for entry in found] == [8, 12]
    assert found[0].macs < found[1].macs
    subnet = opened.extract(found[1].architecture)
    assert subnet.info.architecture.resolution == 12
    with torch.inference_mode():
        assert subnet.network(torch.zeros(1, 3, 12, 12)).shape == (1, 10)
