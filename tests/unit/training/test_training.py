"""The loop, its optimizer, its schedule and its checkpoints."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch
from nas.errors import CandidateError, NonFiniteLoss, OutputError
from nas.models.detectors import build_detector
from nas.training.checkpoint import Stateful, load_checkpoint, save_checkpoint, save_weights
from nas.training.loop import train_epoch
from nas.training.lr_schedule import Saturation, lr_at
from nas.training.optimizer import make_optimizer
from search_spaces.layout import Layout

CPU = torch.device("cpu")


def recipe(**keys: object) -> Recipe:
    return Recipe.model_validate({"epochs": 4, "image_size": 64, "batch": 4, "lr": 0.1, **keys})


class Toy(nn.Module):
    """Keeps the detectors' contract: a linear map of the mean colour, two losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(3, 4)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        assert self.training
        means = torch.stack([image.mean(dim=(1, 2)) for image in images])
        wanted = torch.stack([target["boxes"][0] for target in targets])
        error = self.map(means) - wanted
        return {"square": error.square().mean(), "absolute": 0.1 * error.abs().mean()}


def batches(count: int, size: int = 4, bad: int | None = None) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(count):
        images = [torch.rand(3, 5, 6, generator=generator) for _ in range(size)]
        targets = [{"boxes": torch.rand(1, 4, generator=generator)} for _ in range(size)]
        if index == bad:
            images[0][0, 0, 0] = float("nan")
        made.append(Batch(images, targets))
    return made


def run(network: nn.Module, data: list[Batch], **how: object) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, fused=True)
    arguments = {
        "lrs": [0.1] * len(data),
        "accumulate": 1,
        "clip_norm": None,
        "precision": "fp32",
        "device": CPU,
        **how,
    }
    return train_epoch(network, data, optimizer, **arguments)


def test_an_epoch_equals_the_loop_written_out():
    ours, theirs, data, lrs = Toy(), Toy(), batches(5), [0.1, 0.2, 0.3, 0.2, 0.1]
    loss = run(ours, data, lrs=lrs, clip_norm=0.05)
    total = 0.0
    for batch, lr in zip(data, lrs, strict=True):
        theirs.zero_grad()
        step_loss = sum(theirs(batch.images, batch.targets).values())
        step_loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in theirs.parameters()])
        scale = min(1.0, 0.05 / (gradient.norm().item() + 1e-6))
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter -= lr * scale * parameter.grad
        total += step_loss.item()
    assert loss == pytest.approx(total / 5)
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, yours, atol=1e-6)
        assert mine.grad is None


