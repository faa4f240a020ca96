"""A federation on this machine that stays up until Ctrl-C, to train on, and to kill parts of.

Starts a SuperLink, a SuperExec and SuperNodes with TLS and authentication, as in deploy/README.md, and prints what to
type. A SuperLink or a node that ends is started again, as systemd would.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))
from loopback import Federation, find_nginx

#: Seconds between two looks; a node that was killed is let in again after about a minute.
PAUSE = 10.0


def main() -> None:
    """Start, say what to type, and watch until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder for keys and logs, must not exist")
    parser.add_argument("--nodes", type=int, default=4, help="SuperNodes; each has one partition of the run's data")
    parser.add_argument("--data-root", type=Path, help="folder of the data set; the digits need none")
    options = parser.parse_args()
    if os.path.exists(options.folder):
        sys.exit(f"{options.folder} exists; remove it or name another")
    root = f' data-root="{options.data_root.absolute()}"' if options.data_root else ""
    nodes = [f"partition-id={client}{root}" for client in range(options.nodes)]
    threads = str(max(1, (os.cpu_count() or 1) // options.nodes))
    gateway = find_nginx() is not None
    with Federation(options.folder, nodes, gateway=gateway, environ={"OMP_NUM_THREADS": threads}) as federation:
        federation.wait_until_ready()
        print(
            f"{options.nodes} nodes are online; logs: {options.folder}/*.log; Ctrl-C ends all of it\n"
            f"next: train-supernet --engine flower --flower.address {federation.address} "
            f"--flower.root-certificates {options.folder / 'keys' / 'ca.crt'} --clients.count {options.nodes} "
            f"--clients.per-round {options.nodes}",
            flush=True,
        )
        try:
            watch(federation)
        except KeyboardInterrupt:
            print("ending all processes")


def watch(federation: Federation) -> None:
    """Start again whatever has ended, for ever."""
    while True:
        time.sleep(PAUSE)
        for index in range(len(federation.nodes)):
            if not federation.processes.running(f"node{index}"):
                print(f"node{index} has ended; starting it again", flush=True)
                federation.start_node(index)
        if not federation.processes.running("superlink"):
            print("the SuperLink has ended; starting it again", flush=True)
            federation.start_superlink()


if __name__ == "__main__":
    main()
