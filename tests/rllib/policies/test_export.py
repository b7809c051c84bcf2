"""Exported policies give what shoal's own give, in both formats, for any number of rows and every kind of space."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.policies.export import difference, examples, export
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.normalization import LIMIT, ObservationMoments
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (44, 40, 3), np.uint8)
MANY = spaces.Dict(
    {
        "at": VECTOR,
        "kind": spaces.MultiDiscrete([3, 2], start=[1, 0]),
        "lamp": spaces.Discrete(4, start=-1),
        "ram": spaces.Box(0, 255, (4,), np.uint8),
    }
)
BOUNDED = spaces.Box(np.array([-1.0, -0.5], np.float32), np.array([1.0, 2.0], np.float32))
KINDS = {
    "one choice": (VECTOR, spaces.Discrete(4, start=2), {}, False),
    "several choices with masks, of a dict": (MANY, spaces.MultiDiscrete([3, 2, 4]), {"activation": "relu"}, True),
    "real numbers": (VECTOR, BOUNDED, {}, False),
    "squashed, with predicted deviations": (VECTOR, BOUNDED, {"squash": True, "log_std": "predicted"}, False),
    "choices and real numbers": (VECTOR, spaces.Tuple([BOUNDED, spaces.Discrete(3)]), {}, True),
    "lstm": (MANY, spaces.Discrete(3), {"recurrent": "lstm", "recurrent_size": 8}, True),
    "gru that both share": (
        VECTOR,
        BOUNDED,
        {"recurrent": "gru", "recurrent_size": 8, "shared_value_net": True},
        False,
    ),
    "images": (IMAGE, spaces.Discrete(3), {}, False),
    "images and numbers": (spaces.Dict({"camera": IMAGE, "at": VECTOR}), BOUNDED, {"network": "impala_cnn"}, False),
}


def weights_of(observation_space, action_space, network):
    spec = policy_spec("anything", observation_space, action_space, NetworkSettings(hidden_sizes=(16, 8), **network))
    rng = np.random.default_rng(1)
    state = ActorCritic(spec, 3).nets.state_dict()
    # The first policy is nearly uniform: far from it no rounding can turn one choice into another.
    arrays = {
        name: tensor.numpy() + rng.normal(0.0, 0.3, tensor.shape).astype(np.float32) for name, tensor in state.items()
    }
    moments = ObservationMoments(spec.observations.normalizable_shapes)
    moments.update(
        {name: rng.normal(1.0, 2.0, (5, 4, *shape)) for name, shape in spec.observations.normalizable_shapes.items()}
    )
    return Weights(7, spec, arrays, moments.normalizers())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_an_exported_policy_gives_what_shoals_own_gives(kind, file_format):
    *space_and_network, has_masks = KINDS[kind]
    weights = weights_of(*space_and_network)
    exported = export(weights, file_format, has_masks=has_masks, about={})
    assert difference(exported, file_format, weights, has_masks=has_masks) < 2e-5
    assert exported.inputs == tuple(examples(weights, 1, has_masks=has_masks))
    assert ("next_state" in exported.outputs) == weights.spec.is_recurrent == ("state" in exported.inputs)


def test_examples_of_what_is_normalised_are_around_its_mean_and_some_beyond_where_it_is_cut():
    weights = weights_of(*KINDS["real numbers"][:3])
    [(name, normalizer)] = weights.normalizers.items()
    far = replace(normalizer, mean=normalizer.mean + 1000.0)
    rows = examples(replace(weights, normalizers={name: far}), 400, has_masks=False)[name]
    assert rows.dtype == np.float32
    seen = far(rows)
    beyond = np.abs(seen) == LIMIT
    assert not beyond[np.arange(400) % 4 > 0].any()
    assert 0.4 < beyond[::4].mean() < 0.8
    assert np.std(seen[1::4]) == pytest.approx(1.0, abs=0.1)


def test_another_policys_file_is_found_out():
    first, other = (weights_of(*KINDS[kind][:3]) for kind in ("real numbers", "real numbers"))
    other.arrays["policy.head.bias"][0] += 0.5
    exported = export(first, "torchscript", has_masks=False, about={})
    assert difference(exported, "torchscript", other, has_masks=False) > 0.1
    choices = weights_of(*KINDS["one choice"][:3])
    exported = export(choices, "torchscript", has_masks=False, about={})
    choices.arrays["policy.head.weight"][:] *= -1.0
    choices.arrays["policy.head.bias"][:] *= -1.0
    assert difference(exported, "torchscript", choices, has_masks=False) == np.inf


def test_a_model_runs_alone_on_one_row_and_tells_what_it_is_of():
    import onnx
    import onnxruntime

    weights = weights_of(*KINDS["one choice"][:3])
    content = export(weights, "onnx", has_masks=False, about={"environment": "Maze-v0"}).content
    told = {each.key: each.value for each in onnx.load_model(io.BytesIO(content)).metadata_props}
    assert told["environment"] == "Maze-v0"
    assert json.loads(told["policy_spec"])["actions"]["sizes"] == [4]
    row = np.array([[0.5, -2.0, 1.0]], np.float32)
    action, value = onnxruntime.InferenceSession(content).run(["action", "value"], {"observation": row})
    assert action.tolist() == Policy(weights).act(row, deterministic=True)[0].tolist()
    assert value == pytest.approx(Policy(weights).values(row), abs=1e-5)
