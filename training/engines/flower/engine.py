"""Flower engine: trains clients that are processes on other machines, each with its own images, behind a SuperLink."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.formats.json_text import shown
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.flower import FlowerConfig, WireDtype
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.exchange import ClientReply, ClientRequest, Exchange, ReplyFailure
from fedpareto.training.engines.flower.packing import pack
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.flower.roster import Roster
from fedpareto.training.engines.flower.wire import MessageKind, Request, WireError
from fedpareto.training.engines.protocol import EngineError, Stopped, never
from fedpareto.training.evaluation.moments import impossible, moments_of
from fedpareto.training.local_objective import Logits, logits_from_json
from fedpareto.training.messages import (
    CalibrationTask,
    Correct,
    EvaluationTask,
    Failure,
    FailureKind,
    Statistics,
    Task,
    Update,
)
from fedpareto.training.traffic import NO_TRAFFIC

#: Clients compute their loss in fp32; sums of larger ones are not finite.
_LARGEST_LOSS = torch.finfo(torch.float32).max

#: A loss of zero that was computed in a low precision.
_ROUNDING = 1e-3

AnyTask = TypeVar("AnyTask", Task, CalibrationTask, EvaluationTask)
AnyAnswer = TypeVar("AnyAnswer", ClientReply, ReplyFailure)


class Unusable(Exception):  # noqa: N818 - an answer that is counted, not an error of the program
    """Error of an answer that cannot be used; ``kind`` is the kind of failure that it is counted as."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class FlowerEngine:
    """Engine over Flower; yields answers in the order of the tasks, whatever order they come in.

    Args:
        space: the search space.
        config: deadlines, and the type of tensors on the wire.
        exchange: carries questions and answers.
        roster: the clients that are connected.
        request: the header of every message, without its kind and jobs.
        enough: clients a round needs to begin at all.
        should_stop: function that returns True if the user does not want to wait any more.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: FlowerConfig,
        exchange: Exchange,
        roster: Roster,
        request: Request,
        enough: int,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self._space, self._config, self._request = space, config, request
        self._exchange, self._roster, self._enough = exchange, roster, enough
        self._should_stop = should_stop

    def available(self) -> Sequence[int]:
        """Return the clients that are connected, in order; waits while there are too few.

        Raises:
            EngineError: there are still too few after ``patience`` seconds.
            Stopped: the user does not want to wait any more.
        """
        return sorted(wait_for(self._roster, self._enough, self._config, should_stop=self._should_stop))

    def examples(self, client: int) -> int:
        """Return the number of a client's training images, as it said when it was first seen."""
        return self._roster.described[client].examples

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one answer for every task, in their order."""
        yield from self._asked("train", ([task] for task in tasks), _training_job, self._update)

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield one answer for every task; tasks of one client in a row go as one message."""
        yield from self._asked("calibrate", _by_client(tasks), _calibration_job, self._statistics)

    def evaluate(self, tasks: Iterable[EvaluationTask]) -> Iterator[Correct | Failure]:
        """Yield one answer for every task; tasks of one client in a row go as one message."""
        yield from self._asked("evaluate", _by_client(tasks), _evaluation_job, self._correct)

    def _asked(
        self,
        kind: MessageKind,
        groups: Iterable[Sequence[AnyTask]],
        job_of: Callable[[AnyTask], Mapping[str, Any]],
        read: Callable[[AnyTask, Mapping[str, Any], Tensors, ClientReply], Any],
    ) -> Iterator[Any]:
        """Send each group of tasks as one message; yield ``read``'s reading of every task's result, or a failure."""
        present = self._present()
        asked: list[Sequence[AnyTask]] = []

        def questions() -> Iterator[ClientRequest]:
            for group in groups:
                asked.append(group)
                request = dataclasses.replace(
                    self._request,
                    kind=kind,
                    jobs=[{**job_of(task), "architecture": task.architecture.to_json()} for task in group],
                )
                tensors = pack(self._space, [(task.architecture, task.tensors) for task in group])
                values = sum(tensor.numel() for task in group for tensor in task.tensors.values())
                most = wire.most_answer_bytes(kind, self._request.wire_dtype, values)
                yield ClientRequest(present.get(group[0].client), request, tensors, most)

        for index, answer in enumerate(self._exchange.answers(questions(), self._config.deadline)):
            group = asked[index]
            if isinstance(answer, ReplyFailure):
                if answer.kind in ("timeout", "lost", "offline"):
                    self._roster.suspect(group[0].client)
                for task, share in zip(group, _shares(answer, len(group)), strict=True):
                    yield Failure(task, share.kind, share.reason, share.traffic)
            else:
                yield from self._results(kind, group, answer, read)

    def _results(
        self,
        kind: MessageKind,
        group: Sequence[AnyTask],
        answer: ClientReply,
        read: Callable[[AnyTask, Mapping[str, Any], Tensors, ClientReply], Any],
    ) -> Iterator[Any]:
        unreadable: WireError | Unusable | None = None
        jobs: Sequence[Mapping[str, Any]] = [{}] * len(group)
        parts: Sequence[Tensors] = [{}] * len(group)
        try:
            _check_sender(answer, group[0].client)
            jobs = answer.jobs
            if len(jobs) != len(group):
                raise WireError(f"{len(jobs)} results for {counted(len(group), 'job')}")
            blobs = answer.blob.stat().st_size
            expected = [name for task in group for name in self._names(kind, task)] if blobs else []
            parts = wire.separated(wire.read_blob(answer.blob, expected) if blobs else {}, len(group))
        except (WireError, Unusable) as error:
            jobs, unreadable = [{}] * len(group), error
        for task, job, tensors, share in zip(group, jobs, parts, _shares(answer, len(group)), strict=True):
            try:
                if unreadable is not None:
                    raise unreadable
                _check_echo(task.architecture, job)
                yield read(task, job, tensors, share)
            except (WireError, Unusable) as error:
                failure = error.kind if isinstance(error, Unusable) else "malformed"
                yield Failure(task, failure, str(error), share.traffic)

    def _names(self, kind: MessageKind, task: AnyTask) -> Iterable[str]:
        """Return the names of the tensors of an answer to a task."""
        if kind == "train":
            return task.tensors.keys()
        return statistics_shapes(self._space, task.architecture) if kind == "calibrate" else ()

    def _update(self, task: Task, job: Mapping[str, Any], tensors: Tensors, answer: ClientReply) -> Update:
        if wire.integer(job, "round", 0, 1 << 31) != task.round:
            raise WireError("an answer to another round")
        said, examples = self._roster.described[task.client].examples, job.get("examples")
        if examples != said or type(examples) is not int:
            raise Unusable("examples", f"examples is {shown(examples)}, and the client has described {said}")
        loss = math.nan if job.get("loss") is None else wire.number(job, "loss")
        if abs(loss) > _LARGEST_LOSS:
            raise Unusable("non-finite", f"its training loss is {loss:g}")
        if loss < -_ROUNDING:
            raise Unusable("malformed", f"its training loss is {loss:g}; no loss is negative")
        _check_dtypes(task, tensors, wire.TORCH_DTYPES[self._request.wire_dtype])
        # No client computes more than its network and two smaller ones in every step.
        steps = task.epochs * examples if task.steps is None else min(task.epochs, task.steps) * examples
        compute = wire.integer(job, "compute", 0, 3 * steps * macs_of(self._space, task.architecture))
        seconds = min(max(0.0, wire.number(job, "seconds")), answer.seconds)
        return Update(
            task=task,
            tensors=restored(task.tensors, tensors, self._request.wire_dtype),
            examples=examples,
            loss=loss,
            started=answer.arrived - seconds,
            sgd_seconds=seconds,
            compute=compute,
            logits=_logits(job),
            traffic=answer.traffic,
        )

    def _statistics(
        self, task: CalibrationTask, job: Mapping[str, Any], sums: Tensors, answer: ClientReply
    ) -> Statistics:
        batches = wire.integer(job, "batches", 0, task.batches)
        # Each batch is as large as was asked for, or holds all images of a client that has fewer.
        images = wire.integer(job, "images", 0, batches * task.batch_size)
        size = min(task.batch_size, self._roster.described[task.client].examples)
        if images != batches * size:
            raise WireError(
                f"{counted(batches, 'batch')} of {counted(size, 'image')} do not have {counted(images, 'image')}"
            )
        expected = statistics_shapes(self._space, task.architecture) if batches else {}
        if {name: tuple(tensor.shape) for name, tensor in sums.items()} != expected:
            raise Unusable("shape", "its statistics are those of another network")
        if any(tensor.dtype != torch.float64 for tensor in sums.values()):
            raise Unusable("dtype", "its statistics are not sums in float64")
        # The file is gone when the next answer is read.
        kept = {name: tensor.clone() for name, tensor in sums.items()}
        statistics = Statistics(kept, batches, images, answer.traffic)
        problem = impossible(statistics)
        if problem is not None:
            raise Unusable("non-finite", problem)
        return statistics

    def _correct(self, task: EvaluationTask, job: Mapping[str, Any], tensors: Tensors, answer: ClientReply) -> Correct:
        del tensors
        images = wire.integer(job, "images", 0, self._roster.described[task.client].validation)
        correct = wire.integer(job, "correct", 0, images)
        return Correct(task, correct, images, answer.traffic)

    def _present(self) -> Mapping[int, str]:
        try:
            return self._roster.refresh()
        except LineLost:
            # Nobody can be reached: every task fails as offline, and the next round waits for the SuperLink.
            self._roster.forget_questions()
            return {}


