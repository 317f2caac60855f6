"""One candidate on several GPUs of a machine: a process for each, which this one supervises.

Reports come through a pipe from the first process. When one of them ends early, or nobody wants the
next report, the others are
killed: none is left waiting for the rest.
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.multiprocessing.spawn import ProcessContext, start_processes

from nas.data.splits import Splits
from nas.errors import CandidateError, ProcessDied, UserError
from nas.reports import EpochReport
from nas.training.candidate import Candidate, train_candidate
from nas.training.loop import OnStep
from nas.utils.distributed import World
from nas.utils.process_death import signal_text
from nas.utils.working_folder import outside_working_folder

POLL_S = 0.2


def train_on(
    processes: int, candidate: Candidate, splits: Splits, on_step: OnStep | None = None
) -> Iterator[EpochReport]:
    """Train a candidate by several processes, on `cuda:0`, `cuda:1` and so on, or all on the CPU.

    Args:
        processes: how many; one trains in this process.
        candidate: what is trained; its device is `cuda` or `cpu`.
        splits: images to train on and to score.
        on_step: called after steps, of several processes a few times a second only.

    Returns:
        Reports as of `train_candidate`.

    Raises:
        ProcessDied: a signal ended a process.
        CandidateError: a process ended otherwise. Else as `train_candidate`, whichever process it
            came from.
    """
    if processes == 1:
        yield from train_candidate(candidate, *splits, on_step=on_step)
        return
    with tempfile.TemporaryDirectory(prefix="scratch-nas-") as meeting:
        receiver, sender = mp.get_context("spawn").Pipe(duplex=False)
        arguments = (processes, f"file://{meeting}/store", candidate, splits, sender)
        with outside_working_folder():
            started = start_processes(
                _process, arguments, nprocs=processes, join=False, start_method="spawn"
            )
        sender.close()
        try:
            yield from _received(receiver, started, on_step)
        finally:
            for process in started.processes:
                process.kill()
                process.join()


def _received(
    receiver: Connection, started: ProcessContext, on_step: OnStep | None
) -> Iterator[EpochReport]:
    while True:
        if receiver.poll(POLL_S):
            with suppress(EOFError):
                message = receiver.recv()
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    return
                if isinstance(message, EpochReport):
                    yield message
                elif on_step:
                    on_step(*message)
                continue
        dead = [process.exitcode for process in started.processes if process.exitcode is not None]
        if dead and not receiver.poll():
            of = f"a process of {len(started.processes)} that trained together"
            if dead[0] < 0:
                raise ProcessDied(f"{of} died by {signal_text(-dead[0])}")
            raise CandidateError(f"{of} ended with {dead[0]}")


def _process(
    rank: int, processes: int, store: str, candidate: Candidate, splits: Splits, sender: Connection
) -> None:
    try:
        device = f"cuda:{rank}" if candidate.device == "cuda" else candidate.device
        join(rank, processes, device, store)
        on_step = _Telling(sender) if rank == 0 else None
        for report in train_candidate(replace(candidate, device=device), *splits, on_step=on_step):
            if rank == 0:
                sender.send(report)
        if rank == 0:
            sender.send(None)
        dist.destroy_process_group()
    except (CandidateError, UserError) as error:
        sender.send(error)
    except Exception as error:
        sender.send(CandidateError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


class _Telling:
    """Passes on a step now and then: to ask a GPU for its loss waits for it."""

    def __init__(self, sender: Connection) -> None:
        self.sender, self.told_s = sender, 0.0

    def __call__(self, step: int, steps: int, loss: Tensor | float) -> None:
        if step == steps or time.monotonic() - self.told_s > POLL_S:
            self.told_s = time.monotonic()
            self.sender.send((step, steps, float(loss)))


def started_by_torchrun(device: str) -> tuple[World, str]:
    """Join the processes that torchrun has started, if it has.

    Args:
        device: `cpu` or `cuda`.

    Returns:
        This process among them, and its device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(), device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    join(int(os.environ["RANK"]), size, device, "env://")
    return World.current(), device


def join(rank: int, processes: int, device: str, store: str) -> None:
    """Make this process one of a group, by NCCL between GPUs and by Gloo on the CPU.

    Args:
        rank: of this process, from 0.
        processes: how many there are.
        device: of this process.
        store: URL where they meet, as `torch.distributed` takes it.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        init_method=store,
        rank=rank,
        world_size=processes,
    )
