"""Architecture search for object detectors trained from scratch.

    import nas

    study = nas.search("digits", space="tiny", detector="fcos", trials=6)
    best = study.export("best")
    best.predict(["photo.jpg"])

What is imported here is light: PyTorch and Ray are imported when something is first called.

Beside other programs PyTorch's threads wait for each other most of the time, and GNU's OpenMP lets
them do so busily, for milliseconds. They sleep sooner here (`GOMP_SPINCOUNT`), unless the
environment says how they wait: half the time of a training step on a busy machine, no other on an
idle one (docs/evidence.md). It is read when PyTorch is imported.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"

if TYPE_CHECKING:
    from nas.api.public import (
        check_data,
        evaluate,
        export,
        load,
        load_study,
        plan,
        predict,
        profile,
        search,
        train,
    )

__all__ = [
    "check_data",
    "evaluate",
    "export",
    "load",
    "load_study",
    "plan",
    "predict",
    "profile",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(import_module("nas.api.public"), name)


class _CalledPackage(ModuleType):
    """A package that, when it is called, is the function of its name: importing anything of
    `nas.search` puts the package where users call `nas.search(...)`.
    """

    def __call__(self, *arguments: Any, **keys: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module("nas.api.public"), name)(*arguments, **keys)


for _name in ("export", "search"):  # both empty themselves
    import_module(f"{__name__}.{_name}").__class__ = _CalledPackage


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
