"""A real federation on this machine: a SuperLink, four SuperNodes, TLS and authentication, five rounds, then a search.

Every part is a process of its own, started as in deploy/README.md; all of them end with this one. Prints every command
of the product before it runs it. Where nginx is installed the nodes come through the gateway.
"""

import sys
import time
from pathlib import Path

from demo import output_folder, run_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))
from loopback import Federation, find_nginx

SPACE, BUDGET = "mobilenet-tiny", "2M"
CLIENTS, ROUNDS = 4, 5


def main() -> None:
    """Run the demo in a new folder."""
    output = output_folder(__doc__, "federation-demo")
    started = time.monotonic()
    nodes = [f"partition-id={client}" for client in range(CLIENTS)]
    gateway = find_nginx() is not None
    print(
        f"starting a SuperLink, {CLIENTS} SuperNodes{' and a gateway' if gateway else ''}; logs: {output}", flush=True
    )
    # One thread each: four clients share this machine.
    with Federation(output / "federation", nodes, gateway=gateway, environ={"OMP_NUM_THREADS": "1"}) as federation:
        federation.wait_until_ready()
        print(f"{CLIENTS} nodes are online: {', '.join(sorted(federation.online()))}", flush=True)
        train_and_search(output, federation.address, str(federation.root_certificates))
    print(
        f"done in {time.monotonic() - started:.0f} s; all processes have ended\n"
        f"logs: {output / 'federation'}/*.log\n"
        f"next: read docs/federation.md, and deploy/README.md for more than one machine"
    )


def train_and_search(output: Path, address: str, root_certificates: str) -> None:
    """Train a supernet on the connected clients and extract one subnet."""
    cache, run = str(output / "cache.jsonl"), str(output / "run")
    run_command("build-cache", "--space", SPACE, "--entries", "30", "--output", cache,
                "--population", "100", "--generations", "100")  # fmt: skip
    run_command("train-supernet", "--engine", "flower", "--flower.address", address,
                "--flower.root-certificates", root_certificates, "--space", SPACE, "--cache", cache,
                "--data.name", "digits", "--partition.alpha", "0.3", "--clients.count", str(CLIENTS),
                "--clients.per-round", str(CLIENTS), "--rounds", str(ROUNDS), "--client.epochs", "4",
                "--client.lr", "0.05", "--evaluation.every", str(ROUNDS), "--tracking.wandb", "off",
                "--output", run)  # fmt: skip
    run_command("search-subnet", "--run", run, "--flops-budget", BUDGET, "--output", str(output / "subnet"))


if __name__ == "__main__":
    main()
