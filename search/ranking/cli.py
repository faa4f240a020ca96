"""The command ``validate-fitness``, which measures how well the fitness ranks networks and fits a better one."""

import dataclasses
from collections.abc import Sequence

from fedpareto.search.ranking.measuring.bands import Band
from fedpareto.search.ranking.options import RankingOptions
from fedpareto.search.ranking.validate import FITNESS, PLOT, REPORT, validate
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.formats.units import format_at_least
from fedpareto.supernet.common.terminal.console import next_step, run_command, say
from fedpareto.supernet.common.terminal.words import command

PROG = "validate-fitness"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    description = "Measure how well the fitness ranks networks of equal MACs by accuracy, and fit it."
    parser = options_parser(PROG, description, RankingOptions)
    options = RankingOptions(**parser.instantiate(parser.parse(arguments)).as_dict())
    found = validate(options)
    say(f"report: {options.folder / REPORT}")
    say(f"plot: {options.folder / PLOT}")
    if found.fitted is not None and found.fitted.ahead <= 0:
        say(f"{options.folder / FITNESS} ranks no better than the fitness before, which the next command goes on with")
    better = found.fitted is not None and found.fitted.ahead > 0
    next_step(_next(options, found.sample.bands, better=better))


def _next(options: RankingOptions, bands: Sequence[Band], *, better: bool) -> str:
    if options.fit:
        weights = options.folder / FITNESS if better else options.fitness
        if options.run is None:
            given = {"space": options.space, "classes": options.classes}
            return command("build-cache", **given, fitness=weights, output="cache.jsonl")
        budget, images = format_at_least(bands[-1].most), options.data.options
        return command("search-subnet", run=options.run, **images, fitness=weights, flops_budget=budget)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name != "data"}
    changed = {name: value for name, value in given.items() if value != getattr(RankingOptions(), name)}
    return command(PROG, **changed, **options.data.options, fit=True)
