import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.learning.torch_learner import TorchLearner, use_threads
from shoal.rllib.policies.devices import resolve_device
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec

SPEC = policy_spec("toy", spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), NetworkSettings(hidden_sizes=(8,)))


def squared_error(policy, minibatch, settings):
    values = policy.evaluate_actions(minibatch)[2]
    loss = settings["scale"] * (values - minibatch["targets"]).square().mean()
    return loss, {"loss": loss.detach()}


def of_both_nets(policy, minibatch, settings):
    log_probs, _, values = policy.evaluate_actions(minibatch)
    return (values - log_probs).square().mean(), {}


def learner_of(seed=0, max_grad_norm=1e9, lr=0.01, optimizer=torch.optim.Adam, loss=squared_error):
    return TorchLearner(
        ActorCritic(SPEC, seed),
        loss,
        lambda parameters: optimizer(parameters, lr=lr),
        device=torch.device("cpu"),
        max_grad_norm=max_grad_norm,
    )


def far_away_learner(seed=0, optimizer=torch.optim.Adam, device="cpu", **settings):
    """One that asks nothing between steps, as on a GPU."""
    return TorchLearner(
        ActorCritic(SPEC, seed),
        squared_error,
        lambda parameters: optimizer(parameters, lr=0.01, **settings),
        device=torch.device(device),
        max_grad_norm=0.5,
        asks_each_step=False,
    )


def columns(seed=0, count=32):
    rng = np.random.default_rng(seed)
    return {
        "observations/observation": rng.standard_normal((count, 3)).astype(np.float32),
        "actions": rng.integers(2, size=(count, 1)),
        "targets": rng.standard_normal(count).astype(np.float32),
    }


def test_updates_lower_the_loss_that_was_handed_in():
    learner = learner_of()
    minibatch = learner.to_device(columns())
    losses = [learner.update(minibatch, {"scale": 1.0})["loss"].item() for _ in range(200)]
    assert losses[-1] < 0.3 * losses[0]


def test_gradients_are_clipped_by_their_global_norm():
    learner = learner_of(max_grad_norm=0.5, lr=1.0, optimizer=torch.optim.SGD)
    before = learner.weights(0).arrays
    norm = learner.update(learner.to_device(columns()), {"scale": 100.0})["grad_norm"]
    moved = learner.weights(1).arrays
    distance = np.sqrt(sum(np.square(moved[name] - before[name]).sum() for name in before))
    assert norm > 0.5
    assert distance == pytest.approx(0.5, rel=1e-4)


def test_without_a_limit_gradients_are_left_as_they_are():
    learner = learner_of(max_grad_norm=None, lr=1.0, optimizer=torch.optim.SGD)
    before = learner.weights(0).arrays
    norm = learner.update(learner.to_device(columns()), {"scale": 100.0})["grad_norm"]
    moved = learner.weights(1).arrays
    distance = np.sqrt(sum(np.square(moved[name] - before[name]).sum() for name in before))
    assert distance == pytest.approx(norm.item(), rel=1e-4)


def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights_alone():
    learner = learner_of()
    before = learner.weights(0).arrays
    spoilt = columns()
    spoilt["targets"][3] = np.nan
    with pytest.raises(DivergedError, match="norm is nan at a loss of nan"):
        learner.update(learner.to_device(spoilt), {"scale": 1.0})
    after = learner.weights(0).arrays
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_learner_that_asks_nothing_between_steps_does_the_same_steps_and_stops_before_the_first_bad_one():
    near, far = learner_of(max_grad_norm=0.5), far_away_learner(fused=True)
    near.load(far.weights(0).arrays, {})
    given = [columns(step) for step in range(6)]
    given[3]["targets"][3] = np.nan
    given[5]["targets"][3] = np.inf  # it is the first bad one that is told
    reported = []
    for step in range(6):
        reported.append(far.update(far.to_device(given[step]), {"scale": 1.0}))
        if step < 3:
            near.update(near.to_device(given[step]), {"scale": 1.0})
    with pytest.raises(DivergedError, match="norm is nan at a loss of nan"):
        far.means(reported)
    assert_same_arrays(far.weights(1).arrays, near.weights(1).arrays)
    assert_same_arrays(far.optimizer_arrays(), near.optimizer_arrays())


def test_after_it_has_told_of_a_bad_gradient_such_a_learner_goes_on():
    learner = far_away_learner(fused=True)
    spoilt = columns()
    spoilt["targets"][3] = np.inf
    with pytest.raises(DivergedError):
        learner.means([learner.update(learner.to_device(spoilt), {"scale": 1.0})])
    before = learner.weights(0).arrays
    reported = learner.means([learner.update(learner.to_device(columns()), {"scale": 1.0}) for _ in range(2)])
    assert reported.keys() == {"loss", "grad_norm"}
    assert reported["loss"] > 0.0
    assert not np.array_equal(learner.weights(1).arrays["value.head.weight"], before["value.head.weight"])


