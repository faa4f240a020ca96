"""Budgets of a device as a user writes them, and the limits on costs that they mean. No torch."""

import dataclasses
import math
from pathlib import Path

from fedpareto.cache.costs.cost import memory_cost, size_cost
from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import check_conditions, read_table
from fedpareto.cache.costs.limits import Limits
from fedpareto.fitness.costs import FilePrecision
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.common.formats.units import parse_bytes, parse_milliseconds, parse_quantity
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass
class Budgets:
    """Budgets of a device.

    Attributes:
        flops_budget: most MACs (multiply-accumulates of one image), e.g. 60M, 1.2G or 6e7.
        params_budget: most parameters, e.g. 2M.
        size_budget: most bytes of the exported ONNX file at the given precision, e.g. 4MB or 500kB.
        memory_budget: most bytes of fp32 feature maps at the given batch, e.g. 2MB.
        latency_budget: most milliseconds by a latency table, e.g. 5ms.
        latency_table: JSON file of a device's milliseconds for every block of the space (see profile-device).
        min_fitness: look for the fewest MACs that reach this fitness, not for the highest fitness.
        precision: of the exported weights: fp32, fp16 or int8.
        batch: images at a time on the device.
    """

    flops_budget: str | None = None
    params_budget: str | None = None
    size_budget: str | None = None
    memory_budget: str | None = None
    latency_budget: str | None = None
    latency_table: str | None = None
    min_fitness: float | None = None
    precision: FilePrecision = "fp32"
    batch: int = 1


#: The fields of budgets that limit something.
LIMITING = ("flops_budget", "params_budget", "size_budget", "memory_budget", "latency_budget", "min_fitness")


def check_budgets(budgets: Budgets) -> None:
    """Refuse budgets that cannot be read or do not fit together.

    Raises:
        BudgetError: naming the budget.
    """
    if (budgets.latency_budget is None) != (budgets.latency_table is None):
        raise BudgetError(f"{option('latency-budget')} and {option('latency-table')} go together; give both or neither")
    if all(getattr(budgets, name) is None for name in LIMITING):
        raise BudgetError(
            f"give a limit: {option('flops-budget', '60M')}, {option('params-budget', '2M')}, both, or "
            f"{option('min-fitness', '2000')}"
        )
    if budgets.min_fitness is not None and not math.isfinite(budgets.min_fitness):
        raise BudgetError(f"{option('min-fitness')} is {budgets.min_fitness}; it must be a finite number")
    check_batch(budgets)
    _counts(budgets)
    for name in ("size_budget", "memory_budget"):
        if getattr(budgets, name) is not None:
            parse_bytes(getattr(budgets, name))


def check_batch(budgets: Budgets) -> None:
    """Refuse a batch without images.

    Raises:
        BudgetError: it has none.
    """
    if budgets.batch < 1:
        raise BudgetError(f"batch is {budgets.batch}; it must be at least 1")


def limits_of(budgets: Budgets, space: SearchSpace) -> Limits:
    """Convert budgets to limits on the networks of ``space``.

    Raises:
        BudgetError: a budget cannot be read.
        LatencyTableError: the latency table cannot be read, or is none for the space or the batch.
    """
    limits = _counts(budgets)
    if budgets.size_budget is not None:
        size = size_cost(space, budgets.precision, parse_bytes(budgets.size_budget))
        limits = dataclasses.replace(limits, extras=(*limits.extras, size))
    if budgets.memory_budget is not None:
        memory = memory_cost(space, budgets.batch, parse_bytes(budgets.memory_budget))
        limits = dataclasses.replace(limits, extras=(*limits.extras, memory))
    if budgets.latency_budget is not None:
        limit, path = parse_milliseconds(budgets.latency_budget), Path(str(budgets.latency_table))
        table = read_table(path)
        check_conditions(table, path, batch=budgets.batch)
        limits = dataclasses.replace(limits, extras=(*limits.extras, latency_cost(table, space, limit, source=path)))
    return limits


def budget_options(budgets: Budgets) -> dict[str, object]:
    """Return the command-line options of these budgets, by name."""
    given = {field.name: getattr(budgets, field.name) for field in dataclasses.fields(Budgets)}
    return {name: value for name, value in given.items() if value != getattr(Budgets(), name)}


def _counts(budgets: Budgets) -> Limits:
    return Limits(
        macs=None if budgets.flops_budget is None else parse_quantity(budgets.flops_budget),
        params=None if budgets.params_budget is None else parse_quantity(budgets.params_budget),
    )
