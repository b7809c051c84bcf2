import dataclasses
import json
import re
import typing

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from shoal.serving import errors, openapi, requests, wire
from shoal.serving.requests import ActRequest

DOCUMENT = openapi.document()
GOOD = {"observations": [[0.1, 0.2, 0.3, 0.4]]}


def schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def is_valid(value: object, name: str) -> bool:
    return jsonschema.Draft202012Validator(schema(name)).is_valid(value)


def test_every_field_is_in_the_document_with_a_sentence():
    for kind in (requests.ActRequest, requests.ActReply, requests.PolicyInfo, requests.VersionInfo):
        told = DOCUMENT["components"]["schemas"][kind.__name__]
        assert list(told["properties"]) == [field.name for field in dataclasses.fields(kind)]
        assert all(field["description"] for field in told["properties"].values())


def test_references_lead_somewhere_and_schemas_are_schemas():
    text = json.dumps(DOCUMENT)
    for name in DOCUMENT["components"]["schemas"]:
        jsonschema.Draft202012Validator.check_schema(schema(name))
    for part in text.split('"$ref": "')[1:]:
        assert part.split('"')[0].removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


def test_a_type_without_a_schema_is_an_error():
    with pytest.raises(TypeError, match="has no schema"):
        openapi._schema_of(typing.Any, [])


def test_what_the_server_answers_is_what_the_document_says(served):
    checks = [
        (served.act("cartpole", GOOD | {"want_value": True}), "ActReply"),
        (served.act("cartpole", {"observations": "x"}), "Error"),
        (served.ask("GET", "/nothing"), "Error"),
    ]
    for answer, name in checks:
        assert is_valid(answer.json, name), answer
    policies = served.ask("GET", "/v1/policies").json
    assert all(is_valid(info, "PolicyInfo") for info in policies["policies"])
    assert served.ask("GET", "/openapi.json").json == DOCUMENT
    paths = {path.replace("{name}", "cartpole") for path in DOCUMENT["paths"]}
    assert all((kind.__name__ in DOCUMENT["components"]["schemas"]) for kind in openapi._ROOTS)
    assert all(served.ask("GET", path).status != 404 for path in paths)


def test_every_failure_of_acting_is_in_the_document():
    told = DOCUMENT["paths"]["/v1/policies/{name}/actions"]["post"]["responses"]
    others = (errors.RouteNotFound, errors.MethodNotAllowed, errors.EpisodeOver, errors.OutOfStep)
    assert set(told) == {"200"} | {str(kind.status) for kind in errors.BY_CODE.values() if kind not in others}


@pytest.mark.parametrize(
    "body",
    [{}, [], {"observations": "x"}, {"observations": {"x": [None]}}, GOOD | {"more": 1}, GOOD | {"timeout_s": 0},
     GOOD | {"sessions": [1]}, GOOD | {"sessions": ["a", "a"]}, GOOD | {"deterministic": None}, GOOD | {"state": "x"},
     GOOD | {"sessions": ["a b"]}, {"observations": {}}],
)  # fmt: skip
def test_what_the_document_forbids_is_refused(served, body):
    assert not is_valid(body, "ActRequest")
    assert served.act("cartpole", body).status in (400, 422)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(-9, 9) | st.floats() | st.booleans()


def of_shape(*shape: int) -> st.SearchStrategy:
    return NUMBERS if not shape else st.lists(of_shape(*shape[1:]), min_size=shape[0], max_size=shape[0])


NEARLY = {
    "observations": of_shape(1, 4) | of_shape(2, 4) | ANYTHING | st.dictionaries(
        st.sampled_from(["observation", "camera", "gears", "state/0", "state/1", "lamps"]), of_shape(1, 2) | ANYTHING
    ),
    "action_mask": of_shape(1, 2) | of_shape(2, 3) | ANYTHING,
    "sessions": st.lists(st.text(max_size=3), max_size=2) | ANYTHING,
    "state": of_shape(1, 2) | ANYTHING,
    "episode_start": st.lists(st.booleans(), max_size=2) | ANYTHING,
    "deterministic": st.booleans() | ANYTHING,
    "want_value": st.booleans(),
    "want_log_prob": st.booleans() | ANYTHING,
    "timeout_s": st.floats() | ANYTHING,
}  # fmt: skip


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["cartpole", "everything", "cartpole:1", "%F0%9F", "a%20b", ":", "cartpole:"]),
    body=st.fixed_dictionaries({}, optional=NEARLY) | ANYTHING,
)
def test_no_body_whatever_makes_a_fault_of_the_server(served, name, body):
    answer = served.act(name, json.dumps(body).encode())
    assert answer.status in (200, 400, 404, 422)
    assert is_valid(answer.json, "ActReply" if answer.status == 200 else "Error")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    headers=st.dictionaries(
        st.sampled_from(["Host", "Origin", "Authorization", "Content-Type"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    ),
    body=st.binary(max_size=40),
)
def test_no_request_whatever_makes_a_fault_of_the_server(served, method, path, headers, body):
    for target in (f"/{path}", f"/v1/policies/{path}/actions"):
        answer = served.ask(method, target, body, token=None, **headers)
        assert answer.status < 500


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=32), begin=st.integers(0, 160), end=st.integers(0, 160))
def test_no_damaged_tensors_make_a_fault_of_the_server(served, junk, begin, end):
    body = wire.write_tensor_request(ActRequest(observations={"observation": np.zeros((1, 4))}))
    damaged = body[:begin] + junk + body[max(begin, end) :]
    answer = served.act("cartpole", damaged, Content_Type=wire.TENSOR_FORM)
    assert answer.status in (200, 400, 422)


@pytest.mark.parametrize(
    "name", ["walker", "walker:3", "", ":3", "a:", "a:b", "a:3:4", "a:-1", "a: 3", "a:" + "9" * 18, "a:" + "9" * 19]
)
def test_names_of_policies_in_paths_are_those_that_are_read(name):
    (parameter,) = DOCUMENT["paths"]["/v1/policies/{name}/actions"]["post"]["parameters"]
    is_read = True
    try:
        requests.parse_name(name)
    except errors.BadRequest:
        is_read = False
    assert bool(re.search(parameter["schema"]["pattern"], name)) == is_read
