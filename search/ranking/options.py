"""Options of ``validate-fitness``, and their checks."""

import dataclasses
from pathlib import Path
from typing import Literal

from fedpareto.search.query.subject import RunImages
from fedpareto.search.ranking.fitting.terms import FIELDS
from fedpareto.search.ranking.fitting.weights import FitOptions, Pairs
from fedpareto.search.ranking.measuring.rounds import LEAST_SUBNETS
from fedpareto.supernet.common.errors import UserError, unknown_name
from fedpareto.supernet.common.formats.typed_yaml import named
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.common.unused_options import refuse_unused

#: Fewest subnets a band.
_LEAST = 4


@dataclasses.dataclass
class RankingOptions:
    """Options of ``validate-fitness``.

    Attributes:
        run: folder of a trained run, whose subnets are measured on its validation images.
        data: the run's images.
        accuracies: JSON Lines file of architectures with accuracies that were measured before, instead of a run.
        space: preset name or YAML file of the space that the accuracies' architectures are of.
        classes: outputs of the classifier, with a space; its own when left out.
        fitness: YAML file of the fitness weights that are judged; those of the run or the space when left out.
        subnets: how many subnets of a run are measured.
        bands: narrow windows of MACs that they are drawn from, spread over the MACs of the run's cache.
        band_width: width of a band, relative to its middle; also of the bands that given accuracies are put into.
        flops_min: least MACs of a subnet, e.g. 20M; those of the smallest entry of the run's cache when left out.
        flops_max: most MACs of a subnet; those of the largest entry when left out.
        images: validation images a subnet is measured on; all when left out.
        checkpoint: of the run, the best by validation accuracy or the newest.
        fit: fit the fitness on a part of the networks, and judge it on the others.
        form: what is fitted, the weights of the analytic fitness, or a term for every choice of every block beside it.
        fit_subnets: how many more subnets of a run are measured, at most, for terms to be fitted to; those of the bands
            judge them.
        budgets: MACs within which the fitted fitness and that before are searched, comma-separated, the networks found
            being measured; the most MACs of every band when left out.
        test: also measure the networks found on the test images.
        held_out: share of each band that is not fitted on, where all networks are of the bands.
        fitted: fields of the fitness that a fit may change, comma-separated, such as block_penalty; all when left out.
        pairs: compare networks of one band when weights are fitted, or all with all.
        verify: PEM file of a public key that the run must be signed with.
        output: folder for accuracies, report, plot and fitted weights; RUN/validation, or named after the accuracies.
        seed: seed of draws, intervals and splits.
    """

    run: str | None = None
    data: RunImages = dataclasses.field(default_factory=RunImages)
    accuracies: str | None = None
    space: str | None = None
    classes: int | None = None
    fitness: str | None = None
    subnets: int = 64
    bands: int = 4
    band_width: float = 0.12
    flops_min: str | None = None
    flops_max: str | None = None
    images: int | None = None
    checkpoint: Literal["best", "newest"] = "best"
    fit: bool = False
    form: Literal["weights", "blocks"] = "weights"
    fit_subnets: int = 240
    budgets: str | None = None
    test: bool = False
    held_out: float = 0.5
    fitted: str | None = None
    pairs: Pairs = "band"
    verify: str | None = None
    output: str | None = None
    seed: int = 0

    @property
    def manner(self) -> FitOptions:
        """Options of the fit of weights.

        Raises:
            UserError: a field has no weights.
        """
        names = FIELDS if self.fitted is None else tuple(name.strip() for name in self.fitted.split(","))
        for name in names:
            if name not in FIELDS:
                raise UserError(f"{option('fitted')}: {unknown_name('field', name, FIELDS)}")
        return FitOptions(self.pairs, names)

    @property
    def learns(self) -> bool:
        """True if terms of choices are fitted, not weights."""
        return self.fit and self.form == "blocks"

    @property
    def searched(self) -> list[int] | None:
        """The budgets of MACs that are searched, ascending; None where they are the bands'.

        Raises:
            UserError: one is no number of MACs.
        """
        if self.budgets is None:
            return None
        with named(option("budgets")):
            return sorted({parse_quantity(text.strip()) for text in self.budgets.split(",")})

    @property
    def folder(self) -> Path:
        """Folder that everything is written to."""
        if self.output is not None:
            return Path(self.output)
        if self.run is not None:
            return Path(self.run) / "validation"
        accuracies = Path(str(self.accuracies))
        return accuracies.with_name(f"{accuracies.stem}-validation")


