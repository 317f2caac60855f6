"""What a training step is predicted to need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted GPU memory of one training step, in bytes.

    Args:
        peak_bytes: highest sum of allocated blocks.
        parameters_bytes: weights.
        average_bytes: moving average of the weights.
        optimizer_bytes: state of the optimizer.
        gradients_bytes: gradients of the weights.
        inputs_bytes: the batch.
        activations_bytes: by part of the network, what its forward pass made and the backward pass
            still needs at the peak.
        transients_bytes: what the backward pass made.
        workspace_bytes: cuBLAS's buffers.
        rounding_bytes: what the allocator adds to blocks.
        moment: when the peak is: `forward`, `backward` or `update`.
    """

    peak_bytes: int
    parameters_bytes: int
    average_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    inputs_bytes: int
    activations_bytes: dict[str, int]
    transients_bytes: int
    workspace_bytes: int
    rounding_bytes: int
    moment: str

    def parts(self) -> dict[str, int]:
        """Bytes by part, that is by kind of memory and, for activations, by part of the network.

        Their sum is `peak_bytes`.
        """
        return {
            "parameters": self.parameters_bytes,
            **({"average": self.average_bytes} if self.average_bytes else {}),
            "optimizer": self.optimizer_bytes,
            "gradients": self.gradients_bytes,
            "inputs": self.inputs_bytes,
            "transients": self.transients_bytes,
            "workspace": self.workspace_bytes,
            "rounding": self.rounding_bytes,
            **self.activations_bytes,
        }
