"""Tensors out of files that other people wrote: by name, plain, and without running what else such
a file may hold.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from nas.config.recipe import WEIGHT_FILES
from nas.errors import SpecError

CONTAINERS = ("model", "state_dict", "model_state_dict", "model_ema", "ema_state_dict", "ema")
# A number of NumPy beside the weights (a loss, a score) is data as well: what rebuilds one, under
# its names in NumPy 1 and 2, and the classes of its types.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY: list[Any] = [
    np.dtype,
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
_CODE = re.compile(
    r"GLOBAL (\S+)"
)  # what PyTorch's reader of tensors says that it would have had to run


def refusal(path: Path, reason: str) -> SpecError:
    """Make the error for a file of weights that cannot be used."""
    return SpecError(f"weights {str(path)!r}: {reason}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names to tensors, on the CPU, at the top of a file or under one of `CONTAINERS`.

    Args:
        path: `.safetensors`, or `.pt` or `.pth` as `torch.save` writes it; of this machine or a
            URL's.

    Raises:
        SpecError: the file is not there, damaged, would run code, or holds other things than plain
            tensors.
    """
    if path.suffix not in WEIGHT_FILES:
        raise refusal(path, f"the name must end in {', '.join(WEIGHT_FILES)}")
    if not path.is_file():
        raise refusal(path, "there is no such file")
    try:
        content = load(path.read_bytes()) if path.suffix == ".safetensors" else _unpickled(path)
    except OSError as error:
        raise refusal(path, f"it cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise refusal(path, f"it is cut off or damaged ({error})") from None
    return _plain_tensors(path, content)


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, text by name, from its header; of other files none.

    Args:
        path: a file that `read_tensors` reads.
    """
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return dict(json.loads(file.read(length)).get("__metadata__") or {})


def _unpickled(path: Path) -> Any:
    packed = io.BytesIO(path.read_bytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles, which are refused in one line
            with torch.serialization.safe_globals(_NUMPY):
                return torch.load(packed, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in every way
        said = " ".join(str(error).split())
        if (
            code := "TorchScript"
            if "TorchScript" in said
            else (found := _CODE.search(said)) and found[1]
        ):
            raise refusal(
                path, f"reading it would run code ({code}), so it was not loaded; {_INSTEAD}"
            ) from None
        if isinstance(error, pickle.UnpicklingError):
            raise refusal(
                path,
                f"it is damaged, or a pickle that could run code, and was not loaded; {_INSTEAD}",
            ) from None
        raise refusal(
            path, f"it is cut off or damaged ({type(error).__name__}: {said[:200]})"
        ) from None


_INSTEAD = "save its tensors as .safetensors (safetensors.torch.save_file)"


def _plain_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), content
        )
    if not isinstance(content, Mapping) or not content:
        got = "nothing" if isinstance(content, Mapping) else type(content).__name__
        raise refusal(
            path,
            f"it must hold tensors by name, at the top or under {', '.join(CONTAINERS)}; got {got}",
        )
    for name, value in content.items():
        if not isinstance(name, str) or not _plain(value):
            raise refusal(
                path,
                f"it must hold plain tensors by name, nothing else; got {name!r}, "
                f"{_described(value)}",
            )
    return dict(content)


def _plain(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_quantized or value.is_complex():
        return False
    if value.layout is not torch.strided or value.device.type != "cpu":
        return False
    # One of a few numbers can claim any size, each of them many times.
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _described(value: Any) -> str:
    """For people: what stands where a plain tensor should."""
    return (
        f"a tensor ({value.dtype}, {value.layout}, {value.device})"
        if isinstance(value, Tensor)
        else type(value).__name__
    )