def check_options(options: RankingOptions) -> None:
    """Refuse options that do not go together, or are out of range.

    Raises:
        UserError: naming the option, its value and what is allowed.
    """
    if (options.run is None) == (options.accuracies is None):
        raise UserError(
            f"give either {option('run', 'FOLDER')}, or {option('accuracies', 'FILE')} with {option('space')} NAME"
        )
    if options.run is not None and (options.space is not None or options.classes is not None):
        raise UserError(f"{option('space')} and {option('classes')} go with {option('accuracies')}; a run has its own")
    options.data.check(options.run)
    if options.accuracies is not None:
        _check_accuracies(options)
    for name, least in (("bands", 1), ("seed", 0), ("images", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; it must be at least {least}")
    if options.subnets < _LEAST * options.bands:
        raise UserError(
            f"{option('subnets')} is {options.subnets}; at least {_LEAST} in each of {counted(options.bands, 'band')} "
            f"take {_LEAST * options.bands}"
        )
    if options.manner != FitOptions() and (not options.fit or options.learns):
        raise UserError(
            f"{option('fitted')} and {option('pairs')} go with {option('fit')}"
            + " of weights, not of blocks" * options.learns
        )
    for name in ("band_width", "held_out"):
        if not 0 < getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be above 0 and below 1")
    refuse_unused(options, _conditions(options))
    if options.learns and options.run is not None and options.fit_subnets < LEAST_SUBNETS:
        raise UserError(
            f"{option('fit-subnets')} is {options.fit_subnets}; it must be at least {LEAST_SUBNETS}, better 200"
        )
    # What cannot be read is refused here.
    _ = options.searched


def _conditions(options: RankingOptions) -> dict[str, tuple[bool, str]]:
    """Return, for each option that is not always read, whether it is read now, and by which other option."""
    of_run = (
        options.learns and options.run is not None,
        f"with {option('run')}, {option('fit')} and {option('form', 'blocks')}",
    )
    split = options.fit and not of_run[0]
    return {
        "form": (options.fit, f"with {option('fit')}"),
        "fit_subnets": of_run,
        "budgets": of_run,
        "test": of_run,
        "held_out": (split, f"with {option('fit')} of weights, or of given accuracies"),
    }


def _check_accuracies(options: RankingOptions) -> None:
    if options.space is None:
        raise UserError(f"{option('accuracies')} needs {option('space')} NAME, the space that its architectures are of")
    unused = RankingOptions()
    for name in ("subnets", "bands", "flops_min", "flops_max", "images", "checkpoint", "verify"):
        if getattr(options, name) != getattr(unused, name):
            raise UserError(
                f"{option(name.replace('_', '-'))} goes with {option('run')}; given accuracies are taken as they are"
            )


def macs_range(options: RankingOptions, least: int, most: int) -> tuple[int, int]:
    """Read the range of MACs, by default ``least`` to ``most``.

    Raises:
        UserError: they are no numbers, or the wrong way round.
    """
    low = least if options.flops_min is None else parse_quantity(options.flops_min)
    high = most if options.flops_max is None else parse_quantity(options.flops_max)
    if low >= high:
        raise UserError(
            f"{option('flops-min')} is {low:,} and {option('flops-max')} {high:,}; the most must exceed the least"
        )
    return low, high
