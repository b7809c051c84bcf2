"""The learner's nets: how they start, and what they make of sequences."""

import itertools
import math

import pytest
import torch
from gymnasium import spaces

from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

FLAT = spaces.Box(-1.0, 1.0, (4,))
BOTH = spaces.Dict({"camera": spaces.Box(0, 255, (36, 40, 3), "uint8"), "state": FLAT})
BOX = spaces.Box(-1.0, 1.0, (2,))


def nets_of(observations=FLAT, actions=BOX, seed=0, **network):
    settings = NetworkSettings(**{"hidden_sizes": (64, 32), "recurrent_size": 16, **network})
    return ActorCritic(policy_spec("toy", observations, actions, settings), seed)


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm"}, {"recurrent": "gru"}, {"network": "impala_cnn"}])
def test_initial_weights_are_orthogonal_with_the_gains_of_the_paper_and_biases_zero(network):
    observations = BOTH if "network" in network else FLAT
    state = nets_of(observations, shared_value_net=False, **network).nets.state_dict()
    for name, tensor in state.items():
        if tensor.dim() == 1:
            assert not tensor.any(), name
            continue
        gain = math.sqrt(2.0)
        if "head" in name:
            gain = 0.01 if name.startswith("policy") else 1.0
        elif "recurrent" in name:
            gain = 1.0
        weight = tensor.flatten(1)
        rows, columns = weight.shape
        product = weight @ weight.T if rows <= columns else weight.T @ weight
        torch.testing.assert_close(product, gain**2 * torch.eye(min(rows, columns)), atol=2e-5, rtol=0, msg=name)


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm"}, {"network": "nature_cnn"}])
def test_initial_weights_are_a_function_of_the_seed_and_leave_torchs_global_generator_alone(network):
    observations = BOTH if "network" in network else FLAT
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (nets_of(observations, seed=seed, **network).nets.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["policy.hidden.0.weight"], other["policy.hidden.0.weight"])


def test_continuous_policies_start_with_deviation_one_or_nearly_so_if_it_is_predicted():
    assert nets_of().nets.state_dict()["log_stds"].tolist() == [0.0, 0.0]
    predicting = nets_of(log_std="predicted")
    assert "log_stds" not in predicting.nets.state_dict()
    observations = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    parameters, _ = predicting.forward({"observations/observation": observations})
    assert parameters.shape == (50, 4)
    assert parameters.abs().max() < 0.1


def test_continuous_policies_can_start_with_another_deviation():
    assert nets_of(initial_log_std=-2.0).nets.state_dict()["log_stds"].tolist() == [-2.0, -2.0]
    predicting = nets_of(initial_log_std=-2.0, log_std="predicted")
    observations = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    parameters, _ = predicting.forward({"observations/observation": observations})
    assert parameters[:, :2].abs().max() < 0.1
    assert (parameters[:, 2:] + 2.0).abs().max() < 0.1


def test_a_shared_tower_serves_both_heads_and_separate_towers_do_not_meet():
    observations = {"observations/observation": torch.randn(5, 4, generator=torch.Generator().manual_seed(0))}
    for shared in (True, False):
        network = nets_of(shared_value_net=shared)
        _, values = network.forward(observations)
        values.sum().backward()
        touched = {name for name, parameter in network.nets.named_parameters() if parameter.grad is not None}
        assert any(name.startswith("policy.hidden") for name in touched) == shared
        assert "policy.head.weight" not in touched


def literal_lstm(cell, row, hidden, cells):
    """torch.nn.LSTM's documented equations."""
    gates = cell.weight_ih_l0 @ row + cell.bias_ih_l0 + cell.weight_hh_l0 @ hidden + cell.bias_hh_l0
    i, f, g, o = gates.chunk(4)
    cells = f.sigmoid() * cells + i.sigmoid() * g.tanh()
    return o.sigmoid() * cells.tanh(), cells


def literal_gru(cell, row, hidden, _):
    """torch.nn.GRU's documented equations."""
    r, z, n = (cell.weight_ih_l0 @ row + cell.bias_ih_l0).chunk(3)
    own_r, own_z, own_n = (cell.weight_hh_l0 @ hidden + cell.bias_hh_l0).chunk(3)
    reset, update = (r + own_r).sigmoid(), (z + own_z).sigmoid()
    new = (n + reset * own_n).tanh()
    return (1 - update) * new + update * hidden, torch.zeros_like(hidden)


@pytest.mark.parametrize(("recurrent", "literal"), [("lstm", literal_lstm), ("gru", literal_gru)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lengths", [[4, 3, 1], [3, 3], [9, *[1] * 8]])  # padded, equal, and too different to be padded
def test_packed_sequences_are_what_a_step_by_step_walk_through_each_gives(recurrent, literal, shared, lengths):
    network = nets_of(recurrent=recurrent, recurrent_size=5, shared_value_net=shared)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.nets.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    pieces = [torch.randn(length, 4, generator=generator) for length in lengths]
    states = torch.randn(len(lengths), network.spec.state_size, generator=generator)
    steps = [[piece[t] for piece in pieces if t < len(piece)] for t in range(lengths[0])]
    minibatch = {
        "observations/observation": torch.stack(list(itertools.chain.from_iterable(steps))),
        "states": states,
        "batch_sizes": torch.tensor([len(step) for step in steps]),
    }
    parameters, values = network.forward(minibatch)

    rows = {}
    for p, piece in enumerate(pieces):
        per_tower = states[p].chunk(len(network.spec.towers))
        outputs = {}
        for tower, state in zip(network.spec.towers, per_tower, strict=True):
            net = network.nets[tower]
            hidden, cells = state.chunk(2) if recurrent == "lstm" else (state, torch.zeros(5))
            for t, observation in enumerate(piece):
                inner = observation
                for layer in net["hidden"]:
                    inner = layer(inner).tanh()
                hidden, cells = literal(net["recurrent"], inner, hidden, cells)
                outputs[tower, t] = hidden
        for t in range(len(piece)):
            of_policy = outputs["policy", t]
            of_critic = of_policy if shared else outputs["value", t]
            rows[p, t] = network.nets["policy"]["head"](of_policy), network.nets["value"]["head"](of_critic)
    packed = [(p, t) for t in range(lengths[0]) for p in range(len(lengths)) if t < lengths[p]]
    for row, place in enumerate(packed):
        torch.testing.assert_close(parameters[row, :2], rows[place][0])
        torch.testing.assert_close(values[row], rows[place][1][0])
