import os
import tempfile
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.simulation import random_tensors, smallest
from safetensors import SafetensorError

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import extract
from fedpareto.supernet.slices import slices
from fedpareto.training.aggregation.held_updates import HeldUpdates
from fedpareto.training.aggregation.median import Median
from fedpareto.training.aggregation.spool import Spool
from fedpareto.training.messages import Task, Update


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_does_not_fit_into_memory_lies_in_files_of_this_user_until_it_is_cleared(folder: Path) -> None:
    update = extract(MICRO, random_tensors(1), smallest())
    size = sum(tensor.nbytes for tensor in update.values())
    spool = Spool(memory=2 * size)
    for seed in range(5):
        trained = extract(MICRO, random_tensors(seed), smallest())
        spool.add(slices(MICRO, smallest()), trained)
        # The client's memory is another client's next.
        for tensor in trained.values():
            tensor.zero_()
    (inner,) = folder.iterdir()
    assert inner.stat().st_mode & 0o777 == 0o700
    assert len(list(inner.iterdir())) == 3
    name = "head.classifier.linear.weight"
    read = {tuple(update.rows(name, 1, 3)[0].tolist()) for update in spool.ordered()}
    wanted = {tuple(extract(MICRO, random_tensors(seed), smallest())[name][1].tolist()) for seed in range(5)}
    assert read == wanted
    spool.clear()
    assert not list(folder.iterdir())
    assert not spool.ordered()
    # Memory is free again.
    spool.add(slices(MICRO, smallest()), update)
    assert not list(folder.iterdir())


def test_files_are_gone_after_a_merge(folder: Path) -> None:
    tensors = random_tensors(0)
    rule = Median(MICRO, tensors, memory=0)
    rule.add(smallest(), extract(MICRO, tensors, smallest()), 1.0)
    assert list(folder.iterdir())
    rule.write_mean(tensors)
    assert not list(folder.iterdir())


def test_updates_that_wait_for_the_median_need_room_there_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    task = Task(1, 0, smallest(), {}, 1, 0.1, 0)
    update = Update(task, extract(MICRO, random_tensors(1), smallest()), 8, 1.0, 0.0, 0.0)
    monkeypatch.setattr("fedpareto.training.aggregation.tensor_store.save_file", full)
    with pytest.raises(UserError, match=r"the temporary folder .* cannot hold an update .*No space left.*TMPDIR"):
        HeldUpdates(0).keep(update)


def test_a_folder_without_room_is_an_error_of_one_line(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(UserError, match=r"the temporary folder .* cannot hold an update .*TMPDIR") as caught:
        Spool(memory=0).add(slices(MICRO, smallest()), extract(MICRO, random_tensors(0), smallest()))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_is_an_error_of_one_line(folder: Path) -> None:
    spool = Spool(memory=0)
    spool.add(slices(MICRO, smallest()), extract(MICRO, random_tensors(0), smallest()))
    (inner,) = folder.iterdir()
    for path in inner.iterdir():
        os.remove(path)
    (update,) = spool.ordered()
    with pytest.raises(UserError, match="cannot read an update of the round again"):
        update.rows("head.classifier.linear.weight", 0, 1)


def test_updates_that_differ_in_one_bit_have_an_order_of_their_own() -> None:
    zeros = extract(MICRO, random_tensors(0), smallest())
    negative = {name: tensor.clone() for name, tensor in zeros.items()}
    negative["head.classifier.linear.bias"] = -torch.zeros_like(zeros["head.classifier.linear.bias"])
    zeros["head.classifier.linear.bias"] = torch.zeros_like(zeros["head.classifier.linear.bias"])
    orders = []
    for updates in ((zeros, negative), (negative, zeros)):
        spool = Spool()
        for update in updates:
            spool.add(slices(MICRO, smallest()), update)
        orders.append([update.digest for update in spool.ordered()])
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 2
