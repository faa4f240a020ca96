"""The CPU's own kernels beside torch: values, gradients, threads, widths of vectors, and whole clients."""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO, micro_recipe, micro_space, random_images
from helpers.runs.simulation import largest, micro_task, random_tensors, train_client
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.supernet.networks.network import BlockModule, build_network
from fedpareto.training.execution.profile import Profile

if importlib.util.find_spec("numba") is None:
    pytest.skip("the extra fast is not installed", allow_module_level=True)

from fedpareto.training.kernels import chain, depthwise, normalisation, pointwise
from fedpareto.training.kernels.activations import ActivationCode
from fedpareto.training.kernels.available import unavailable
from fedpareto.training.kernels.chain import Chain, ChainLayer, LinkKind
from fedpareto.training.kernels.layers import use_kernels
from fedpareto.training.kernels.widths import WIDTHS, Widths

#: They are compiled first, which takes half a minute.
pytestmark = pytest.mark.slow

_NUMBA = Profile(kernels="numba")
_EPSILON = 1e-5
_ACTIVATIONS = {"none": lambda z: z, "relu": F.relu, "hswish": F.hardswish}
#: Where slopes jump: a z that is rounded to the other side has another gradient.
_KINKS = {"none": (), "relu": (0.0,), "hswish": (-3.0, 3.0)}


