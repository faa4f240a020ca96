"""``search-subnet``: the fittest architecture within limits, and with a run the trained subnet itself."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.export.settings import check_calibrated
from fedpareto.search.query.answering import Refused, SearchOutcome, answer_budgets, answer_given, answer_targets
from fedpareto.search.query.budgets import Budgets
from fedpareto.search.query.options import SearchOptions, check_options, export_settings
from fedpareto.search.query.subject import SearchTarget, find_subject
from fedpareto.search.query.suggestions import after_search, after_targets
from fedpareto.search.reports.plot import plot_search
from fedpareto.search.reports.targets_table import print_targets, refused_line
from fedpareto.search.reports.terminal import print_report
from fedpareto.supernet.architecture_file import save_architecture
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.signatures import read_keys
from fedpareto.supernet.common.terminal.console import next_step, run_command, say, stderr
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import shell

PROG = "search-subnet"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, or with 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(
        PROG, "Find the architecture of highest fitness within limits, without training.", SearchOptions
    )
    options = SearchOptions(**parser.instantiate(parser.parse(arguments)).as_dict())
    named, typed = check_options(options), [PROG, *arguments]
    _verify(options)
    subject = find_subject(options.space, options.run, options.classes, options.fitness)
    if subject.run is not None:
        _check_run(options, subject, subject.run, named)
    if options.targets is None:
        _search_one(options, subject, typed)
    else:
        _search_targets(options, subject, named, typed)


def _verify(options: SearchOptions) -> None:
    """Refuse keys that are none, and a run that is not signed as it must be, before anything of it is read."""
    trusted = read_keys(options.sign, options.verify).verify
    if trusted is not None:
        from fedpareto.training.runs.verification import verify_run  # noqa: PLC0415 - imports torch

        verify_run(Path(str(options.run)), options.checkpoint, trusted)


def _search_one(options: SearchOptions, subject: SearchTarget, typed: Sequence[str]) -> None:
    with progress_display("searching") as listener:
        if options.architecture is None:
            answered = answer_budgets(subject, options, options.seed, listener)
        else:
            answered = answer_given(subject, options, options.architecture)
        if options.plot is not None:
            plot_search(Path(options.plot), subject, answered, listener)
    report = _delivered(options, subject, {"": answered}, typed)[""]
    if options.report is not None:
        from fedpareto.search.reports.page.search_page import write_search_page  # noqa: PLC0415 - only a page pays for its imports

        write_search_page(Path(options.report), subject, answered, report, shell(list(typed)))
        report["page"] = options.report
    if options.json:
        say(json.dumps(report))
    else:
        print_report(report)
    next_step(after_search(options, subject, report))


def _search_targets(
    options: SearchOptions, subject: SearchTarget, named: Mapping[str, Budgets], typed: Sequence[str]
) -> None:
    started = time.perf_counter()
    with progress_display("searching") as listener:
        answers = answer_targets(subject, named, options.seed, listener)
    seconds = time.perf_counter() - started
    found = {name: answer for name, answer in answers.items() if isinstance(answer, SearchOutcome)}
    delivered = _delivered(options, subject, found, typed)
    reports = {
        name: {"refused": answer.reason} if isinstance(answer, Refused) else delivered[name]
        for name, answer in answers.items()
    }
    if options.json:
        say(json.dumps(reports))
    else:
        print_targets(subject.space, reports, seconds)
    refused = refused_line(reports)
    if refused is not None:
        raise UserError(refused)
    next_step(after_targets(options, subject))


def _delivered(
    options: SearchOptions, subject: SearchTarget, found: Mapping[str, SearchOutcome], typed: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Write what is asked for of every answer, each in a folder of its name; return the completed reports."""
    folder = options.output_folder
    outputs = {name: None if folder is None else folder / name for name in found}
    if subject.run is not None:
        return _of_run(options, subject, found, outputs, typed)
    reports = {}
    for name, answered in found.items():
        reports[name], output = dict(answered.report), outputs[name]
        if output is not None:
            save_architecture(output, answered.answer.entry.architecture)
            reports[name]["output"] = str(output)
    return reports


