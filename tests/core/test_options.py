"""Options of evaluations: their checks, overrides by a call, and an explicit plan."""

import pytest
import torch

import lowland as ll
from lowland.core.options import EvalKeywords, Plan
from lowland.evaluate import likelihood, planner
from lowland.keywords import collected_keywords
from tests.models import blobs, mlp

EXPLICIT = ll.EvalOptions(strategy="vmap", chunk=2, threads=1)


def surface(**options):
    torch.manual_seed(0)
    return ll.LossSurface(mlp(), ll.Classification(), blobs(), **options)


def weights(n=5):
    s = surface()
    noise = torch.randn(n, s.layout.size, generator=torch.Generator().manual_seed(1))
    return s.layout.flatten(s.template.module) + 0.1 * noise


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "fastest"),
        ("batchnorm", "fresh"),
        ("chunk", 0),
        ("count", -1),
        ("threads", 1.5),
        ("threads", 10**6),
    ],
)
def test_errors_contain_the_wrong_value(field, value):
    with pytest.raises(ll.ConfigError, match=field):
        ll.EvalOptions(**{field: value})


def test_a_keyword_replaces_its_field_and_none_changes_nothing():
    options = ll.EvalOptions(batchnorm="frozen", chunk=3)
    assert options.override() is options
    assert options.override(batchnorm=None, chunk=None) is options
    assert options.override(chunk=4) == ll.EvalOptions(batchnorm="frozen", chunk=4)
    assert options.override(options=EXPLICIT, chunk=7).plan == Plan("vmap", 7, 1)
    with pytest.raises(ll.ConfigError, match="expected EvalOptions, got dict"):
        options.override(options={"chunk": 1})


def test_the_keywords_are_the_fields():
    fields = set(ll.EvalOptions.__dataclass_fields__)
    assert set(EvalKeywords.__annotations__) == fields | {"options"}
    for function in (ll.predict, ll.evaluate.evaluate, ll.scan, ll.path, ll.infer, ll.barrier):
        assert set(collected_keywords(function)) == fields | {"options"}


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({}, None),
        ({"strategy": "vmap", "chunk": 4}, None),
        ({"strategy": "vmap", "threads": 1}, None),
        ({"chunk": 4, "threads": 1}, None),
        ({"strategy": "points", "threads": 2}, Plan("points", 1, 2)),
        ({"strategy": "batches", "chunk": 4, "threads": 2}, Plan("batches", 4, 2)),
    ],
)
def test_a_plan_is_explicit_when_it_is_complete(options, plan):
    assert ll.EvalOptions(**options).plan == plan


def test_a_surface_has_defaults_which_a_call_overrides():
    plain, other = surface(), surface(options=ll.EvalOptions(strategy="vmap", chunk=2))
    w = weights()
    assert torch.equal(other.evaluate(w).loss, plain.evaluate(w, strategy="vmap", chunk=2).loss)
    one = other.evaluate(w, options=ll.EvalOptions(strategy="points"))
    assert torch.equal(one.loss, plain.evaluate(w, strategy="points").loss)
    with pytest.raises(ll.ConfigError, match="count=2 belongs to one call"):
        surface(options=ll.EvalOptions(count=2))


def calls(s):
    """All planned evaluations, with the options of the surface."""
    w = weights()
    plane = ll.Plane.through(*w[:3])
    chain = {"chains": 4, "samples": 2, "warmup": 3}
    yield "predict", lambda: ll.predict(s, w).probs
    yield "evaluate", lambda: s.evaluate(w).loss
    yield "log densities", lambda: ll.LogLikelihood(s)(w)
    yield "path", lambda: ll.path(ll.Line(w[0], w[1]), s, points=5).loss
    yield "scan", lambda: ll.scan(plane, s, resolution=3).loss
    yield "ternary", lambda: ll.ternary(ll.Simplex(list(w[:3])), s, resolution=3).loss
    yield "similarity", lambda: ll.similarity(s, w).disagreement
    yield "infer", lambda: ll.infer(plane, s, **chain).coords
    yield (
        "tune",
        lambda: (
            ll.tune_temperature(
                plane, s, blobs(), temperatures=[1.0, 9.0], chains=4, samples=2, warmup=3
            ).nll
        ),
    )
    yield "scale", lambda: ll.tune_scale(s, ll.Gaussian(w[0], w[1] ** 2), blobs())[1].nll


NAMES = [name for name, _ in calls(None)]


@pytest.mark.filterwarnings("ignore:the chains disagree")
@pytest.mark.parametrize("name", NAMES)
def test_an_explicit_plan_is_followed_and_nothing_is_timed(name, monkeypatch):
    for room in (planner, likelihood):
        monkeypatch.setattr(room, "time_plan", lambda *a, **k: pytest.fail("timed"))
    first, again = (dict(calls(surface(options=EXPLICIT)))[name]() for _ in range(2))
    assert torch.equal(first, again)


def test_an_explicit_plan_overrides_a_saved_one():
    s = surface()
    timed = ll.LogLikelihood(s, strategy="points")
    timed(weights())
    explicit = ll.LogLikelihood(s, options=EXPLICIT)
    explicit.load_state_dict(timed.state_dict())
    assert torch.equal(explicit(weights()), ll.LogLikelihood(s, options=EXPLICIT)(weights()))
    assert explicit._plan_for(5) == EXPLICIT.plan
