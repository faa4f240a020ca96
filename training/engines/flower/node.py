"""Work of a client's node on a message: it describes its images, trains, calibrates or evaluates. No Flower here.

A node reads only its own images. A job that it refuses is answered in words, by a header with ``refused``; the server
counts that as the client's failure.
"""

import faulthandler
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor

from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.networks.weights import Tensors, network_with
from fedpareto.supernet.space_file import space_from_mapping
from fedpareto.training.clients.trainer import LocalTrainer, recipe_of
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.data.run_images import preparation_of
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.own_images import OwnImages, own_images, read_node_config
from fedpareto.training.engines.flower.packing import unpack
from fedpareto.training.engines.flower.wire import PROTOCOL, Request, WireError
from fedpareto.training.evaluation.calibration import client_statistics
from fedpareto.training.evaluation.evaluator import count_correct
from fedpareto.training.execution.device import resolve_device
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import apply_to_torch, check_possible, default_profile
from fedpareto.training.local_objective import objective_from_json
from fedpareto.training.messages import CalibrationTask, Task

MessageFields = Mapping[str, Any]

#: Seconds after the deadline until a client that does not even notice it is ended.
_GRACE = 15.0


class Refusal(Exception):  # noqa: N818 - an answer
    """Refusal of a job by the node; ``kind`` is the kind of failure that the server counts."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def answer(header: bytes, blob: bytes, node_config: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the header and the blob of the answer to a message."""
    try:
        request = _request(wire.decode(header))
        with _deadline(request.deadline):
            fields, tensors = _Node(request, node_config).done(blob)
    except Refusal as refusal:
        fields, tensors = {"refused": str(refusal), "kind": refusal.kind}, {}
    except (UserError, WireError) as error:
        fields, tensors = {"refused": str(error), "kind": "refused"}, {}
    except OutOfMemoryError as error:
        fields, tensors = {"refused": str(error), "kind": "memory"}, {}
    if "refused" in fields:
        stderr.print(f"refused: {fields['refused']}")
    return wire.encode({**fields, "protocol": PROTOCOL}), wire.make_blob(tensors) if tensors else b""


def _request(fields: dict[str, Any]) -> Request:
    asked, own = (fields.get("protocol"), fields.get("package")), (PROTOCOL, Request.package)
    if asked != own:
        raise Refusal(
            "version",
            f"the server speaks protocol {asked[0]} of fedpareto {asked[1]}, this node protocol {own[0]} of fedpareto "
            f"{own[1]}; install the same version on both",
        )
    try:
        return Request(**fields)
    except TypeError as error:
        raise WireError(f"a request with unknown or missing fields ({error})") from error


