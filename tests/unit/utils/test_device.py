"""The device that a process computes on."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from nas.utils.device import default_device, hardware, num_threads


def test_threads_are_as_many_as_before_also_after_an_error():
    before = torch.get_num_threads()
    with suppress(KeyError), num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with num_threads(None):
        assert torch.get_num_threads() == before


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert default_device() == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert default_device() == "cpu"


def test_the_hardware_of_a_cpu():
    facts = hardware(torch.device("cpu"))
    assert (facts["device"], facts["threads"]) == ("cpu", torch.get_num_threads())
    assert facts["cpu"]
