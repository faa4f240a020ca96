"""Mirror of a run on Weights & Biases: online with a login, offline without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from supernet.console import stderr
from supernet.units import format_quantity
from supernet.words import command
from training.records import LostRound, RoundRecord

Mode = Literal["auto", "online", "offline"]


class WandbTracker:
    """Logs curves, histograms, the Pareto plot and checkpoints of a run.

    Args:
        folder: the run's folder; wandb keeps its files in ``wandb/`` there.
        name: what the dashboard calls the run.
        project: wandb project.
        mode: ``auto`` is online with a login and offline without.
        config: the run's configuration.
        run_id: id of the wandb run, so that a resumed run goes on in it.
    """

    def __init__(
        self, folder: Path, name: str, project: str, mode: Mode, config: Mapping[str, Any], run_id: str | None
    ) -> None:
        # A second of import that runs without wandb do not pay for.
        import wandb  # noqa: PLC0415

        self._wandb = wandb
        self._folder = folder
        if mode == "auto":
            mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        self.mode = mode
        self._run = wandb.init(
            project=project,
            name=name,
            id=run_id,
            resume="allow",
            dir=str(folder),
            mode=mode,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Nothing: the dashboard shows rounds."""

    def round_done(self, record: RoundRecord) -> None:
        """Log the round's curves, and the Pareto plot when it was evaluated."""
        values: dict[str, Any] = {
            "train/loss": record.train_loss,
            "train/lr": record.lr,
            "bytes/up": record.bytes_up,
            "bytes/down": record.bytes_down,
            "compute/client_macs": record.compute,
            "bytes/whole_supernets": record.bytes_whole,
            "time/round_seconds": record.seconds,
            "time/overhead_share": record.overhead_share,
            "failures": sum(record.failures.values()) + len(record.evaluation_failures),
            "curriculum/entries_trained": self._histogram(record.trained),
        }
        if record.beta is not None:
            values["train/beta"] = record.beta
        if record.epsilon is not None:
            values["privacy/epsilon"] = record.epsilon
        if record.clipped is not None:
            values["privacy/clipped_share"] = record.clipped
        for name, accuracy in record.tested.items():
            values[f"search/{name}"] = accuracy
        if record.probes:
            values["time/evaluation_seconds"] = record.evaluation_seconds
            values["bytes/evaluation_up"] = record.evaluation_bytes_up
            values["bytes/evaluation_down"] = record.evaluation_bytes_down
            values["validation/mean_accuracy"] = record.mean_accuracy
            for probe in record.probes:
                values[f"validation/accuracy_at_{format_quantity(probe.macs)}"] = probe.accuracy
            values |= self._pareto_plot(record)
        self._run.log(values, step=record.round)

    def round_lost(self, record: LostRound) -> None:
        """Nothing: a step of the dashboard is a merged round."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Log the checkpoint as an artifact."""
        artifact = self._wandb.Artifact(f"supernet-{self._run.id}", type="model")
        for file in sorted(folder.iterdir()):
            artifact.add_file(str(file), name=file.name)
        self._run.log_artifact(artifact, aliases=list(aliases))

    def close(self) -> None:
        """Finish the wandb run and say how to upload it if it was offline."""
        self._run.finish()
        if self.mode == "offline":
            stderr.print(
                f"wandb ran offline; upload it with: {command('wandb', 'sync', self._folder / 'wandb')}/offline-run-*"
            )

    def _histogram(self, trained: Sequence[int]) -> Any:
        positions = np.arange(len(trained))
        bins = min(len(trained), self._wandb.Histogram.MAX_LENGTH)
        return self._wandb.Histogram(np_histogram=np.histogram(positions, bins=bins, weights=trained))

    def _pareto_plot(self, record: RoundRecord) -> dict[str, Any]:
        rows = [[probe.macs / 1e6, probe.params / 1e6, probe.accuracy] for probe in record.probes]
        table = self._wandb.Table(columns=["MACs (M)", "params (M)", "accuracy"], data=rows)
        title = f"validation accuracy over MACs, round {record.round}"
        chart = self._wandb.plot.line(table, "MACs (M)", "accuracy", title=title)
        return {"pareto/table": table, "pareto/plot": chart}
