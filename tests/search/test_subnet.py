import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO, NORMALISATION, micro_space, random_images
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedpareto.search.subnet import SubnetInfo, load_subnet, read_subnet_info, save_subnet
from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.architecture_file import read_architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.networks.weights import initial_tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import Normalisation
from fedpareto.training.evaluation.evaluator import Evaluator

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


@pytest.mark.slow
def test_the_documented_line_of_python_loads_it_in_a_new_process(tmp_path: Path) -> None:
    _saved(tmp_path / "subnet")
    line = "from fedpareto.search.subnet import load_subnet; net = load_subnet('subnet'); "
    line += "print(sum(1 for _ in net.modules()))"
    done = subprocess.run([sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10


def test_a_folder_without_a_subnet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no subnet"):
        load_subnet(tmp_path)


def test_a_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    _saved(tmp_path)
    path = tmp_path / "subnet.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"subnet\.safetensors is damaged \(its digest does not fit\)"):
        load_subnet(tmp_path)
    (tmp_path / DIGESTS).unlink()
    with pytest.raises(UserError, match="is damaged or no subnet file"):
        load_subnet(tmp_path)


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    _saved(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("subnet.safetensors", "architecture.json"):
        path = tmp_path / name
        content = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(content)
            damaged[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(UserError) as caught:
                load_subnet(tmp_path)
            assert "\n" not in str(caught.value)
        path.write_bytes(content)
    load_subnet(tmp_path)
    read_architecture(tmp_path / "architecture.json")


def test_a_subnet_without_its_digests_is_refused_and_one_of_an_earlier_program_read_with_a_warning(
    tmp_path: Path,
) -> None:
    network, _ = _saved(tmp_path)
    (tmp_path / DIGESTS).unlink()
    with pytest.raises(UserError, match=r"digests\.json is missing"):
        load_subnet(tmp_path)
    path = tmp_path / "subnet.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["version"]
    save_file(load_file(path), path, metadata)
    with pytest.warns(UserWarning, match="has no digest: an earlier version wrote it"):
        loaded = load_subnet(tmp_path)
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in network.state_dict().items())


_NAMES = ("space", "architecture", "classes", "normalisation", "report")
_TEXTS = ("", "{", "NaN", "[" * 100_000, '{"a": 1, "a": 1}', '{"mean": [1e400]}', "null", "3", "[3]", "[[[]]]", '""')


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("text", [*_TEXTS, None], ids=lambda text: repr(text)[:12])
def test_metadata_of_another_kind_is_one_line_without_a_digest(tmp_path: Path, name: str, text: str | None) -> None:
    _saved(tmp_path)
    (tmp_path / DIGESTS).unlink()
    path = tmp_path / "subnet.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["version"], metadata[name]
    if text is not None:
        metadata[name] = text
    save_file(load_file(path), path, metadata)
    with pytest.raises(UserError, match=r"subnet\.safetensors") as caught:
        load_subnet(tmp_path)
    assert "\n" not in str(caught.value)