def test_accumulated_batches_equal_one_large_batch():
    whole, pieces = Toy(), Toy()
    data = batches(6, size=2)
    joined = [
        Batch(a.images + b.images + c.images, a.targets + b.targets + c.targets)
        for a, b, c in (data[:3], data[3:])
    ]
    run(whole, joined)
    loss = run(pieces, data, lrs=[0.1, 0.1], accumulate=3)
    assert loss > 0
    for mine, yours in zip(pieces.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(mine, yours, atol=1e-6)


def test_a_short_last_group_still_makes_a_full_step():
    network, steps = Toy(), []
    run(
        network,
        batches(5),
        lrs=[0.1] * 3,
        accumulate=2,
        on_step=lambda step, total, loss: steps.append((step, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_before_the_step(accumulate: int):
    network, good = Toy(), Toy()
    run(good, batches(4)[:2], lrs=[0.1] * (2 // accumulate), accumulate=accumulate)
    with pytest.raises(NonFiniteLoss, match=r"at step \d of the epoch: square nan, absolute nan"):
        run(network, batches(4, bad=2), lrs=[0.1] * (4 // accumulate), accumulate=accumulate)
    for mine, yours in zip(network.parameters(), good.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_on_a_gpu_a_bad_step_voids_itself_and_all_that_follow():
    """There the host looks late: what it would have seen must not have changed the weights in
    between.
    """
    network, good = Toy(), Toy()
    fused = torch.optim.AdamW(network.parameters(), fused=True)
    expected = torch.optim.AdamW(good.parameters(), fused=True)
    how = {"accumulate": 1, "clip_norm": None, "precision": "fp32", "device": CPU}
    train_epoch(good, batches(5)[:2], expected, lrs=[0.1] * 2, **how)
    with pytest.raises(
        NonFiniteLoss, match=r"loss is not finite at step 3 of the epoch: square nan"
    ):
        train_epoch(network, batches(5, bad=2), fused, lrs=[0.1] * 5, check_s=math.inf, **how)
    for mine, yours in zip(network.parameters(), good.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    network = Toy()
    network.map.weight.register_hook(lambda grad: grad * math.inf)
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(NonFiniteLoss, match="gradient is not finite at step 1"):
        run(network, batches(1))
    assert all(
        torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True)
    )


def test_decay_spares_norms_biases_scales_and_tables():
    detector = build_detector(
        Layout.parse("C1-C1-T2-T1@16"), DetectorSpec(name="fcos", channels=32), 3
    )
    decayed, plain = make_optimizer(detector, recipe(weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    spared = {names[id(p)] for p in plain["params"]}
    assert "backbone.backbone.stages.2.blocks.1.attention.position_table" in spared
    assert "head.regression_head.scales" in spared
    assert "backbone.backbone.stem.norm.weight" in spared
    assert len(decayed["params"]) + len(plain["params"]) == sum(
        p.requires_grad for p in detector.parameters()
    )


def test_schedules():
    steps = 10
    constant = [
        lr_at(step, steps, recipe(schedule="constant", warmup_steps=4)) for step in range(40)
    ]
    assert constant[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert set(constant[4:]) == {0.1}
    stepped = recipe(schedule="step", decay_epochs=[2, 3], decay_factor=0.5)
    assert [lr_at(step, steps, stepped) for step in (0, 19, 20, 29, 30, 39)] == [
        0.1,
        0.1,
        0.05,
        0.05,
        0.025,
        0.025,
    ]
    cosine = [lr_at(step, steps, recipe(schedule="cosine")) for step in range(40)]
    assert cosine[0] == 0.1
    assert cosine[20] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in itertools.pairwise(cosine))
    assert cosine[-1] < 0.001
    torch_cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), T_max=40
    )
    torch_cosine.optimizer.step()
    for expected in cosine:
        assert torch_cosine.get_last_lr()[0] == pytest.approx(expected, abs=1e-9)
        torch_cosine.step()


def test_saturation_decays_then_converges():
    rule = recipe(schedule="saturate", patience=2, min_gain=0.01, decays=1, epochs=50)
    values = [0.1, 0.2, 0.205, 0.209, 0.3, 0.3, 0.3, 0.4]
    seen, state = [], Saturation()
    for value in values:
        state = state.after(value, rule)
        seen.append((state.decays, state.converged))
    # 0.209 is the second epoch without a gain of 0.01 over 0.2; the third 0.3 is the second without
    # one after the decay.
    assert seen == [(0, False)] * 3 + [(1, False)] * 3 + [(1, True)] * 2
    rates = [lr_at(5, 10, rule, decays) for decays in (0, 1)]
    assert rates == pytest.approx([0.1, 0.01])


def after(values: list[tuple[float, bool]], **keys: object) -> list[Saturation]:
    """States after epochs, each with its score and whether the warm-up was over."""
    rule, states = recipe(schedule="saturate", min_gain=0.01, **keys), [Saturation()]
    for value, warm in values:
        states.append(states[-1].after(value, rule, warm=warm))
    return states[1:]


def test_epochs_of_the_warmup_are_not_waited_for():
    cold = [(0.2, False)] * 6
    assert after(cold, patience=1) == [Saturation(best=0.2)] * 6
    found = after([*cold, *[(0.2, True)] * 3], patience=2, decays=1)[6:]
    assert [(state.waited, state.decays) for state in found] == [(1, 0), (0, 1), (1, 1)]


def test_a_gain_in_the_warmup_counts():
    first, second, third = after([(0.2, False), (0.3, False), (0.25, True)], patience=1)
    assert (first.best, second.best) == (0.2, 0.3)
    assert (third.best, third.decays) == (0.3, 1)


def test_epochs_before_the_first_gain_are_not_waited_for():
    assert after([(0.0, True)] * 9 + [(0.009, True)], patience=1) == [Saturation()] * 10
    found = after([(0.0, True)] * 9 + [(0.1, True)] * 3, patience=1, decays=1)[9:]
    assert [(state.best, state.decays, state.converged) for state in found] == [
        (0.1, 0, False),
        (0.1, 1, False),
        (0.1, 1, True),
    ]


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_other_schedules_never_converge_early(schedule: str):
    state = Saturation()
    for _ in range(100):
        state = state.after(0.0, recipe(schedule=schedule))
    assert state == Saturation()


def test_the_warmup_ends_after_its_steps_or_its_share_of_all_steps():
    def rates(**keys: object) -> list[float]:
        rule = recipe(schedule="constant", **keys)
        return [lr_at(step, 10, rule) for step in range(40)]

    rising = [0.1 * step / 5 for step in range(1, 5)]  # a tenth of 40 steps
    assert rates(warmup_steps=500, warmup_share=0.1) == pytest.approx([*rising, *[0.1] * 36])
    assert rates(warmup_steps=4, warmup_share=0.5) == rates(warmup_steps=500, warmup_share=0.1)
    assert rates(warmup_steps=4) == rates(warmup_steps=4, warmup_share=1)
    assert rates(warmup_steps=500, warmup_share=0.01) == [0.1] * 40  # less than a step
    whole = rates(warmup_steps=500)
    assert whole == pytest.approx([0.1 * step / 40 for step in range(1, 41)])
    cosine = recipe(schedule="cosine", warmup_steps=500, warmup_share=0.1)
    assert lr_at(4, 10, cosine) == 0.1
    assert lr_at(22, 10, cosine) == pytest.approx(0.05)  # half way through the other 36


def test_warmup_longer_than_training_never_divides_by_zero():
    short = recipe(epochs=1, warmup_steps=500, schedule="cosine")
    assert all(0 < lr_at(step, 3, short) <= 0.1 for step in range(3))


def test_paper_schedule_decays_once_after_epoch_22():
    paper = parse_model(Recipe, load_recipe("paper-24"))
    rates = [lr_at(epoch * 1000 + 999, 1000, paper) for epoch in range(24)]
    assert rates == pytest.approx([1e-4] * 22 + [1e-5] * 2)


def test_checkpoint_restores_everything(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    network = Toy()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(batches(1)[0].images, batches(1)[0].targets)["square"].backward()
    optimizer.step()
    torch.manual_seed(7)
    extra = {"map": None, "list": [1, 2.5, "x"]}
    parts = {"detector": network, "optimizer": optimizer}
    save_checkpoint(path, parts, epoch=3, key="me", extra=extra, rng=[torch.get_rng_state()])
    expected = torch.rand(3)
    other = Toy()
    nn.init.zeros_(other.map.weight)
    restored = torch.optim.AdamW(other.parameters(), fused=True)
    torch.manual_seed(8)
    parts = {"detector": other, "optimizer": restored}
    assert load_checkpoint(path, parts, key="me") == (
        3,
        {"map": None, "list": [1, 2.5, "x"]},
    )
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(other.map.weight, network.map.weight)
    for mine, yours in zip(restored.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[name], yours[name]) for name in yours)


def toy_parts() -> dict[str, Stateful]:
    network = Toy()
    return {"detector": network, "optimizer": torch.optim.AdamW(network.parameters())}


def test_no_checkpoint_foreign_checkpoint_broken_checkpoint(tmp_path: Path):
    path, parts = tmp_path / "checkpoint.pt", toy_parts()
    assert load_checkpoint(path, parts, key="me") is None
    save_checkpoint(path, parts, epoch=1, key="you", extra={}, rng=[])
    with pytest.raises(CandidateError, match="belongs to another run"):
        load_checkpoint(path, parts, key="me")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CandidateError, match="cannot be read"):
        load_checkpoint(path, parts, key="you")


def test_a_failed_write_leaves_the_checkpoint_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, parts = tmp_path / "checkpoint.pt", toy_parts()
    save_checkpoint(path, parts, epoch=1, key="me", extra={}, rng=[])

    def full(content: object, target: BinaryIO) -> None:
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="checkpoint.pt' cannot be written: No space left"):
        save_checkpoint(path, parts, epoch=2, key="me", extra={}, rng=[])
    monkeypatch.undo()
    assert load_checkpoint(path, parts, key="me") == (1, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_never_runs_code(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"key": "me", "detector": Evil()}, path)
    with pytest.raises(CandidateError, match="cannot be read"):
        load_checkpoint(path, toy_parts(), key="me")
    assert not (tmp_path / "pwned").exists()


def test_weights_round_trip(tmp_path: Path):
    detector = build_detector(
        Layout.parse("C1-C1-T1-T1@16"), DetectorSpec(name="fcos", channels=32), 3
    )
    save_weights(tmp_path / "weights.safetensors", detector)
    torch.manual_seed(1)
    other = build_detector(
        Layout.parse("C1-C1-T1-T1@16"), DetectorSpec(name="fcos", channels=32), 3
    )
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(other.state_dict()[name], tensor)
        for name, tensor in detector.state_dict().items()
    )
