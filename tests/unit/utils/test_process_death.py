"""Signals that ended a process, in words; and what PyTorch says of its loaders' processes."""

from __future__ import annotations

import signal

import psutil
import pytest

from nas.data.dataloader import loading
from nas.errors import ProcessDied
from nas.utils.process_death import free_memory_text, signal_text


def test_signals_have_their_names():
    assert signal_text(11) == "signal 11 (SIGSEGV), a crash in compiled code"
    assert signal_text(signal.SIGHUP) == "signal 1 (SIGHUP)"
    assert signal_text(255) == "signal 255"
    assert signal_text(9).startswith("signal 9 (SIGKILL), probably out of memory; this machine has")


def test_free_memory_is_the_systems():
    free, total = (float(word) for word in free_memory_text().split()[0:3:2])
    memory = psutil.virtual_memory()
    assert total == pytest.approx(memory.total / 2**30, abs=0.1)
    assert free == pytest.approx(memory.available / 2**30, abs=0.2 * total)


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (
            "DataLoader worker (pid 12450) is killed by signal: Killed. ",
            "a process that reads images died by signal 9 (SIGKILL), probably out of memory",
        ),
        (
            "DataLoader worker (pid 7) is killed by signal: Segmentation fault. ",
            "a process that reads images died by signal 11 (SIGSEGV), a crash in compiled code",
        ),
        (
            "DataLoader worker (pid(s) 18882) exited unexpectedly",
            "a process that reads images died, probably out of memory",
        ),
    ],
)
def test_a_loaders_process(said: str, begins: str):
    with pytest.raises(ProcessDied) as raised, loading():
        raise RuntimeError(said)
    assert str(raised.value).startswith(begins)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="shape mismatch") as raised, loading():
        raise RuntimeError("shape mismatch")
    assert type(raised.value) is RuntimeError
