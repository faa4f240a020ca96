"""The main job in one go, through the commands a user types: cache, federated training, two searches.

Prints every command before it runs it, and ends with a table and the places of the plots and the run.
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

from supernet.console import next_step, print_table, say
from supernet.words import command as command_line
from supernet.words import shell

SPACE = "mobilenet-tiny"
BUDGETS = ("1M", "4M")
CLIENTS = 10
ROUNDS = 30


def main() -> None:
    """Run the demo in a new folder."""
    output = output_folder(__doc__, "demo")
    started = time.monotonic()
    cache, run = output / "cache.jsonl", output / "run"
    run_command("build-cache", "--space", SPACE, "--entries", "30", "--output", str(cache),
                "--plot", str(output / "front.png"), "--population", "100", "--generations", "100")  # fmt: skip
    run_command("train-supernet", "--space", SPACE, "--cache", str(cache), "--output", str(run),
                "--data.name", "digits", "--partition.scheme", "dirichlet", "--partition.alpha", "0.3",
                "--clients.count", str(CLIENTS), "--clients.per-round", "5", "--rounds", str(ROUNDS),
                "--client.epochs", "2", "--client.lr", "0.05", "--evaluation.every", "10")  # fmt: skip
    pages = {budget: output / f"report-{budget}.html" for budget in BUDGETS}
    reports = [search(run, budget, output / f"subnet-{budget}", page) for budget, page in pages.items()]
    plot = output / "accuracy.png"
    plot_accuracy(plot, run, reports)
    print_summary(reports)
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


def plot_accuracy(path: Path, run: Path, reports: list[dict[str, Any]]) -> None:
    """Draw the probes' validation accuracies after the last round and the searched subnets' test accuracies."""
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
    axes.set_xlabel("MACs of one image (M)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("One supernet, a subnet for every budget")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def print_summary(reports: list[dict[str, Any]]) -> None:
    """Print one line a budget."""
    columns = ("budget", "MACs", "params", "validation accuracy", "test accuracy")
    rows = [
        (
            f"{report['limits']['macs']:,}",
            f"{report['macs']:,}",
            f"{report['params']:,}",
            f"{report['validation_accuracy']:.1%}",
            f"{report['test_accuracy']:.1%}",
        )
        for report in reports
    ]
    print_table(f"{SPACE} on digits, {CLIENTS} clients, Dirichlet(0.3)", columns, rows, figures=0)


if __name__ == "__main__":
    main()
