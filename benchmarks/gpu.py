"""One command for one GPU: rates beside a plain loop's, and methods trained side by side, within the minutes given.

    python benchmarks/gpu.py --data DATA --minutes 8 --json FILE
    python benchmarks/gpu.py --table FILE

DATA is a mosaic (benchmarks/mosaic.py), or a folder of train/CLASS and test/CLASS. The clock starts with the process;
every part has a share of the minutes and is cut when that is used up. FILE holds whatever was found so far, whole
after every row. The second form prints such a file as Markdown.

What is trained stands in studies/gpu-eight-minutes.yaml: methods, budgets, clients, local training. The first method,
the study's reference, has as many rounds as its part of the time gives, and every other one the same client MACs; a
method that time cuts short before that is told of.

Beside this repository, torch, torchvision, numpy, safetensors and PyYAML it needs the pure-Python wheels of
benchmarks/gpu-requirements.txt. ``make gpu-wheels`` puts them into wheels/, which travels with the working tree to a
machine without a network; Python imports from wheels as they are:

    PYTHONPATH=.:$(echo wheels/*.whl | tr ' ' :) python benchmarks/gpu.py ...
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "benchmarks/gpu.py"
NEEDED = ("torch", "torchvision", "numpy", "safetensors", "yaml")
STUDY = Path(__file__).parents[1] / "studies" / "gpu-eight-minutes.yaml"
SPACES = ("mobilenet-cifar", "resnet-cifar", "mobilenet-tiny", "mobilenet-imagenet")


def main() -> None:
    """Measure, or print what was measured."""
    started = time.monotonic()
    options = parser().parse_args()
    try:
        # Seconds of import, which count; and what is missing is told with where it is listed.
        for name in NEEDED:
            importlib.import_module(name)
        from fedpareto.supernet.common.terminal.console import run_command  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.exit(
            f"{PROGRAM}: error: {error.name} is missing; python must have {', '.join(NEEDED)}, and PYTHONPATH name "
            "this repository and the wheels of benchmarks/gpu-requirements.txt (make gpu-wheels)"
        )

    def command(arguments: Sequence[str]) -> None:
        del arguments
        if options.table is not None:
            print_markdown(options.table)
        else:
            measure(options, started)

    run_command(PROGRAM, command, [])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    described = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    described.formatter_class = argparse.RawDescriptionHelpFormatter
    what = described.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="folder of a mosaic, or of train/CLASS and test/CLASS")
    what.add_argument("--table", type=Path, metavar="FILE", help="print the report in FILE as Markdown, and end")
    described.add_argument("--minutes", type=minutes, default=8.0, help="for all of it, from the start (8)")
    described.add_argument("--json", type=Path, default=Path("gpu.json"), metavar="FILE", help="the report (gpu.json)")
    described.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    described.add_argument("--batch", type=batch, help="images a step (those of the study)")
    described.add_argument("--study", type=Path, default=STUDY, metavar="FILE", help="what is trained (%(default)s)")
    described.add_argument("--spaces", nargs="+", choices=SPACES, default=SPACES, help="spaces to be measured (all)")
    return described


def minutes(text: str) -> float:
    """Read the minutes of a benchmark."""
    value = float(text)
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 600")
    return value


def batch(text: str) -> int:
    """Read the images of a step."""
    value = int(text)
    if not 2 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"{text} is not from 2 to 4096")
    return value


def measure(options: argparse.Namespace, started: float) -> None:
    """Run the benchmark, print its tables and say what to do next."""
    from gpu_session import Options, print_report, run  # noqa: PLC0415

    from fedpareto.supernet.common.terminal.console import next_step  # noqa: PLC0415
    from fedpareto.supernet.common.terminal.words import command  # noqa: PLC0415

    names = ("data", "minutes", "json", "device", "batch", "study")
    asked = Options(**{name: getattr(options, name) for name in names}, spaces=tuple(options.spaces))
    print_report(run(asked, started))
    next_step(command("python", PROGRAM, table=options.json))


def print_markdown(path: Path) -> None:
    """Print the report in a file as Markdown."""
    from gpu_report import read_report  # noqa: PLC0415
    from gpu_tables import markdown  # noqa: PLC0415

    print(markdown(read_report(path)), end="")


if __name__ == "__main__":
    main()
