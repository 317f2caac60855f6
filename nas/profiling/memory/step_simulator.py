"""A training step put together from the traces of its segments, as the autograd engine would run
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.profiling.memory.recorder import ACCUMULATED, RELEASED
from nas.profiling.memory.tracer import SegmentTrace, TensorSpec

GRADIENTS, TRANSIENTS, INPUTS = "gradients", "transients", "inputs"


@dataclass
class Value:
    """A tensor between segments.

    Args:
        storage: number of its storage.
        spec: its shape and type.
        gradient: number of its gradient's storage; None as long as there is none.
    """

    storage: int
    spec: TensorSpec
    gradient: int | None = None


@dataclass
class _Call:
    trace: SegmentTrace
    part: str
    inputs: Sequence[Value]
    results: list[Value]
    storages: dict[int, int]


class StepSimulator:
    """Runs segments forward, then all of them backward, and records what happens to memory.

    A tensor between segments goes when nobody holds it any more: neither the code that runs them
    (`drop`), nor any segment.

    Args:
        accumulates: gradients of an earlier batch are there already; new ones are added to them.

    Attributes:
        events: in order, each (number of a storage, its bytes or `RELEASED`, part of the estimate).
        backward_from: index of the first event of the backward pass.
    """

    def __init__(self, *, accumulates: bool) -> None:
        self.accumulates = accumulates
        self.events: list[tuple[int, int, str]] = []
        self.backward_from = 0
        self._count = 0
        self._holders: dict[int, int] = {}
        self._calls: list[_Call] = []

    def add_input(self, spec: TensorSpec, size: int | None = None) -> Value:
        """Take in a tensor from outside: one that stays and is not among the events, or one of
        `size` bytes that may be dropped.
        """
        value = Value(self._new(), spec)
        self._hold(value.storage, 1)
        if size is not None:
            self.events.append((value.storage, size, INPUTS))
        return value

    def forward(self, trace: SegmentTrace, part: str, inputs: Sequence[Value]) -> list[Value]:
        """Run the forward pass of a segment.

        Args:
            trace: what it does to memory.
            part: of the estimate that it counts in.
            inputs: what it is given.

        Returns:
            Its results, each held once by the caller.
        """
        storages = {slot: value.storage for slot, value in enumerate(inputs)}
        call = _Call(trace, part, inputs, [], storages)
        self._play(call, trace.forward, part)
        held = {slot for slot, size in trace.backward if size == RELEASED}
        call.results = [Value(storages[slot], spec) for slot, spec in trace.outputs]
        for slot, value in enumerate(inputs):
            self._hold(value.storage, slot in held)
        for slot, _ in trace.outputs:
            self._hold(storages[slot], 1 + (slot in held))
        self._calls.append(call)
        return call.results

    def drop(self, values: Sequence[Value]) -> None:
        """Let go of tensors, as the code does that runs the segments."""
        for value in values:
            self._release(value.storage)

    def keep(self, value: Value) -> None:
        """Hold a tensor once more, as the code does that runs the segments."""
        self._hold(value.storage, 1)

    def discard(self, results: list[Value]) -> None:
        """Drop the results of a segment that nobody uses, and with them what the segment holds."""
        call = next(call for call in self._calls if call.results == results)
        self._calls.remove(call)
        released = {storage for storage, size, _ in self.events if size == RELEASED}
        held = {slot for slot, size in call.trace.backward if size == RELEASED}
        for slot, storage in call.storages.items():
            if slot in held and storage not in released:
                self._release(storage)
        self.drop(results)

    def backward(self) -> None:
        """End autocast, then run all segments backward that are trained or lead to such, the last
        one first.
        """
        for call in self._calls:
            self._play(call, call.trace.autocast_end, call.part)
        self.backward_from = len(self.events)
        for call in reversed(self._calls):
            if call.results and not any(result.spec.trained for result in call.results):
                continue  # frozen
            for number, result in enumerate(call.results, start=call.trace.inputs):
                assert result.gradient is not None
                call.storages[number] = result.gradient
            self._play(call, call.trace.backward, TRANSIENTS)
            for value, slot in zip(call.inputs, call.trace.input_gradients, strict=True):
                if slot is None:
                    continue
                if value.gradient is None:
                    value.gradient = call.storages[slot]
                else:  # added in place
                    self._release(call.storages[slot])

    def _play(self, call: _Call, events: Sequence[tuple[int, int]], part: str) -> None:
        gradients = {slot for slot, size in events if size == ACCUMULATED}
        for slot, size in events:
            if size == RELEASED:
                self._release(call.storages[slot])
            elif size == ACCUMULATED:
                if self.accumulates:
                    self._release(call.storages[slot])
            else:
                call.storages[slot] = self._new()
                stays = slot in gradients and not self.accumulates
                self.events.append((call.storages[slot], size, GRADIENTS if stays else part))

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _hold(self, storage: int, times: int) -> None:
        if times:
            self._holders[storage] = self._holders.get(storage, 0) + times

    def _release(self, storage: int) -> None:
        self._holders[storage] = self._holders.get(storage, 1) - 1
        if not self._holders[storage]:
            del self._holders[storage]
            self.events.append((storage, RELEASED, ""))