def test_a_learner_that_asks_nothing_between_steps_needs_an_optimiser_that_can_skip_one():
    with pytest.raises(ValueError, match="Adam must be made with fused=True"):
        far_away_learner()


def test_between_steps_no_number_is_asked_for():
    class Descent(torch.optim.Optimizer):  # torch's fused ones know no such device
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr, "fused": True})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(group["lr"] * (1.0 - self.found_inf) * parameter.grad)

    # Tensors of this device have no numbers: whoever asks for one gets an error.
    learner = far_away_learner(optimizer=Descent, device="meta")
    reported = [learner.update(learner.to_device(columns()), {"scale": 1.0}) for _ in range(2)]
    assert reported[0]["grad_norm"].device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        learner.means(reported)


def assert_same_arrays(mine, its):
    assert mine.keys() == its.keys()
    for name in mine:
        np.testing.assert_allclose(mine[name], its[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("loss", [of_both_nets, squared_error])  # the second does not reach the policy's net
def test_a_gradient_that_is_told_of_as_it_comes_is_the_same_and_what_was_told_stays(loss):
    told, learner = [], learner_of(loss=loss)
    minibatch = learner.to_device(columns())
    for _ in range(2):
        told.clear()
        vector, _ = learner.gradients(
            minibatch,
            {"scale": 1.0},
            final_from=lambda gradient, index: told.append((gradient, index, gradient[index:].copy())),
        )
        np.testing.assert_array_equal(vector, learner.gradients(minibatch, {"scale": 1.0})[0])
        assert all(gradient is vector for gradient, *_ in told)
        indices = [index for _, index, _ in told]
        assert indices == sorted(set(indices), reverse=True)
        for _, index, part in told:
            np.testing.assert_array_equal(part, vector[index:])
    assert len(told) > 1  # in parts, and not when all was there
    assert (indices[-1] == 0) == (loss is of_both_nets)


def test_a_learner_that_takes_over_anothers_arrays_goes_on_bit_for_bit():
    learner = learner_of()
    minibatch = learner.to_device(columns())
    for _ in range(5):
        learner.update(minibatch, {"scale": 1.0})
    heir = learner_of(seed=9)
    heir.load(learner.weights(5).arrays, learner.optimizer_arrays())
    for each in (learner, heir):
        for _ in range(5):
            each.update(minibatch, {"scale": 1.0})
    mine, its = learner.weights(10).arrays, heir.weights(10).arrays
    assert all(np.array_equal(mine[name], its[name]) for name in mine)


def test_a_learner_that_never_stepped_has_an_optimiser_without_memory_and_can_be_loaded():
    assert learner_of().optimizer_arrays() == {}
    heir = learner_of(seed=9)
    heir.update(heir.to_device(columns()), {"scale": 1.0})
    heir.load(learner_of().weights(0).arrays, {})
    assert heir.optimizer_arrays() == {}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_what_an_optimiser_will_remember_is_known_before_its_first_step(optimizer):
    learner = learner_of(optimizer=optimizer, loss=of_both_nets)
    before = learner.weights(0).arrays
    expected = learner.optimizer_shapes()
    assert learner.optimizer_arrays() == {}
    assert all(np.array_equal(before[name], array) for name, array in learner.weights(0).arrays.items())
    learner.update(learner.to_device(columns()), {})
    assert {name: array.shape for name, array in learner.optimizer_arrays().items()} == expected


def test_weights_are_copies_that_later_updates_do_not_touch():
    learner = learner_of()
    weights = learner.weights(0)
    before = weights.arrays["value.hidden.0.weight"].copy()
    learner.update(learner.to_device(columns()), {"scale": 1.0})
    np.testing.assert_array_equal(weights.arrays["value.hidden.0.weight"], before)
    assert weights.spec == SPEC


def test_a_device_that_is_not_there_is_told_in_one_line():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used") as caught:
        resolve_device("cuda:99")
    assert "\n" not in str(caught.value)


def test_a_device_that_does_not_compute_in_bfloat16_is_told_in_one_line(monkeypatch):
    assert resolve_device("cpu", "bfloat16").type == "cpu"

    def refuses(kind, dtype):
        raise RuntimeError(f"Current {kind} device does not support {dtype}.\nTry another.")

    monkeypatch.setattr(torch, "autocast", refuses)
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match=r"^device 'cpu' cannot be used in bfloat16: Current cpu .*16.$"):
        resolve_device("cpu", "bfloat16")


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"hidden_sizes": (64, 64)}, 1),
        ({"hidden_sizes": (512, 512)}, 16),
        ({"hidden_sizes": (64, 64), "recurrent": "lstm"}, 1),  # 8 rows at once, of 200,000 weights each
    ],
)
def test_a_network_gets_as_many_threads_as_it_is_worth(network, expected):
    spec = policy_spec("toy", spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2), NetworkSettings(**network))
    threads = torch.get_num_threads()
    try:
        assert use_threads(ActorCritic(spec, 0), 256, 16) == torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(threads)