def wait_for(
    roster: Roster,
    enough: int,
    config: FlowerConfig,
    report: Callable[[int], None] = lambda there: None,
    should_stop: Callable[[], bool] = never,
) -> Mapping[int, str]:
    """Wait for ``enough`` clients and return the nodes of all that are connected; ``report`` is told their number.

    Raises:
        EngineError: there are too few after ``patience`` seconds, or no SuperLink.
        Stopped: the user does not want to wait any more.
    """
    end = time.monotonic() + config.patience
    while True:
        try:
            present, lost = roster.refresh(), ""
        except LineLost as error:
            roster.forget_questions()
            present, lost = {}, str(error)
        report(len(present))
        if len(present) >= enough:
            return present
        if should_stop():
            raise Stopped
        if time.monotonic() > end:
            break
        roster.wait()
    if lost:
        raise EngineError(f"the SuperLink at {config.address} could not be reached for {config.patience:g} s: {lost}")
    raise EngineError(
        f"only {len(present)} of at least {counted(enough, 'client')} came to {config.address} in {config.patience:g} "
        f"s; start more SuperNodes, or lower {option('flower.min-clients')} or {option('flower.quorum')}"
    )


def restored(sent: Mapping[str, Tensor], received: Tensors, dtype: WireDtype) -> Tensors:
    """Return the trained tensors: as received, or in bf16 the tensors that were sent plus their change.

    Tensors that cannot be added are left as they are, for ``check_update`` to refuse.
    """
    if dtype == "fp32":
        return received
    expected = wire.TORCH_DTYPES[dtype]
    return {
        name: sent[name] + tensor.to(sent[name].device, torch.float32)
        if name in sent and tensor.shape == sent[name].shape and tensor.dtype == expected
        else tensor
        for name, tensor in received.items()
    }