@dataclasses.dataclass(frozen=True)
class Case:
    """Layers, and the tensors they are computed on."""

    layers: tuple[ChainLayer, ...]
    tensors: tuple[Tensor, ...]


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    """Draw chains as blocks have them, of shapes with odd sides and with channels that fill no vector."""
    kinds: tuple[LinkKind, ...] = draw(
        st.sampled_from(
            [
                ("pointwise", "depthwise", "pointwise"),
                ("depthwise", "pointwise"),
                ("pointwise",),
                ("depthwise",),
                ("dense",),
            ]
        )
    )
    channels = draw(st.sampled_from([8, 16, 24, 40, 48, 56, 72]))
    shape = (draw(st.integers(2, 4)), channels, draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    layers: list[ChainLayer] = []
    tensors = [torch.randn(shape, generator=generator) * 2 + 1]
    for kind in kinds:
        kernel = 1 if kind == "pointwise" else draw(st.sampled_from([3, 5, 7]))
        stride = 1 if kind == "pointwise" else draw(st.sampled_from([1, 2]))
        activation: ActivationCode = draw(st.sampled_from(["none", "relu", "hswish"]))
        layers.append(ChainLayer(kind, kernel, stride, _EPSILON, activation))
        after = channels if kind == "depthwise" else draw(st.sampled_from([8, 16, 24, 64, 80]))
        weight = (after, 1 if kind == "depthwise" else channels, kernel, kernel)
        tensors += [torch.randn(size, generator=generator) for size in (weight, (after,), (after,))]
        channels = after
    return Case(tuple(layers), tuple(tensors))


def _by_torch(layers: Sequence[ChainLayer], x: Tensor, *parameters: Tensor) -> tuple[Tensor, float]:
    """Return the layers' result, and how near a slope's jump any value came."""
    nearest = float("inf")
    for number, layer in enumerate(layers):
        weight, scale, bias = parameters[3 * number : 3 * number + 3]
        groups = len(weight) if layer.kind == "depthwise" else 1
        y = F.conv2d(x, weight, None, layer.stride, layer.kernel // 2, groups=groups)
        z = F.batch_norm(y, None, None, scale, bias, training=True, eps=_EPSILON)
        for kink in _KINKS[layer.activation]:
            nearest = min(nearest, float((z.detach() - kink).abs().min()))
        x = _ACTIVATIONS[layer.activation](z)
    return x, nearest


def _results(run: Callable[..., Tensor], tensors: Sequence[Tensor], *, last: bool = True) -> list[Tensor]:
    """Return what a function of tensors yields, and its gradients for a fixed random gradient of that."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = run(*leaves)
    drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    gradient = drawn.contiguous(memory_format=torch.channels_last) if last else drawn
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def _errors(found: Sequence[Tensor], true: Sequence[Tensor]) -> list[float]:
    """The error of each tensor relative to its own norm; of one that is truly zero, to the largest norm.

    A gradient of what a norm takes off again is zero, and in single precision nothing but rounding.
    """
    norms = [float(other.norm()) for other in true]
    largest = max(norms)
    return [
        float((one.double() - other).norm()) / (norm if norm > 1e-6 * largest else largest)
        for one, other, norm in zip(found, true, norms, strict=True)
    ]


@given(_cases(), st.booleans())
@runs(60, shrink=False)
def test_values_and_gradients_are_those_of_torch(case: Case, last: bool) -> None:
    tensors, doubles = case.tensors, [tensor.double() for tensor in case.tensors]
    assume(_by_torch(case.layers, *doubles)[1] > 1e-5)
    # A norm of few values may be no more than rounding.
    assume(case.tensors[0].shape[0] * case.tensors[0].shape[2] * case.tensors[0].shape[3] > 64)
    true = _results(lambda *given: _by_torch(case.layers, *given)[0], doubles, last=last)
    theirs = _errors(_results(lambda *given: _by_torch(case.layers, *given)[0], tensors, last=last), true)
    ours = _errors(_results(lambda x, *given: Chain.apply(x, case.layers, *given), tensors, last=last), true)
    for one, other in zip(ours, theirs, strict=True):
        assert one < 1e-5 + 2 * other


def _fixed_case(kernel: int = 5, stride: int = 1) -> Case:
    generator = torch.Generator().manual_seed(0)
    layers = (
        ChainLayer("pointwise", 1, 1, _EPSILON, "hswish"),
        ChainLayer("depthwise", kernel, stride, _EPSILON, "relu"),
        ChainLayer("pointwise", 1, 1, _EPSILON, "none"),
    )
    shapes = [
        (6, 24, 13, 13),
        (56, 24, 1, 1),
        (56,),
        (56,),
        (56, 1, kernel, kernel),
        (56,),
        (56,),
        (16, 56, 1, 1),
        (16,),
        (16,),
    ]
    return Case(layers, tuple(torch.randn(shape, generator=generator) for shape in shapes))


def _ours(case: Case) -> list[Tensor]:
    return _results(lambda x, *given: Chain.apply(x, case.layers, *given), case.tensors)


@pytest.fixture
def with_threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_number_of_threads_gives_the_same_bytes_every_time(threads: int, with_threads: Callable[[int], None]) -> None:
    case = _fixed_case()
    one = _ours(case)
    with_threads(threads)
    first, second = _ours(case), _ours(case)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert max(_errors(first, [tensor.double() for tensor in one])) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_the_width_of_vectors_changes_no_bit(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other widths compile for half a minute."""
    case, widths = _fixed_case(7, stride), (Widths(8, 16), Widths(16, 32))
    assert WIDTHS in widths
    found = []
    for width in widths:
        monkeypatch.setattr(chain, "WIDTHS", width)
        found.append(_ours(case))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_large_mean_costs_no_digits() -> None:
    case = _fixed_case()
    layers = case.layers[:1]
    shifted = (torch.randn(6, 24, 13, 13) + 1000, *case.tensors[1:4])
    true = _by_torch(layers, *(tensor.double() for tensor in shifted))[0]
    ours = Chain.apply(shifted[0], layers, *shifted[1:])
    theirs = _by_torch(layers, *shifted)[0]
    assert _errors([ours], [true])[0] < 2 * _errors([theirs], [true])[0] + 1e-5


@pytest.mark.parametrize("activation", ["none", "relu", "hswish"])
def test_what_is_not_a_number_shows(activation: ActivationCode) -> None:
    case = _fixed_case()
    layers = tuple(dataclasses.replace(layer, activation=activation) for layer in case.layers)
    x = case.tensors[0].clone()
    x[0, 0, 0, 0] = float("nan")
    out = Chain.apply(x, layers, *case.tensors[1:])
    assert out.isnan().all()


def test_gradients_are_taken_once() -> None:
    case = _fixed_case()
    leaves = [tensor.clone().requires_grad_() for tensor in case.tensors]
    out = Chain.apply(leaves[0], case.layers, *leaves[1:])
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"^gradients of fused layers can be taken once"):
        out.sum().backward()


def test_parameters_may_be_slices_of_larger_ones() -> None:
    case = _fixed_case()
    x, *parameters = case.tensors
    wider = [torch.zeros(tuple(2 * side for side in tensor.shape)) for tensor in parameters]
    sliced = []
    for tensor, wide in zip(parameters, wider, strict=True):
        view = wide[tuple(slice(side // 2, side // 2 + side) for side in tensor.shape)]
        view.copy_(tensor)
        sliced.append(view)
    assert not sliced[0].is_contiguous()
    assert torch.equal(Chain.apply(x, case.layers, *sliced), Chain.apply(x, case.layers, *parameters))


# Networks and clients.


def _gradients(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    labels = torch.arange(len(images)) % 2
    F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad.double() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize(
    "space",
    [MICRO, micro_space(norm="group"), micro_space(norm="none"), SMALL_RESNET],
    ids=["batch", "group", "none", "resnet"],
)
def test_networks_have_the_gradients_of_plain_ones(space: object) -> None:
    torch.manual_seed(3)
    plain = build_network(space, largest(space)).train()  # type: ignore[arg-type]
    fast = build_network(space, largest(space)).train()  # type: ignore[arg-type]
    fast.load_state_dict(plain.state_dict())
    use_kernels(fast)
    true = build_network(space, largest(space)).train()  # type: ignore[arg-type]
    true.load_state_dict(plain.state_dict())
    images = torch.randn(8, 3, 16, 16)
    expected = _gradients(true.double(), images.double())
    theirs, ours = _gradients(plain, images), _gradients(fast, images)
    scale = max(tensor.norm() for tensor in expected.values())
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        error, other = (ours[name] - tensor).norm(), (theirs[name] - tensor).norm()
        assert error < 3 * other + 1e-5 * scale


def test_the_kernels_are_used_for_all_that_they_can_compute() -> None:
    network = build_network(MICRO, largest()).train()
    use_kernels(network)
    seen: list[tuple[str, ...]] = []
    for block in network.modules():
        if isinstance(block, BlockModule):
            for _, name in block.steps:
                forward = vars(block.get_submodule(name)).get("forward")
                layers = getattr(forward, "args", ((), ()))[1:2]
                seen += [tuple(layer.kind for layer in layers[0])] if layers else []
    assert ("dense",) in seen
    assert ("pointwise", "depthwise", "pointwise") in seen
    assert ("pointwise", "depthwise") in seen


def test_nothing_is_left_to_be_compiled_once_the_kernels_are_known_to_be_available() -> None:
    assert unavailable() is None
    functions = (
        *(depthwise.forward, depthwise.backward, pointwise.forward, pointwise.backward),
        *(normalisation.moments, normalisation.activate, normalisation.sum_gradients, normalisation.differentiate),
        *(normalisation.finish_moments, normalisation.finish_gradients),
    )
    before = [list(function.signatures) for function in functions]
    assert all(before)
    for space in (MICRO, micro_space(norm="group"), SMALL_RESNET):
        network = build_network(space, largest(space)).train()
        use_kernels(network)
        _gradients(network, torch.randn(4, 3, 16, 16))
    assert [list(function.signatures) for function in functions] == before


def test_a_layer_in_another_precision_or_of_one_image_or_none_is_torchs() -> None:
    plain, fast = (build_network(MICRO, largest()).train() for _ in range(2))
    fast.load_state_dict(plain.state_dict())
    use_kernels(fast)
    for count in (0, 1):
        image = torch.randn(count, 3, 16, 16)
        assert torch.allclose(plain(image), fast(image), 1e-5, 1e-6)
    images = torch.randn(4, 3, 16, 16)
    assert torch.allclose(plain.double()(images.double()), fast.double()(images.double()), 1e-12, 1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(plain.float()(images), fast.float()(images), 0.05, 0.05)


@pytest.mark.parametrize(
    "space", [MICRO, micro_space(norm="group"), micro_space(norm="none")], ids=["batch", "group", "none"]
)
def test_a_client_trains_to_what_torch_trains_it_to(space: object) -> None:
    tensors = random_tensors(0, space)  # type: ignore[arg-type]
    task = micro_task(tensors=tensors, space=space, steps=1)  # type: ignore[arg-type]
    recipe = dataclasses.replace(micro_recipe(), space=space)  # type: ignore[arg-type]
    data = random_images(24)
    plain = {name: tensor.clone() for name, tensor in train_client(task, data, recipe).tensors.items()}
    fast = train_client(task, data, recipe, _NUMBA)
    again = {name: tensor.clone() for name, tensor in fast.tensors.items()}
    moved = max(float((plain[name] - task.tensors[name]).norm()) for name in plain)
    for name, tensor in plain.items():
        assert float((again[name] - tensor).norm()) < 1e-3 * moved
    second = train_client(task, data, recipe, _NUMBA)
    assert all(torch.equal(second.tensors[name], tensor) for name, tensor in again.items())
