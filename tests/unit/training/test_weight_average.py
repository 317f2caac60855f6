"""The moving average of weights, against one computed by hand."""

from __future__ import annotations

import torch
from torch import nn

from nas.training.weight_average import WeightAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_the_average_by_hand():
    net = network()
    average = WeightAverage(net, 0.5)
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(1, 12):
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.add_(step)
        net[1].running_mean.add_(step)
        average.update()
        decay = min(0.5, (step - 1) / (step + 8))
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, value in average.values.items():
        assert torch.allclose(value, expected[name], rtol=1e-5), name
    assert "1.num_batches_tracked" not in average.values


def test_the_network_has_the_average_inside_and_its_own_weights_after():
    net = network()
    average = WeightAverage(net, 0.9)
    for _ in range(3):
        with torch.no_grad():
            net[0].weight.add_(1)
        average.update()
    own, averaged = net[0].weight.clone(), average.values["0.weight"].clone()
    assert not torch.equal(own, averaged)
    with average.applied():
        assert torch.equal(net[0].weight, averaged)
    assert torch.equal(net[0].weight, own)
    assert torch.equal(average.values["0.weight"], averaged)


def test_a_restored_average_goes_on_as_the_first():
    one, other = network(), network()
    first, second = WeightAverage(one, 0.9), WeightAverage(other, 0.9)
    first.update()
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for net, average in ((one, first), (other, second)):
        with torch.no_grad():
            net[0].weight.fill_(7)
        average.update()
    assert torch.equal(first.values["0.weight"], second.values["0.weight"])
    assert first.updates == second.updates == 2
