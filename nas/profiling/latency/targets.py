"""Where latency is measured: ONNX Runtime on one core of this machine, or PyTorch on its GPU."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn

from nas.config.choices import LatencyDevice
from nas.errors import SpecError, need
from nas.export.onnx.export import WRITERS, OnnxModel, backbone_onnx, step_onnx
from nas.models.backbones import HybridBackbone
from nas.models.backbones.graph import Node
from nas.utils.device import hardware

WARM_UP, LEAST_RUNS = 2, 10
LEAST_S = 0.5  # of all runs together

Shape = tuple[int, int, int]


class LatencyTarget(ABC):
    """A device, with what runs networks on it. Weights are as they come: none decides about time.

    What is measured is the shortest of ten runs or more, over half a second at least: other work of
    the machine only adds to it.
    """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What decides about a measurement beside the network: device and versions."""

    @abstractmethod
    def backbone_s(self, backbone: HybridBackbone, shape: Shape) -> float:
        """Seconds of a backbone for one image of `shape`, channels first."""

    @abstractmethod
    def step_s(self, backbone: HybridBackbone, node: Node, shape: Shape) -> float:
        """Seconds of one step of a backbone for one map of `shape`, a stage with the norm behind
        it.
        """


class OnnxCpu(LatencyTarget):
    """ONNX Runtime on one core.

    Raises:
        MissingDependency: packages of the extra `onnx` are not there.
    """

    def __init__(self) -> None:
        need("onnx", *WRITERS)

    def describe(self) -> dict[str, str]:
        processor = hardware(torch.device("cpu"))["cpu"]
        return {"device": f"{processor}, one core", "onnxruntime": version("onnxruntime")}

    def backbone_s(self, backbone: HybridBackbone, shape: Shape) -> float:
        return self._model_s(backbone_onnx(backbone), shape)

    def step_s(self, backbone: HybridBackbone, node: Node, shape: Shape) -> float:
        return self._model_s(step_onnx(backbone, node), shape)

    def _model_s(self, content: bytes, shape: Shape) -> float:
        model, x = OnnxModel(content, threads=1), torch.rand(1, *shape)
        return shortest_s(lambda: model(x))


class TorchGpu(LatencyTarget):
    """PyTorch on the first GPU, fp32.

    Raises:
        SpecError: there is none.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise SpecError("budget.latency_on must be cpu on a machine without a GPU; got 'gpu'")
        self.device = torch.device("cuda")

    def describe(self) -> dict[str, str]:
        return {"device": torch.cuda.get_device_name(self.device), "torch": torch.__version__}

    def backbone_s(self, backbone: HybridBackbone, shape: Shape) -> float:
        return self._module_s(backbone, shape)

    def step_s(self, backbone: HybridBackbone, node: Node, shape: Shape) -> float:
        stem = node.kind == "stem"
        return self._module_s(backbone.stem if stem else backbone.stages[node.stage], shape)

    @torch.inference_mode()
    def _module_s(self, module: nn.Module, shape: Shape) -> float:
        module, x = module.eval().to(self.device), torch.rand(1, *shape, device=self.device)

        def run() -> None:
            module(x)
            torch.cuda.synchronize(self.device)

        return shortest_s(run)


def latency_target(name: LatencyDevice) -> LatencyTarget:
    """Open the target of a name.

    Raises:
        MissingDependency, SpecError: this machine does not have it.
    """
    return OnnxCpu() if name == "cpu" else TorchGpu()


def shortest_s(run: Callable[[], object]) -> float:
    """Time something several times, after two runs that do not count.

    Returns:
        Seconds of the shortest run.
    """
    for _ in range(WARM_UP):
        run()
    shortest, runs, begun_s = float("inf"), 0, time.perf_counter()
    while runs < LEAST_RUNS or time.perf_counter() - begun_s < LEAST_S:
        started = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - started)
        runs += 1
    return shortest
