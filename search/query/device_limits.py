"""Limits of a device as Python values: numbers or words such as ``2M``, and a latency with its table."""

from pathlib import Path
from typing import Any, Protocol

from fedpareto.fitness.costs import FilePrecision
from fedpareto.search.query.budgets import Budgets, check_budgets
from fedpareto.supernet.common.errors import BudgetError

#: A number, or a text with a unit such as 60M, 4MB or 5ms.
Quantity = str | int | float


class HasTable(Protocol):
    """A latency table in a file, such as ``profile_device`` makes."""

    @property
    def path(self) -> Path:
        """The file."""


#: The longest time of one run, and the table of the device's times.
LatencyLimit = tuple[Quantity, str | Path | HasTable]


def budgets_of(
    *,
    macs: Quantity | None = None,
    params: Quantity | None = None,
    size: Quantity | None = None,
    memory: Quantity | None = None,
    latency: LatencyLimit | None = None,
    min_fitness: float | None = None,
    precision: FilePrecision = "fp32",
    batch: int = 1,
) -> Budgets:
    """Budgets that limits stand for, as ``search-subnet`` reads them.

    Raises:
        BudgetError: a limit cannot be read, none is given, or a latency comes without its table.
    """
    limit, table = _latency(latency)
    budgets = Budgets(
        flops_budget=_text(macs),
        params_budget=_text(params),
        size_budget=_text(size),
        memory_budget=_text(memory),
        latency_budget=limit,
        latency_table=table,
        min_fitness=min_fitness,
        precision=precision,
        batch=batch,
    )
    if all(value is None for value in (macs, params, size, memory, latency, min_fitness)):
        raise BudgetError(
            'give a limit, e.g. macs="60M", params="2M", latency=("5ms", "table.json") or min_fitness=2000'
        )
    check_budgets(budgets)
    return budgets


def _text(quantity: Quantity | None) -> str | None:
    return None if quantity is None else str(quantity)


def _latency(given: Any) -> tuple[str | None, str | None]:
    if given is None:
        return None, None
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise BudgetError(f'latency is {given!r}; give a limit and a table, e.g. latency=("5ms", "table.json")')
    limit, table = given
    # A bare number is of milliseconds.
    words = limit if isinstance(limit, str) else f"{limit:g}ms"
    return words, str(table.path if hasattr(table, "path") else table)
