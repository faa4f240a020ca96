"""Search from Python: a space or a trained run, without training, within a device's limits."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedpareto.fitness.costs import FilePrecision
from fedpareto.fitness.settings import fitness_of
from fedpareto.search.query.answering import SearchOutcome, answer_budgets
from fedpareto.search.query.device_limits import LatencyLimit, Quantity, budgets_of
from fedpareto.search.query.subject import SearchTarget, find_subject
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.storage.signatures import read_keys
from fedpareto.supernet.common.terminal.progress import progress_or_silence
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_of

if TYPE_CHECKING:
    from fedpareto.search.trained_run import TrainedRun


@checked
def find_subnet(
    space: SearchSpace | str | Path,
    *,
    macs: Quantity | None = None,
    params: Quantity | None = None,
    size: Quantity | None = None,
    memory: Quantity | None = None,
    latency: LatencyLimit | None = None,
    min_fitness: float | None = None,
    precision: FilePrecision = "fp32",
    batch: int = 1,
    fitness: FitnessSettings | str | Path | None = None,
    classes: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SearchOutcome:
    """Find the architecture of highest fitness within a device's limits, in a space that nobody has trained yet.

    Args:
        space: a search space, the name of a preset or a YAML file.
        macs: most multiply–accumulates of one image, e.g. 60M (the command's ``--flops-budget``).
        params: most parameters, e.g. 2M (``--params-budget``).
        size: most bytes of the exported ONNX file at the given precision, e.g. 4MB (``--size-budget``).
        memory: most bytes of fp32 feature maps at the given batch, e.g. 2MB (``--memory-budget``).
        latency: most milliseconds and the device's table, e.g. ("5ms", "table.json") (``--latency-budget``).
        min_fitness: look for the fewest MACs that reach this fitness, not for the highest fitness.
        precision: of the exported weights: fp32, fp16 or int8.
        batch: images at a time on the device.
        fitness: weights, or a YAML file of them; the space's own when left out.
        classes: outputs of the classifier; the space's own when left out.
        seed: seed of a genetic search, where the space is too large for an exact one.
        progress: show progress.

    Raises:
        UserError: no network meets the limits, or one of them cannot be read.

    >>> import fedpareto as fp
    >>> answer = fp.find_subnet("mobilenet-tiny", macs="2M", progress=False)
    >>> answer
    SearchOutcome(1.985M MACs, 177K parameters, fitness 627.8, certified)
    >>> answer.certified, answer.gap
    (True, 0.0)
    """
    given = space_of(space, classes)
    target = SearchTarget(given, fitness_of(fitness, given), named=str(space), classes=classes)
    budgets = budgets_of(
        macs=macs,
        params=params,
        size=size,
        memory=memory,
        latency=latency,
        min_fitness=min_fitness,
        precision=precision,
        batch=batch,
    )
    with progress_or_silence("searching", progress) as listener:
        return answer_budgets(target, budgets, seed, listener)


@checked
def open_run(
    run: str | Path,
    *,
    checkpoint: Literal["best", "newest"] = "best",
    fitness: FitnessSettings | str | Path | None = None,
    data_root: str | Path | None = None,
    verify: str | Path | None = None,
) -> "TrainedRun":
    """Open a trained run, to find and extract subnets.

    Args:
        run: folder of the run.
        checkpoint: which of its checkpoints, best by validation or newest.
        fitness: weights, or a YAML file of them; those of the run's cache when left out.
        data_root: folder of the images now, if it is not where they were when the run was trained.
        verify: PEM file of a public key that the run must be signed with.

    Raises:
        UserError: the folder holds no run, a file of it is damaged, or it is not signed as it must be.

    >>> import fedpareto as fp
    >>> federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1}
    >>> result = fp.train(data="digits", rounds=1, **federation, output="runs/opened", progress=False)
    >>> run = fp.open_run(result.folder)
    >>> subnet = run.extract(run.find(macs="1M", progress=False), progress=False)
    >>> 0 <= subnet.accuracy("test") <= 1
    True
    """
    from fedpareto.search.trained_run import read_trained_run  # noqa: PLC0415 - imports torch
    from fedpareto.training.runs.verification import verify_run  # noqa: PLC0415

    trusted = read_keys(None, verify).verify
    verify_run(Path(run), checkpoint, trusted)
    target = find_subject(None, str(run), None, None)
    if fitness is not None:
        target = SearchTarget(target.space, fitness_of(fitness, target.space), target.known, target.run)
    return read_trained_run(target, checkpoint, None if data_root is None else str(data_root), trusted)