def _of_run(
    options: SearchOptions,
    subject: SearchTarget,
    found: Mapping[str, SearchOutcome],
    outputs: Mapping[str, Path | None],
    typed: Sequence[str],
) -> dict[str, dict[str, Any]]:
    from fedpareto.search.extraction.delivery import Delivery, write_subnet  # noqa: PLC0415 - imports torch
    from fedpareto.search.extraction.opened_run import Extraction, opened_run  # noqa: PLC0415
    from fedpareto.search.query.private_runs import asks_clients, extractable  # noqa: PLC0415
    from fedpareto.training.engines.flower.federation import opened_link  # noqa: PLC0415
    from fedpareto.training.runs.folder import read_run_config  # noqa: PLC0415

    folder = Path(str(subject.run))
    config = read_run_config(folder)
    exact = options.exact_statistics
    if not extractable(config, subject.space.norm, options.calibration, exact=exact):
        # Files were refused before anything was searched.
        stderr.print(
            "the subnet is not extracted: its calibration would take exact statistics of clients' images, which this "
            "private run withholds (--exact-statistics takes them, --calibration none does without)"
        )
        return {name: dict(answered.report) for name, answered in found.items()}
    extraction = Extraction(options.calibration, options.finetune_epochs, options.finetune_lr, exact)
    asks = config.engine != "flower" or asks_clients(config, exact=exact)
    key, reports = read_keys(options.sign, None).sign, {}
    with opened_link(config) if asks else contextlib.nullcontext() as link:
        with progress_display("reading the run"):
            root, which = options.data.root, options.checkpoint
            run = opened_run(folder, subject.space, which, link, test=options.test, root=root, exact=exact)
        # Reading the images had a bar of its own.
        with progress_display("extracting") as listener:
            for name, answered in found.items():
                export = export_settings(options, answered.budgets)
                delivery = Delivery(
                    extraction,
                    export,
                    check_latency=options.check_latency,
                    confusion=options.confusion,
                    key=key,
                    command=typed,
                )
                reports[name] = write_subnet(run, answered, delivery, outputs[name], listener)
    return reports


def _check_run(options: SearchOptions, subject: SearchTarget, run: Path, named: Mapping[str, Budgets]) -> None:
    """Refuse what a run's subnet cannot be given, before anything is searched."""
    from fedpareto.search.query.private_runs import check_private, export_of, extractable  # noqa: PLC0415 - imports torch
    from fedpareto.training.runs.folder import check_outside_runs, read_run_config  # noqa: PLC0415

    if options.output_folder is not None:
        check_outside_runs(options.output_folder)
    config = read_run_config(run)
    for budgets in named.values():
        export = export_settings(options, budgets)
        if export is not None:
            export_of(config, export)
        if export is not None and subject.space.norm == "batch":
            check_calibrated(options.calibration, export)
    if config.engine == "flower":
        _refuse_without_images(options)
    if options.confusion and config.privacy.noise:
        raise UserError(
            f"--confusion tells more of validation images than accuracy, and {run} is private, whose reports tell "
            "accuracy alone; leave it out"
        )
    norm, calibration, exact = subject.space.norm, options.calibration, options.exact_statistics
    if options.output is None and calibration == "auto" and not extractable(config, norm, calibration, exact=exact):
        # The answer alone takes nothing of clients' images.
        calibration = "none"
    check_private(run, config, norm, calibration, options.finetune_epochs, exact=exact)


def _refuse_without_images(options: SearchOptions) -> None:
    """Refuse what needs images on this machine, for a run whose images are with its clients."""
    asked = {
        "--test": options.test,
        "--confusion": options.confusion,
        "--data.root": options.data.root,
        "--export": options.export,
        "--calibration pooled": options.calibration == "pooled",
    }
    for option, given in asked.items():
        if given:
            raise UserError(
                f"{option} needs images on this machine, and those of this run are with its clients; leave it out"
            )
