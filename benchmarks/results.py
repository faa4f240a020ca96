"""The table of what a benchmark found."""

from importlib import metadata

from rich.table import Table

from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.terminal.console import stderr


class Results(Table):
    """A table of measurements and their bars; shows every row on standard error as it is measured."""

    def __init__(self, *packages: str) -> None:
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
        super().__init__("what", "measured", "bar", title=f"{machine()}, {versions}")

    def add(self, what: str, measured: str, bar: str) -> None:
        """Add a row."""
        self.add_row(what, measured, bar)
        stderr.print(f"{what}: {measured}")
