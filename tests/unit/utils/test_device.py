"""The device that a process computes on."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from nas.utils.device import default_device, hardware, num_threads, tf32


def test_threads_are_as_many_as_before_also_after_an_error():
    before = torch.get_num_threads()
    with suppress(KeyError), num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with num_threads(None):
        assert torch.get_num_threads() == before


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("wanted", [True, False])
def test_tf32_is_of_products_and_convolutions_and_as_before_afterwards(wanted: bool):
    before = allowed()
    assert before == (False, True)
    with suppress(KeyError), tf32(wanted, torch.device("cuda:1")):
        assert allowed() == (wanted, wanted)
        assert torch.get_float32_matmul_precision() == ("high" if wanted else "highest")
        raise KeyError
    assert allowed() == before
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("wanted", "device"), [(None, "cuda"), (True, "cpu"), (False, "cpu")])
def test_tf32_stays_as_it_is_where_nothing_is_asked_or_there_is_no_gpu(
    wanted: bool | None, device: str
):
    before = allowed()
    with tf32(wanted, torch.device(device)):
        assert allowed() == before


@pytest.mark.parametrize(
    ("driver", "gpus", "device"), [(True, 1, "cuda"), (True, 0, "cpu"), (False, 1, "cpu")]
)
def test_a_gpu_is_used_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, driver: bool, gpus: int, device: str
):
    monkeypatch.setattr("nas.utils.device.has_gpu", lambda: driver)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert default_device() == device


def test_the_hardware_of_a_cpu():
    facts = hardware(torch.device("cpu"))
    assert (facts["device"], facts["threads"]) == ("cpu", torch.get_num_threads())
    assert facts["cpu"]