class _Node:
    """Work of one message on the node's images."""

    def __init__(self, request: Request, node_config: Mapping[str, Any]) -> None:
        self._request = request
        self._config = from_mapping(RunConfig, request.config, "the server's configuration")
        self._space = space_from_mapping(dict(request.space), "the server's search space")
        self._node = read_node_config(node_config)
        self._device = resolve_device(self._node.device)

    def done(self, blob: bytes) -> tuple[dict[str, Any], Tensors]:
        """Do the work and return the answer's fields and tensors."""
        images = own_images(self._node, self._config, preparation_of(self._config, self._space))
        if self._request.kind == "describe":
            return self._described(images), {}
        images = OwnImages(self._relabelled(images.training), self._relabelled(images.validation))
        architectures = [self._architecture(job) for job in self._request.jobs]
        parts = unpack(self._space, architectures, wire.parse_blob(blob))
        work = {"train": self._trained, "calibrate": self._calibrated, "evaluate": self._evaluated}[self._request.kind]
        results = list(work(images, list(zip(self._request.jobs, parts, strict=True))))
        # Every result names the architecture it is for.
        done = [
            {**job, "architecture": asked["architecture"]}
            for asked, (job, _) in zip(self._request.jobs, results, strict=True)
        ]
        fields = {"client": self._node.client, "jobs": done}
        return fields, wire.joined([tensors for _, tensors in results])

    def _described(self, images: OwnImages) -> dict[str, Any]:
        own, least = images.training, self._config.partition.min_images
        if len(own) < least:
            raise UserError(f"client {self._node.client} has {counted(len(own), 'image')}; it needs at least {least}")
        described = {
            "client": self._node.client,
            "examples": len(own),
            "validation": len(images.validation),
            "classes": list(own.classes),
        }
        # A private run normalises by what it is told, and has no use for an exact statistic.
        return described if self._request.normalisation else {**described, "pixels": own.pixel_counts().tolist()}

    def _trained(
        self, images: OwnImages, jobs: list[tuple[MessageFields, Tensors]]
    ) -> Iterator[tuple[MessageFields, Tensors]]:
        check_possible(self._device, self._config.precision, self._config.execution)
        profile = default_profile(self._config.precision, self._config.execution)
        apply_to_torch(profile)
        torch.set_num_threads(profile.threads)
        recipe = recipe_of(self._config, self._space, self._normalisation)
        trainer = LocalTrainer(recipe, profile, self._device)
        own = images.training.on(self._device)
        for fields, received in jobs:
            architecture, sent = self._architecture(fields), _as_fp32(received)
            task = Task(
                round=wire.integer(fields, "round", 1, 1 << 31),
                client=self._node.client,
                architecture=architecture,
                tensors=sent,
                epochs=wire.integer(fields, "epochs", 1, 1 << 20),
                learning_rate=wire.number(fields, "learning_rate"),
                seed=wire.integer(fields, "seed", 0, 1 << 63),
                objective=objective_from_json(fields.get("work")),
                steps=None if fields.get("steps") is None else wire.integer(fields, "steps", 1, 1 << 31),
            )
            update = trainer.train(task, own)
            done = {
                "round": task.round,
                "examples": update.examples,
                "loss": _finite(update.loss),
                "seconds": update.sgd_seconds,
                "compute": update.compute,
                "logits": update.logits,
            }
            yield done, self._to_send(update.tensors, sent)

    def _to_send(self, trained: Mapping[str, Tensor], sent: Tensors) -> Tensors:
        """Return the tensors of the answer: the weights, or in bf16 their change, which rounded weights would lose."""
        dtype = wire.TORCH_DTYPES[self._request.wire_dtype]
        if dtype == torch.float32:
            # The next job overwrites the trainer's memory.
            return {name: tensor.cpu().clone() for name, tensor in trained.items()}
        return {name: (tensor.cpu() - sent[name]).to(dtype) for name, tensor in trained.items()}

    def _calibrated(
        self, images: OwnImages, jobs: list[tuple[MessageFields, Tensors]]
    ) -> Iterator[tuple[MessageFields, Tensors]]:
        for fields, received in jobs:
            task = CalibrationTask(
                client=self._node.client,
                architecture=self._architecture(fields),
                tensors=_as_fp32(received),
                batches=wire.integer(fields, "batches", 1, 1 << 31),
                batch_size=wire.integer(fields, "batch_size", 1, 1 << 31),
                seed=wire.integer(fields, "seed", 0, 1 << 63),
            )
            statistics = client_statistics(self._space, task, images.training, self._normalisation)
            yield {"batches": statistics.batches, "images": statistics.images}, dict(statistics.sums)

    def _evaluated(
        self, images: OwnImages, jobs: list[tuple[MessageFields, Tensors]]
    ) -> Iterator[tuple[MessageFields, Tensors]]:
        for fields, received in jobs:
            architecture = self._architecture(fields)
            network = network_with(self._space, architecture, _as_fp32(received), running_statistics=True).eval()
            size = wire.integer(fields, "batch_size", 1, 1 << 31)
            held_out = images.validation
            correct = count_correct(network, held_out, size, architecture.resolution, self._normalisation)
            yield {"correct": correct, "images": len(held_out)}, {}

    @property
    def _normalisation(self) -> Normalisation:
        mean, std = (tuple(map(float, self._request.normalisation[name])) for name in ("mean", "std"))
        return Normalisation(mean, std)

    def _architecture(self, fields: MessageFields) -> Architecture:
        return architecture_from_json(fields.get("architecture"))

    def _relabelled(self, own: ImageSet) -> ImageSet:
        """Return the client's images with the labels of the run, which may have classes that the client lacks."""
        known = {name: label for label, name in enumerate(self._request.classes)}
        for name in own.classes:
            if name not in known:
                raise UserError(
                    f"client {self._node.client} has images of {name!r}; the run's classes, settled when it started, "
                    f"are {', '.join(known)}"
                )
        labels = torch.tensor([known[name] for name in own.classes])[own.labels]
        return ImageSet(own.images, labels, tuple(known))


def _as_fp32(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _finite(loss: float) -> float | None:
    """Return a loss as a JSON value: None if it is not finite."""
    return loss if abs(loss) < float("inf") else None


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the work at the deadline: in words if Python still runs, else with the process.

    A client that hangs would block its node for ever.
    """

    def late(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise Refusal("timeout", f"the client did not finish within {seconds:g} s")

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + _GRACE, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