def statistics_shapes(space: SearchSpace, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the sums of a subnet's moments, by name; empty without BatchNorm."""
    if space.norm != "batch":
        return {}
    norms = {name: shape for name, shape in tensor_shapes(space, architecture).items() if name.endswith("norm.weight")}
    return {moment: shape for name, shape in norms.items() for moment in moments_of(name.removesuffix(".weight"))}


def _logits(job: Mapping[str, Any]) -> Logits | None:
    """Return the logits of a result as they are, for ``check_update`` to judge.

    Raises:
        WireError: the values are no logits.
    """
    value = job.get("logits")
    try:
        return None if value is None else logits_from_json(value)
    except (TypeError, OverflowError) as error:
        raise WireError(f"logits that cannot be read: {error}") from error


def _check_sender(answer: ClientReply, client: int) -> None:
    """Refuse an answer of another protocol, or one that says it is another client's.

    Raises:
        Unusable: it speaks another protocol.
        WireError: it is another client's.
    """
    protocol, said = answer.fields.get("protocol"), answer.fields.get("client")
    if protocol != wire.PROTOCOL or type(protocol) is not int:
        raise Unusable("version", f"its protocol is {shown(protocol)}; the server speaks {wire.PROTOCOL}")
    if said != client or type(said) is not int:
        raise WireError(f"an answer of client {shown(said)}, where client {client} was asked")


def _check_dtypes(task: Task, tensors: Tensors, expected: torch.dtype) -> None:
    """Refuse tensors of another type than the wire's: what is a change in bf16 would count as weights in fp32.

    Raises:
        Unusable: naming the first such tensor of those that were asked for.
    """
    for name in task.tensors:
        if name in tensors and tensors[name].dtype != expected:
            raise Unusable("dtype", f"{name} came as {tensors[name].dtype} instead of {expected}")


def _by_client(tasks: Iterable[AnyTask]) -> Iterator[Sequence[AnyTask]]:
    for _, group in itertools.groupby(tasks, key=lambda task: task.client):
        yield list(group)


def _shares(answer: AnyAnswer, tasks: int) -> list[AnyAnswer]:
    """Return one answer for each of a message's ``tasks``; the bytes of the message count once."""
    counted = dataclasses.replace(answer, traffic=NO_TRAFFIC)
    return [counted if index else answer for index in range(tasks)]


def _training_job(task: Task) -> Mapping[str, Any]:
    fields = {"round": task.round, "epochs": task.epochs, "learning_rate": task.learning_rate, "seed": task.seed}
    return {**fields, "work": task.objective.to_json(), "steps": task.steps}


def _calibration_job(task: CalibrationTask) -> Mapping[str, Any]:
    return {"batches": task.batches, "batch_size": task.batch_size, "seed": task.seed}


def _evaluation_job(task: EvaluationTask) -> Mapping[str, Any]:
    return {"batch_size": task.batch_size}


def _check_echo(architecture: Architecture, job: Mapping[str, Any]) -> None:
    if job.get("architecture") != architecture.to_json():
        raise WireError("an answer for another architecture")
