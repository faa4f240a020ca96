import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from federation import MICRO, NORMALISATION, micro_space, random_images

from search.subnet import SubnetInfo, load_subnet, read_subnet_info, save_subnet
from supernet.architecture import Architecture, architecture_from_json
from supernet.errors import UserError
from supernet.genes import decode, random_genes
from supernet.space import SearchSpace
from supernet.weights import initial_tensors
from training.data.images import Normalisation
from training.data.preparation import Preparation
from training.evaluation import Evaluator

_PREPARATION = Preparation(8, 3, "pad")


def _saved(folder: Path, space: SearchSpace = MICRO) -> tuple[torch.nn.Module, Architecture]:
    tensors = initial_tensors(space, torch.Generator().manual_seed(0))
    architecture = decode(space, random_genes(space, 1, np.random.default_rng(3))[0])
    evaluator = Evaluator(space, random_images(64), random_images(32, seed=1), NORMALISATION, 32)
    network = evaluator.subnet(tensors, architecture)
    save_subnet(
        folder, network, SubnetInfo(space, architecture, tuple("abcd"), _PREPARATION, NORMALISATION, {"macs": 7})
    )
    return network, architecture


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_saved_subnet_loads_back_to_the_same_outputs(tmp_path: Path, norm: str) -> None:
    network, _ = _saved(tmp_path, micro_space(norm=norm))
    loaded = load_subnet(tmp_path)
    images = torch.randn(5, 3, 8, 8)
    assert isinstance(loaded, torch.nn.Module)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.allclose(loaded(images), network(images), rtol=0, atol=1e-6)
        assert torch.allclose(loaded(images[:1]), network(images)[:1], rtol=0, atol=1e-5)


def test_a_subnet_file_says_what_it_needs(tmp_path: Path) -> None:
    _, architecture = _saved(tmp_path)
    info = read_subnet_info(tmp_path)
    assert info.architecture == architecture
    assert info.space.fingerprint == MICRO.fingerprint
    assert info.classes == ("a", "b", "c", "d")
    assert info.preparation == _PREPARATION
    assert info.normalisation == Normalisation((0.5,) * 3, (0.25,) * 3)
    assert info.report == {"macs": 7}
    assert architecture_from_json(json.loads((tmp_path / "architecture.json").read_text())) == architecture


def test_the_documented_line_of_python_loads_it_in_a_new_process(tmp_path: Path) -> None:
    _saved(tmp_path / "subnet")
    line = "from search.subnet import load_subnet; net = load_subnet('subnet'); print(sum(1 for _ in net.modules()))"
    done = subprocess.run([sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10


def test_a_folder_without_a_subnet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no subnet"):
        load_subnet(tmp_path)


def test_a_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    _saved(tmp_path)
    path = tmp_path / "subnet.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="is damaged or no subnet file"):
        load_subnet(tmp_path)
