"""Checkpoints: all of a training run's state in one file that is there whole or not at all, read
without unpickling code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nas.errors import CandidateError
from nas.utils.files import atomic_write


class Stateful(Protocol):
    """A part of a training run: a network, an optimizer, an average of weights."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore a state, in place."""


def save_checkpoint(
    path: Path,
    parts: Mapping[str, Stateful],
    *,
    epoch: int,
    key: str,
    extra: dict[str, Any],
    rng: list[Tensor],
) -> None:
    """Write the whole state of a run.

    Args:
        path: of the file.
        parts: what the run consists of, by name.
        epoch: epochs done.
        key: name of the run; `load_checkpoint` refuses another.
        extra: anything else, plain JSON.
        rng: state of the random numbers of each process.

    Raises:
        OutputError: the disk is full or away; the checkpoint of before is untouched.
    """
    content = {
        "key": key,
        "epoch": epoch,
        **{name: part.state_dict() for name, part in parts.items()},
        "rng": rng,
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "extra": extra,
    }
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(
    path: Path, parts: Mapping[str, Stateful], *, key: str, rank: int = 0
) -> tuple[int, dict[str, Any]] | None:
    """Restore the whole state of a run, random numbers too.

    Args:
        path: of the file.
        parts: as they were saved; changed in place.
        key: name of the run.
        rank: of this process, whose random numbers are restored.

    Returns:
        The epochs done and `extra`, or None where there is no checkpoint.

    Raises:
        CandidateError: the file is of another run, or cannot be read.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CandidateError(f"checkpoint {path} cannot be read: {error}") from error
    if content["key"] != key:
        raise CandidateError(
            f"checkpoint {path} belongs to another run ({content['key']}, expected {key})"
        )
    for name, part in parts.items():
        part.load_state_dict(content[name])
    if rank < len(
        content["rng"]
    ):  # else there are more processes than before: the new ones keep their own
        torch.set_rng_state(content["rng"][rank])
    if content["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda_rng"])
    return content["epoch"], content["extra"]


def save_weights(path: Path, network: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write the state of a network as safetensors, with text that describes it in the file's
    header.

    Raises:
        OutputError: the disk is full or away.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    atomic_write(path, lambda file: file.write(save(state, metadata)))
