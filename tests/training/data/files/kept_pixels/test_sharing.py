"""Kept images that several processes and commands read."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.images.kept_pictures import check_kept, decoded_alone, names_in, read_kept
from helpers.images.pictures import write_pictures
from helpers.runs.federation import micro_config, micro_space

from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.data.files import reading
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.run_images import used_images
from fedpareto.training.engines.simulation.federation import StoredFederation, new_simulation


def _in_process(pictures: Files, barrier: Any, queue: Any) -> None:
    really = reading.decoded_files

    def decode(paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> Decoded:
        # Both have found nothing, and both decode.
        barrier.wait(60)
        return really(paths, preparation, listener)

    reading.decoded_files = decode
    try:
        pixels, remarks = read_kept(pictures)
        queue.put((pixels.numpy().tobytes(), remarks))
    except BaseException as error:
        queue.put((repr(error), []))


def test_processes_that_decode_the_same_at_once_are_both_right_and_leave_one_file(
    folder: Path, pictures: Files, decoded: list[str]
) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_in_process, args=(pictures, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    expected = decoded_alone(pictures).contiguous().numpy().tobytes()
    assert [pixels for pixels, _ in outcomes] == [expected] * 2
    assert len(names_in(folder)) == 1
    assert check_kept(pictures) == []
    assert decoded == []


@pytest.mark.parametrize("images", [None, 24])
def test_a_run_that_is_searched_decodes_none_of_what_it_was_trained_with(
    tmp_path: Path, decoded: list[str], images: int | None
) -> None:
    root = write_pictures(tmp_path / "data", {"train": {"a": 30, "b": 24}})
    data = DataConfig("imagefolder", str(root), crop=1, flip=False, cutout=0, validation=0.2, images=images)
    config = micro_config(
        tmp_path,
        data=data,
        partition=PartitionConfig("iid"),
        clients=ClientsConfig(count=2, per_round=1),
        client=ClientConfig(batch_size=4),
    )
    space = micro_space(classes=2)
    first = new_simulation(config, space)
    assert len(decoded) == (images or 54)
    decoded.clear()
    again = new_simulation(config, space)
    assert again.split == first.split
    assert again.data.digest() == first.data.digest()
    stored = StoredFederation(tmp_path, config, space, first.split, SILENT).evaluator(config, space)
    assert torch.equal(stored.held_out.loaded(), first.evaluator(config, space).held_out.loaded())
    assert used_images(config).read(Preparation(8)).digest() == first.data.digest()
    assert decoded == []
