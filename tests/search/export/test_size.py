"""The size of exported files against its bound from the layer table."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks.strategies import narrow_resnet, tiny_space
from helpers.runs.exports import learned, with_random_norms

from fedpareto.fitness.costs import FilePrecision, file_bytes
from fedpareto.search.export.metadata import metadata_of
from fedpareto.search.export.onnx_file import at_precision, onnx_of, save_onnx
from fedpareto.supernet.genes import decode, largest_genes
from fedpareto.supernet.layer_table import layer_table
from fedpareto.supernet.networks.bn_folding import folded
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

#: How much of its bound a file of more than a megabyte fills at least.
_FILLED: dict[FilePrecision, float] = {"fp32": 0.97, "fp16": 0.97, "int8": 0.94}


@pytest.mark.parametrize(
    ("space", "norm"),
    [
        pytest.param(space, norm, id=f"{space.family}-{norm}", marks=[pytest.mark.slow] if norm in seldom else [])
        for space, seldom in ((tiny_space(), ["group", "none"]), (narrow_resnet(), ["batch", "group"]))
        for norm in ("batch", "group", "none")
    ],
)
def test_files_are_within_their_bound_and_close_to_it(space: SearchSpace, norm: Any, tmp_path: Path) -> None:
    space = dataclasses.replace(space, norm=norm)
    genes = largest_genes(space)
    architecture = decode(space, genes)
    side = architecture.resolution
    network = with_random_norms(build_network(space, architecture, running_statistics=True).eval())
    info = dataclasses.replace(learned(steps=0).info, space=space, architecture=architecture)
    model = onnx_of(folded(network).requires_grad_(False), torch.zeros(2, 3, side, side))
    images = [np.random.default_rng(0).standard_normal((4, 3, side, side), dtype=np.float32)]
    for precision, filled in _FILLED.items():
        path = tmp_path / f"{precision}.onnx"
        save_onnx(path, at_precision(copy.deepcopy(model), precision, images), metadata_of(info, precision))
        size, bound = path.stat().st_size, int(file_bytes(layer_table(space, genes), norm, precision)[0])
        assert size <= bound
        if size > 1e6:
            assert size >= filled * bound
