"""One piece of a network on its own: what its forward and its backward pass allocate and release,
and in which order.

The piece stands between two edges that play its neighbours: they hand it its input and its output's
gradient and keep neither, so that the trace shows what the piece itself holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.models.activation_checkpointing import checkpoint_blocks
from nas.profiling.memory.kernels import CpuKernels, CudaKernels
from nas.profiling.memory.recorder import ACCUMULATED, RELEASED, Event, Recorder
from nas.profiling.memory.torch_internals import every_mask_full


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its content.

    Args:
        shape: its sizes.
        stride: its strides, in elements.
        dtype: name of its type, as in `torch`.
        trained: whether a gradient flows back through it.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str = "float32"
    trained: bool = True

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """Describe a tensor."""
        return cls(
            tuple(tensor.shape),
            tensor.stride(),
            str(tensor.dtype).removeprefix("torch."),
            tensor.requires_grad,
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TensorSpec:
        """Inverse of `vars`, also after a way through JSON."""
        return cls(**{name: _tuples(value) for name, value in fields.items()})

    def empty(self) -> Tensor:
        """Make such a tensor on the meta device."""
        return torch.empty_strided(
            self.shape, self.stride, dtype=getattr(torch, self.dtype), device="meta"
        )


@dataclass(frozen=True)
class SegmentTrace:
    """What a piece of a network does to memory.

    Slots 0 to `inputs` - 1 are its inputs, the next `len(outputs)` the gradients of its outputs;
    both come from outside. Where the backward pass releases such a slot, or an output, the piece
    has held it until then.

    Args:
        forward: events of the forward pass.
        autocast_end: events at the end of the whole network's forward pass, when autocast forgets
            cast weights.
        backward: events of the backward pass.
        inputs: how many.
        outputs: slot and form of each output.
        input_gradients: slot of the gradient of each input; None where there is none.
        parameters: bytes of each trained parameter.
        fixed: bytes of each frozen parameter and each buffer.
    """

    forward: tuple[Event, ...]
    autocast_end: tuple[Event, ...]
    backward: tuple[Event, ...]
    inputs: int
    outputs: tuple[tuple[int, TensorSpec], ...]
    input_gradients: tuple[int | None, ...]
    parameters: tuple[int, ...]
    fixed: tuple[int, ...]

    @property
    def consumed(self) -> set[int]:
        """Slots of the inputs that the forward pass lets go of itself."""
        return {slot for slot, size in self.forward if size == RELEASED and slot < self.inputs}

    def to_dict(self) -> dict[str, Any]:
        """Content that JSON takes; events are not copied."""
        return {**vars(self), "outputs": [(slot, vars(spec)) for slot, spec in self.outputs]}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SegmentTrace:
        """Inverse of `to_dict`, also after a way through JSON."""
        outputs = tuple((slot, TensorSpec.from_dict(spec)) for slot, spec in fields["outputs"])
        plain = {
            name: _tuples(value)
            for name, value in fields.items()
            if name not in ("outputs", "inputs")
        }
        return cls(inputs=fields["inputs"], outputs=outputs, **plain)


def trace(
    build: Callable[[], nn.Module],
    inputs: Sequence[TensorSpec],
    *,
    checkpointing: str,
    cuda: bool,
    autocast: bool,
) -> SegmentTrace:
    """Run a piece of a network on meta tensors.

    Args:
        build: makes the piece, a module from its inputs to one tensor, to several, or to a scalar
            loss. One with a method `consume` is given a list of its inputs, and may let go of them.
        inputs: what it is given.
        checkpointing: `none`, `light` or `full`.
        cuda: allocate as CUDA's kernels do; else as those of the CPU.
        autocast: to bf16, as on CUDA.
    """

    def kernels() -> AbstractContextManager[Any]:
        return CudaKernels(autocast=autocast) if cuda else CpuKernels()

    with torch.device("meta"):
        module = build()
    module.train()
    checkpoint_blocks(module, checkpointing, kernels)
    run = _Run(module)
    with every_mask_full(), run.recorder:
        with kernels():
            given = run.sources(inputs)
            consume: Any = getattr(module, "consume", None)
            result = consume(given) if consume else module(*given)
            results = [result] if isinstance(result, Tensor) else list(result)
            run.end_forward()
        end = run.sink(results)
        del result, results, given
        run.turn()
        if end.requires_grad:  # else it is frozen, and so is what comes before it
            end.backward()
    return run.result()


class _Run:
    """The two edges of one trace, and what they saw."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.recorder = module, Recorder()
        self.forward: list[Event] = []
        self.autocast_end: list[Event] = []
        self.inputs: list[int] = []
        self.incoming: list[int] = []
        self.outgoing: dict[int, int] = {}
        self.results: list[tuple[int, TensorSpec]] = []
        self.kept: list[Tensor] = []
        for state in (*module.parameters(), *module.buffers()):
            self.recorder.register(state)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._accumulated)

    def sources(self, specs: Sequence[TensorSpec]) -> list[Tensor]:
        """The inputs, which nobody else holds."""
        with self._unrecorded():
            token = torch.empty((), device="meta", requires_grad=True)
            given = [
                _Source.apply(token, spec, index, self) if spec.trained else spec.empty()
                for index, spec in enumerate(specs)
            ]
            self.inputs = [self.recorder.register(tensor) for tensor in given]
        return given

    def end_forward(self) -> None:
        """From here on to `sink` events belong to the end of autocast."""
        self.forward, self.recorder.events = self.recorder.events, []

    def sink(self, results: list[Tensor]) -> Tensor:
        """A scalar to start the backward pass from. What the caller drops between here and `turn`
        is not recorded.
        """
        self.recorder.paused = True
        if len(results) == 1 and not results[0].shape:
            return results[0]  # a loss
        self.results = [
            (self.recorder.register(tensor), TensorSpec.of(tensor)) for tensor in results
        ]
        output: Tensor = _Sink.apply(self, *results)
        return output

    def turn(self) -> None:
        """From here on events belong to the backward pass."""
        self.autocast_end, self.recorder.events = self.recorder.events, []
        self.recorder.paused = False

    def give_gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the results, which the autograd engine alone holds."""
        with self._unrecorded():
            gradients = tuple(spec.empty() for _, spec in self.results)
            self.incoming = [self.recorder.register(gradient) for gradient in gradients]
        return gradients

    def take_gradient(self, index: int, gradient: Tensor) -> None:
        """The gradient of an input has arrived."""
        self.outgoing[index] = self.recorder.register(gradient)
        self.kept.append(gradient)

    def result(self) -> SegmentTrace:
        """Everything seen, slots numbered anew: inputs, gradients of the results, then by
        appearance.
        """
        number = {slot: index for index, slot in enumerate((*self.inputs, *self.incoming))}
        passes: list[tuple[Event, ...]] = []
        for events in (self.forward, self.autocast_end, self.recorder.events):
            numbered = []
            for slot, size in events:
                if size >= 0:
                    number.setdefault(slot, len(number))
                if slot in number:  # all but what this file made
                    numbered.append((number[slot], size))
            passes.append(tuple(numbered))
        states = [*self.module.parameters(), *self.module.buffers()]
        gradients = [self.outgoing.get(index) for index in range(len(self.inputs))]
        return SegmentTrace(
            forward=passes[0],
            autocast_end=passes[1],
            backward=passes[2],
            inputs=len(self.inputs),
            outputs=tuple((number[slot], spec) for slot, spec in self.results),
            input_gradients=tuple(None if slot is None else number[slot] for slot in gradients),
            parameters=tuple(state.nbytes for state in states if state.requires_grad),
            fixed=tuple(state.nbytes for state in states if not state.requires_grad),
        )

    def _accumulated(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.recorder.events.append((self.recorder.register(parameter.grad), ACCUMULATED))

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        self.recorder.paused = True
        yield
        self.recorder.paused = False


class _Source(torch.autograd.Function):
    """Stands for the piece before: makes an input, takes its gradient."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, spec: TensorSpec, index: int, run: _Run) -> Tensor:
        ctx.index, ctx.run = index, run
        return spec.empty()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.run.take_gradient(ctx.index, gradient)
        return None, None, None, None


class _Sink(torch.autograd.Function):
    """Stands for the piece behind: takes the results without keeping them, makes their
    gradients.
    """

    @staticmethod
    def forward(ctx: Any, run: _Run, *results: Tensor) -> Tensor:
        ctx.run = run
        return torch.empty((), device="meta")

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.run.give_gradients()


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor [B, C, H, W] with channels last, in elements."""
    _, channels, height, width = shape
    return channels * height * width, 1, channels * width, channels


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
