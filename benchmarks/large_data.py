"""More images than memory: many JPEG files of 224 pixels are trained on, and the memory of all processes is measured.

Some hundred pictures are encoded, and the others are hard links to them: a file is opened, read and decoded as any
other, but the disk's own speed is not measured, because the system keeps the few contents in memory.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from process_memory import peak_of

from fedpareto.cache.entries import make_entry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.machine import available_cores, machine
from fedpareto.supernet.genes import decode, smallest_genes
from fedpareto.supernet.networks.weights import initial_tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.trainer import recipe_of
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import fixed_normalisation
from fedpareto.training.data.stores.encoded import EncodedFiles
from fedpareto.training.data.stores.stored import read_ahead, stored
from fedpareto.training.engines.simulation.bench import WALL_TIME, Bench
from fedpareto.training.execution.profile import Profile

#: The pictures are a multiple of the classes, so that a link lies in the class of its picture.
_SPACE, _SIDE, _CLASSES, _PICTURES = "mobilenet-imagenet", 224, 10, 400

#: Bytes that the run may take.
_BOUND = 2e9

#: Activations are what takes memory then: those of the largest network are 0.14 GB an image of a batch.
_BATCH = 4


def main() -> None:
    """Print the memory of a run over many files, the decoders' rate and the rate that steps need."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain, allow_abbrev=False)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--decoders", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}; torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}")
    with tempfile.TemporaryDirectory(prefix="large-data-") as folder:
        root = Path(folder)
        started = time.monotonic()
        size = _write(root / "images", options.images)
        print(f"{options.images:,} files of {size / 1e3:.1f} kB on average in {time.monotonic() - started:.0f} s")
        print(f"decoded they would take {options.images * 3 * _SIDE**2 / 1e9:.1f} GB")
        _print_rates(root / "images", options.decoders)
        _print_memory(root, options)


def _print_rates(root: Path, count: int) -> None:
    paths = sorted(root.rglob("*.jpg"))[: 64 * _BATCH]
    for workers in sorted({count, available_cores()}):
        source = EncodedFiles(paths, Preparation(_SIDE), workers)
        pixels, batches = stored(source), torch.split(torch.arange(len(paths)), _BATCH)
        list(read_ahead(pixels, batches[:4]))
        started = time.perf_counter()
        for _ in read_ahead(pixels, batches):
            pass
        print(f"decoded by {workers} processes: {len(paths) / (time.perf_counter() - started):,.0f} images/s")
    space = load_space(_SPACE)
    for name, architecture in (
        ("smallest", decode(space, smallest_genes(space))),
        ("largest", supernet_architecture(space)),
    ):
        print(f"a step on the {name} network, one thread: {_step_rate(architecture):,.1f} images/s")


def _step_rate(architecture: Architecture) -> float:
    space = load_space(_SPACE)
    config = RunConfig(space=_SPACE, client=ClientConfig(batch_size=_BATCH, epochs=1))
    recipe = recipe_of(config, space, fixed_normalisation(3))
    tensors = initial_tensors(space, torch.Generator().manual_seed(0))
    bench = Bench(recipe, make_entry(space, architecture), torch.device("cpu"), tensors, WALL_TIME)
    engine = bench.engine(Profile())
    return max(bench.rate(engine, 1) for _ in range(2))


def _print_memory(root: Path, options: argparse.Namespace) -> None:
    command = [
        *(sys.executable, "-c", "import sys; from fedpareto.training.cli import main; sys.exit(main())"),
        *("--space", _SPACE, "--method", "superfednas", "--output", str(root / "run")),
        *("--data.name", "imagefolder", "--data.root", str(root / "images")),
        *("--data.store", "encoded", "--data.decoders", str(options.decoders), "--data.validation", "0.001"),
        *("--partition.scheme", "iid", "--clients.count", str(options.images // 100), "--clients.per-round", "2"),
        *("--client.batch-size", str(_BATCH), "--client.epochs", "1", "--rounds", str(options.rounds)),
        *("--evaluation.probes", "2", "--evaluation.calibration-images", "64", "--evaluation.batch-size", "16"),
        *("--precision", "fp32", "--execution.memory-format", "channels_last", "--execution.fused", "true"),
        *("--execution.kernels", "torch", "--execution.workers", "1", "--execution.threads", "1"),
        *("--tracking.wandb", "off"),
    ]
    environment = {**os.environ, "FEDPARETO_CACHE_DIR": str(root / "kept"), "OMP_NUM_THREADS": "1"}
    peak = peak_of(command, environment)
    print(
        f"trained {options.rounds} rounds in {peak.seconds:.0f} s: {peak.processes} processes, "
        f"{peak.together / 1e9:.2f} GB together, {peak.largest / 1e9:.2f} GB the largest"
    )
    if peak.together > _BOUND:
        sys.exit(f"the run took more than {_BOUND / 1e9:.0f} GB")


def _write(root: Path, count: int) -> float:
    """Write so many files into ROOT/train/CLASS; return their mean size in bytes."""
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(min(_PICTURES, count)):
        coarse = Image.fromarray(generator.integers(0, 256, (56, 56, 3)).astype(np.uint8))
        buffer = io.BytesIO()
        coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        contents.append(buffer.getvalue())
    folders = [root / "train" / f"class{label:03d}" for label in range(_CLASSES)]
    for folder in folders:
        folder.mkdir(parents=True)
    first: list[Path] = []
    for number in range(count):
        path = folders[number % _CLASSES] / f"{number:07d}.jpg"
        if number < len(contents):
            path.write_bytes(contents[number])
            first.append(path)
        else:
            path.hardlink_to(first[number % _PICTURES])
    return sum(map(len, contents)) / len(contents)


if __name__ == "__main__":
    main()
