"""Process that talks to Weights & Biases for a run: events come as JSON lines on standard input.

It is a process of its own so that nothing that wandb does can end or delay a run: an exception, a hang, a service that
lives on, hooks that run at the interpreter's end. It writes JSON lines on standard output: the mode of wandb, and
remarks.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

#: Seconds until a server that has not answered counts as away, with all it takes to begin a run there.
ANSWER = 10.0

#: The least status of HTTP by which a server says that it cannot answer.
_SERVER_ERROR = 500

#: Seconds that wandb's service may take to start.
_SERVICE = 60.0

#: Seconds that a run is finished in when the command that it mirrors was killed.
_ORPHANED = 60.0

#: Exit code of a look for a login that found none.
NO_LOGIN = 3

T = TypeVar("T")


class Unreachable(Exception):  # noqa: N818 - what it says of a server
    """Error of a server that does not answer in time, or not as one of wandb's does."""


def main() -> None:
    """Mirror the run whose events come on standard input; or report by the exit code if there is a login."""
    # What wandb prints is for nobody; a login that it prints it asks the server about.
    told, sys.stdout = sys.stdout, sys.stderr
    os.environ["WANDB_SILENT"] = "true"
    # A report on wandb itself waits for the server, also from a run that is offline.
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    if sys.argv[1:] == ["login"]:
        os._exit(0 if _logged_in() else NO_LOGIN)
    events = (json.loads(line) for line in sys.stdin)

    def tell(**words: Any) -> None:
        told.write(json.dumps(words) + "\n")
        told.flush()

    try:
        mirror = _Mirror(next(events), tell)
        for event in events:
            getattr(mirror, f"on_{event.pop('do')}")(**event)
    except Exception as error:
        tell(remark=f"wandb failed ({_one_line(error)}); the run goes on without it")
        # Its hooks at the interpreter's end would hang as well.
        os._exit(1)
    # The hooks finish a run whose command was killed; nobody waits for them for ever.
    timer = threading.Timer(_ORPHANED, os._exit, [1])
    timer.daemon = True
    timer.start()


class _Mirror:
    """Mirror of one run on wandb.

    Args:
        start: name, project, mode and other settings of the wandb run.
        tell: function that sends words to the command.
    """

    def __init__(self, start: Mapping[str, Any], tell: Callable[..., None]) -> None:
        import wandb  # noqa: PLC0415 - the look for a login begins before

        self._wandb = wandb
        end = time.monotonic() + ANSWER
        mode, remark = _mode(start["mode"])
        try:
            self._run = self._begun(start, mode, end)
        except Exception as error:
            if mode == "offline":
                raise
            remark, mode = f"wandb goes offline: {_one_line(error)}", "offline"
            self._run = self._begun(start, mode, end)
        tell(mode=mode, **({"remark": remark} if remark else {}))

    def _begun(self, start: Mapping[str, Any], mode: str, end: float) -> Any:
        if mode == "online":
            _in_time(lambda: _check_answering(self._wandb.setup().settings.base_url), end)
        # A run that is offline waits for nobody but wandb's own service.
        limit = max(2.0, end - time.monotonic()) if mode == "online" else _SERVICE
        settings = self._wandb.Settings(console="off", silent=True, init_timeout=limit)
        names = {"project": start["project"], "name": start["name"], "id": start["id"], "dir": start["folder"]}

        def begin() -> Any:
            return self._wandb.init(**names, resume="allow", mode=mode, config=start["config"], settings=settings)

        return _in_time(begin, end + 2.0) if mode == "online" else begin()

    def on_log(self, step: int, values: Mapping[str, Any], trained: list[int], probes: list[list[float]]) -> None:
        """Log a round's curves, the histogram of entries and, if the round was evaluated, the Pareto plot."""
        logged = dict(values) | {"curriculum/entries_trained": self._histogram(trained)}
        if probes:
            logged |= self._pareto_plot(step, probes)
        self._run.log(logged, step=step)

    def on_checkpoint(self, folder: str, aliases: list[str]) -> None:
        """Log a checkpoint as an artifact."""
        artifact = self._wandb.Artifact(f"supernet-{self._run.id}", type="model")
        try:
            for file in sorted(Path(folder).iterdir()):
                artifact.add_file(str(file), name=file.name)
        except (FileNotFoundError, ValueError):
            # It was pruned meanwhile: a better one has taken its place, and comes next.
            return
        self._run.log_artifact(artifact, aliases=aliases)

    def on_finish(self) -> None:
        """Finish the run; returns when all is sent."""
        self._run.finish()

    def _histogram(self, trained: list[int]) -> Any:
        positions = np.arange(len(trained))
        bins = min(len(trained), self._wandb.Histogram.MAX_LENGTH)
        return self._wandb.Histogram(np_histogram=np.histogram(positions, bins=bins, weights=trained))

    def _pareto_plot(self, step: int, probes: list[list[float]]) -> dict[str, Any]:
        rows = [[macs / 1e6, params / 1e6, accuracy] for macs, params, accuracy in probes]
        table = self._wandb.Table(columns=["MACs (M)", "params (M)", "accuracy"], data=rows)
        title = f"validation accuracy over MACs, round {step}"
        chart = self._wandb.plot.line(table, "MACs (M)", "accuracy", title=title)
        return {"pareto/table": table, "pareto/plot": chart}


def _mode(asked: str) -> tuple[str, str]:
    """Return the mode of a run, online or offline, and a remark on it."""
    if asked != "auto":
        return asked, ""
    try:
        return "online" if _logged_in() else "offline", ""
    except Exception as error:
        return "offline", f"wandb goes offline: {_one_line(error)}"


def _logged_in() -> bool:
    import wandb  # noqa: PLC0415 - a second of import

    # The server is asked later, with a limit of time.
    return bool(wandb.login(prompt=False, verify=False))


def _check_answering(address: str) -> None:
    """Check that a server answers any request at all, as wandb itself would try again and again.

    Raises:
        Unreachable: it does not answer, or reports that it cannot.
    """
    import requests  # noqa: PLC0415 - comes with wandb

    try:
        with requests.get(address, timeout=ANSWER / 2, stream=True, allow_redirects=False) as answer:
            status = answer.status_code
    except requests.RequestException as error:
        raise Unreachable(f"{address} does not answer ({type(error).__name__})") from error
    if status >= _SERVER_ERROR:
        raise Unreachable(f"{address} answers with error {status}")


def _in_time(work: Callable[[], T], end: float) -> T:
    """Return the result of ``work``, if it comes before the moment ``end`` of the monotonic clock.

    Raises:
        Unreachable: it does not come in time; the work is left to itself.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    for error in errors:
        raise error
    if not results:
        raise Unreachable(f"its server does not answer within {ANSWER:g} s")
    return results[0]


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
