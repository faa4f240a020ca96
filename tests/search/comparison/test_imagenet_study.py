"""The study of DecNAS on ImageNet, run on a stand-in: its own file, with a smaller space, fewer images and clients."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import called
from helpers.images.pictures import noise
from helpers.repository import ROOT
from helpers.runs.federation import micro_space, write_space
from helpers.runs.quick import QUICK
from helpers.runs.studies import write_study
from PIL import Image

from fedpareto.cache.entries import make_entry
from fedpareto.search.comparison.cli import main
from fedpareto.supernet.slices import supernet_architecture

#: What the stand-in has less of, by section.
_LESS: dict[str, dict[str, Any]] = {
    "clients": {"count": 6, "per_round": 3},
    "client": {"batch_size": 4},
    "data": {"validation": 0.1, "store": "encoded", "decoders": 1},
    "evaluation": {"every": 2, "calibration_images": 16, "batch_size": 16},
}


def _write_imagenet(root: Path) -> Path:
    """Write ROOT/train/CLASS and ROOT/test/CLASS of JPEG files, darker and brighter ones."""
    for split, count in (("train", 60), ("test", 8)):
        for label, name in enumerate(("n01440764", "n01443537")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise(number + 1000 * (split == "test"), 14, 12) // 2 + 120 * label
                Image.fromarray(pixels).save(folder / f"{name}_{number}.JPEG")
    return root


@pytest.mark.slow
def test_the_study_runs_from_its_file_to_its_table(tmp_path: Path) -> None:
    study = yaml.safe_load((ROOT / "studies" / "imagenet-decnas.yaml").read_text())
    space = micro_space(name="stand-in", resolutions=(8, 12), classes=2)
    budget = make_entry(space, supernet_architecture(space)).macs * 3 // 4
    study["methods"]["decnas"]["decnas"] |= {"budget": str(budget), "step": 0.15}
    study |= {"budgets": [str(budget)]}
    study["run"] |= {
        "space": str(write_space(tmp_path, space)),
        "compute": "300M",
        "precision": "fp32",
        "execution": dict(QUICK["execution"]),
    }
    for section, settings in _LESS.items():
        study["run"][section] |= settings
    root, output = _write_imagenet(tmp_path / "images"), tmp_path / "out"
    done = called(main, "--config", write_study(tmp_path, study), "--output", output, "--data-root", root)
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in csv.DictReader((output / "table.csv").read_text().splitlines())}
    assert rows.keys() == {"decnas", "fedavg-alone"}
    assert float(rows["decnas"]["macs"]) <= budget
    accounting = next(output.rglob("accounting.json"))
    assert 0 < json.loads(accounting.read_text())["saved"]["bytes_up"] < 1
