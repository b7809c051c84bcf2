from shoal.rllib import streams


def test_a_stream_is_a_function_of_its_key():
    first = streams.action_stream(3, 5, 70).random(4).tolist()
    assert streams.action_stream(3, 5, 70).random(4).tolist() == first
    for key in ((4, 5, 70), (3, 6, 70), (3, 5, 71)):
        assert streams.action_stream(*key).random(4).tolist() != first


def test_streams_of_different_purpose_share_no_key():
    assert streams.minibatch_stream(3, 5).random() != streams.action_stream(3, 5, 0).random()
    seeds = {streams.weight_seed(3), streams.evaluation_seed(3, 0), streams.environment_seeds(3, 0, 0)(0, 0)}
    assert len(seeds) == 3


def test_copies_made_anew_do_not_repeat_their_episodes():
    made = [streams.environment_seeds(0, at, replaced) for at in range(5) for replaced in range(5)]
    assert len({seeds(copy, episode) for seeds in made for copy in range(3) for episode in range(10)}) == 750
