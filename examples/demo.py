"""The main job in one go, through the commands a user types: cache, federated training, two searches.

Beside the two subnets stands what a user would do instead: the two networks trained each by itself, with federated
averaging and half the supernet's compute, and a linear model on the pixels of all clients. Prints every command before
it runs it, and ends with a table and the places of the plots and the run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedpareto.search.comparison.linear import linear_of
from fedpareto.supernet.common.terminal.console import next_step, print_table, say
from fedpareto.supernet.common.terminal.words import command as command_line
from fedpareto.supernet.common.terminal.words import shell
from fedpareto.training.runs.folder import read_run_config

SPACE = "mobilenet-tiny"
BUDGETS = ("1M", "4M")
CLIENTS = 10
ROUNDS = 120

#: What all trainings share: the images, the clients and the local training.
FEDERATION = (
    "--space", SPACE, "--data.name", "digits", "--partition.scheme", "dirichlet", "--partition.alpha", "0.3",
    "--clients.count", str(CLIENTS), "--clients.per-round", "3", "--client.epochs", "2",
)  # fmt: skip


def main() -> None:
    """Run the demo in a new folder."""
    output = output_folder(__doc__, "demo")
    started = time.monotonic()
    cache, run = output / "cache.jsonl", output / "run"
    run_command("build-cache", "--space", SPACE, "--entries", "30", "--output", str(cache),
                "--plot", str(output / "front.png"), "--population", "100", "--generations", "100")  # fmt: skip
    run_command("train-supernet", *FEDERATION, "--cache", str(cache), "--output", str(run),
                "--rounds", str(ROUNDS), "--evaluation.every", "35")  # fmt: skip
    pages = {budget: output / f"report-{budget}.html" for budget in BUDGETS}
    reports = [search(run, budget, output / f"subnet-{budget}", page) for budget, page in pages.items()]
    alone = [train_alone(output, cache, budget, compute_of(run) // len(BUDGETS)) for budget in BUDGETS]
    plot = output / "accuracy.png"
    plot_accuracy(plot, run, reports, alone)
    print_summary(reports, alone)
    linear = linear_of(read_run_config(run))
    say(f"a linear model on the pixels of all clients: test accuracy {linear.test_accuracy:.1%}")
    say(f"run: {run}")
    say(f"front of the cache: {output / 'front.png'}")
    say(f"accuracy over MACs: {plot}")
    say(f"subnets: {', '.join(report['output'] for report in reports)}")
    say(f"pages about them: {', '.join(map(str, pages.values()))}")
    say(f"done in {time.monotonic() - started:.0f} s")
    next_step(command_line("search-subnet", run=run, flops_budget="2M", test=True))


def output_folder(description: str | None, default: str) -> Path:
    """Read the one option of a demo: the folder it writes, which must not be there."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path(default), help="folder to write, must not exist")
    output: Path = parser.parse_args().output
    if os.path.exists(output):
        sys.exit(f"{output} exists; remove it or pass another --output")
    return output


def run_command(*command: str, capture: bool = False) -> str:
    """Print and run a command; end the demo with its exit code if it fails."""
    print("$", shell(list(command)), flush=True)
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def search(run: Path, budget: str, output: Path, page: Path) -> dict[str, Any]:
    """Search the run's subnet for a budget, write a page about it, and return the command's JSON."""
    text = run_command("search-subnet", "--run", str(run), "--flops-budget", budget, "--test",
                       "--output", str(output), "--report", str(page), "--json", capture=True)  # fmt: skip
    report: dict[str, Any] = json.loads(text)
    return report


def compute_of(run: Path) -> int:
    """Return the multiply–accumulates of all clients' forward passes in a run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["compute"] for line in lines)


def train_alone(output: Path, cache: Path, budget: str, compute: int) -> dict[str, Any]:
    """Train the network found for a budget by itself, with the supernet's loss; return its report."""
    found, run = output / f"subnet-{budget}" / "architecture.json", output / f"alone-{budget}"
    run_command("train-supernet", *FEDERATION, "--cache", str(cache), "--output", str(run), "--method", "fedavg",
                "--fedavg.architecture", str(found), "--compute", str(compute), "--client.logit-adjustment", "1",
                "--evaluation.every", "1000")  # fmt: skip
    text = run_command("search-subnet", "--run", str(run), "--architecture", str(found), "--test",
                       "--output", str(run / "subnet"), "--json", capture=True)  # fmt: skip
    report: dict[str, Any] = json.loads(text)
    return report


def plot_accuracy(path: Path, run: Path, reports: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    """Draw accuracies over MACs: probes on validation images, subnets and networks trained alone on test images."""
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    figure = Figure(figsize=(7.5, 4.5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.plot(
        [probe["macs"] / 1e6 for probe in last["probes"]],
        [100 * probe["accuracy"] for probe in last["probes"]],
        marker="o", color="0.6", label=f"cache entries, validation, round {last['round']}",
    )  # fmt: skip
    axes.scatter(
        [report["macs"] / 1e6 for report in reports],
        [100 * report["test_accuracy"] for report in reports],
        marker="*", s=160, color="tab:red", zorder=3, label="searched subnets, test",
    )  # fmt: skip
    axes.scatter(
        [report["macs"] / 1e6 for report in alone],
        [100 * report["test_accuracy"] for report in alone],
        marker="x", s=60, color="tab:blue", zorder=3, label="each trained alone with half the compute, test",
    )  # fmt: skip
    axes.set_xlabel("MACs of one image (M)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("One supernet, a subnet for every budget")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def print_summary(reports: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    """Print one line a budget."""
    columns = ("budget", "MACs", "params", "validation accuracy", "test accuracy", "alone, half the compute")
    rows = [
        (
            f"{report['limits']['macs']:,}",
            f"{report['macs']:,}",
            f"{report['params']:,}",
            f"{report['validation_accuracy']:.1%}",
            f"{report['test_accuracy']:.1%}",
            f"{single['test_accuracy']:.1%}",
        )
        for report, single in zip(reports, alone, strict=True)
    ]
    print_table(f"{SPACE} on digits, {CLIENTS} clients, Dirichlet(0.3)", columns, rows, figures=0)


if __name__ == "__main__":
    main()
