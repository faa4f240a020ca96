"""Runs on images in every store: the same supernet, resumed and searched with another store, and in little memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.images.pictures import noise
from helpers.runs.federation import micro_cache, micro_space, write_two_classes
from helpers.runs.quick import QUICK
from PIL import Image

import fedpareto as fp
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.rules.unused_settings import refuse_unread
from fedpareto.training.config.run import RunConfig

_FEDERATION = {**QUICK, "clients_count": 4, "partition_scheme": "iid", "evaluation_calibration_images": 16}


def _supernet(folder: Path) -> bytes:
    return sorted(folder.rglob("supernet.safetensors"))[-1].read_bytes()


@pytest.mark.slow
def test_every_store_trains_the_same_supernet_and_another_one_goes_on(tmp_path: Path) -> None:
    root, space = write_two_classes(tmp_path / "images"), micro_space(classes=2)
    cache = micro_cache(space)
    runs = {}
    for store in ("memory", "disk", "encoded"):
        given = {**_FEDERATION, "data_root": str(root), "data_store": store}
        result = fp.train(space, data="imagefolder", cache=cache, output=tmp_path / store, rounds=2, **given)
        runs[store] = result.folder
    first = _supernet(runs["memory"])
    assert all(_supernet(folder) == first for folder in runs.values())
    others = {"memory": "encoded", "encoded": "memory", "disk": "encoded"}
    for store, folder in runs.items():
        assert fp.train(resume=folder, rounds=3, data_store=others[store], progress=False).rounds == 3
        assert fp.open_run(folder).find(macs="200K", progress=False).entry.macs <= 200_000
    second = _supernet(runs["memory"])
    assert all(_supernet(folder) == second for folder in runs.values())
    # What was read encoded is known again by its files.
    changed = root / "train" / "cat" / "000.png"
    Image.fromarray(noise(0)).save(changed)
    with pytest.raises(UserError, match=r"are not those .* was started with"):
        fp.train(resume=runs["encoded"], rounds=4, progress=False)


_READ = """
import sys, torch
from pathlib import Path
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import normalisation_of
from fedpareto.training.data.sources import list_class_folders
from fedpareto.training.data.stores.choice import Storage
from fedpareto.training.data.stores.stored import read_ahead

def peak():
    # Of this program alone: what getrusage says begins with the memory of the process that started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

listing = list_class_folders(Path(sys.argv[1]))
before = peak()
data = listing.read(Preparation(224), storage=Storage(sys.argv[2], 1))
for _ in read_ahead(data.images, torch.split(torch.arange(len(data)), 16)):
    pass
normalisation_of(data)
print(peak() - before)
"""


@pytest.mark.slow
def test_the_memory_of_a_process_does_not_grow_with_the_images_of_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(noise(1, 224, 224)).save(folder / "first.jpg")
    for number in range(3000):
        (folder / f"{number:04d}.jpg").hardlink_to(folder / "first.jpg")
    decoded = 3001 * 3 * 224**2
    taken = {}
    for store in ("memory", "disk", "encoded"):
        environment = {**os.environ, "FEDPARETO_CACHE_DIR": str(tmp_path / store)}
        command = [sys.executable, "-c", _READ, str(tmp_path / "images"), store]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        taken[store] = int(found.stdout)
    assert taken["memory"] > decoded
    assert taken["disk"] < decoded * 0.7
    assert taken["encoded"] < decoded * 0.7


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (DataConfig("digits", store="disk"), "data.store"),
        (DataConfig("cifar10", store="encoded"), "data.store"),
        (DataConfig("imagefolder", store="disk", decoders=2), "data.decoders"),
    ],
)
def test_what_no_run_would_read_is_refused(data: DataConfig, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is .*it is read only"):
        refuse_unread(RunConfig(data=data))


def test_stores_of_files_are_read() -> None:
    refuse_unread(RunConfig(data=DataConfig("imagefolder", "images", store="encoded", decoders=2)))
