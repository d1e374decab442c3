"""Wrong calls raise an error with the right keyword; valid calls are unchanged."""

import inspect
import pickle
import sys

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ArgumentError
from lowland.keywords import OTHER_NAMES, explain, hinted

NET = nn.Linear(2, 2)
DATA = [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))]


def surface():
    return ll.LossSurface(NET, ll.Classification(), DATA)


W = torch.zeros(6)
LAYOUT = ll.ParamLayout(NET)

WRONG = {
    "optimizer=lambda params: torch.optim.SGD(params, lr=": lambda: ll.sgd(
        NET, ll.Classification(), DATA, epochs=1, lr=0.1
    ),
    "write epochs= instead": lambda: ll.sgd(NET, ll.Classification(), DATA, n_epochs=1),
    "such as epochs=": lambda: ll.sgd(NET, ll.Classification(), DATA, 1),
    "'epochs'": lambda: ll.sgd(NET, ll.Classification(), DATA),
    "write batch_size= instead": lambda: ll.Batches((torch.ones(3),), bs=2),
    "Collector: missing a required argument: 'when'": lambda: ll.Collector(
        ll.SWA(surface().layout)
    ),
    "predict: there is no argument num_samples=; write samples=": lambda: ll.predict(
        surface(), W, num_samples=2
    ),
    "predict: expected 3 arguments by position": lambda: ll.predict(surface(), W, DATA, 5),
    "write strategy= instead": lambda: ll.predict(surface(), W, stratgy="vmap"),
    "write rank= instead": lambda: ll.SWAG(LAYOUT, max_num_models=2),
    "Subspace.random: there is no argument k=": lambda: ll.Subspace.random(W, k=2),
    "write bends= instead": lambda: ll.Bezier.between(W, W + 1, n_bends=2),
    "noise_variance=, the square of": lambda: ll.Regression(sigma=0.1),
    "write seed= instead": lambda: surface().evaluate(W[None], random_state=1),
    "write resolution= instead": lambda: ll.scan(
        ll.Plane(W, torch.eye(6)[0], torch.eye(6)[1]), surface(), grid_size=3
    ),
    "write batchnorm= instead": lambda: surface()(W, batchnrom="frozen"),
    "spro: there is no argument n_samples=; write samples=": lambda: ll.spro(
        surface(), W, n_samples=2
    ),
    "write warmup= instead": lambda: ll.infer(ll.Subspace.random(W, rank=2), surface(), burn_in=3),
    "tune_scale: there is no argument scale=; write scales= or": lambda: ll.tune_scale(
        surface(), ll.Gaussian(W, W + 1), DATA, scale=(1.0, 2.0)
    ),
    "predict: there is no argument bn=; write batchnorm=": lambda: ll.tune_scale(
        surface(), ll.Gaussian(W, W + 1), DATA, bn="frozen"
    ),
    "tempr": lambda: ll.infer(ll.Subspace.random(W, rank=2), surface(), tempr=3.0),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_call_is_an_error_with_the_right_keyword(message):
    with pytest.raises(ll.ConfigError) as caught:
        WRONG[message]()
    assert message in str(caught.value)
    assert isinstance(caught.value, TypeError)  # as in Python


def test_errors_inside_of_the_function_are_unchanged():
    with pytest.raises(TypeError, match="from the user") as caught:
        ll.sgd(
            NET, ll.Classification(), DATA, epochs=1,
            validate=lambda model: (_ for _ in ()).throw(TypeError("from the user")),
        )  # fmt: skip
    assert not isinstance(caught.value, ArgumentError)


def public():
    return [n for n in ll.__all__ if callable(getattr(ll, n))]


@pytest.mark.parametrize("name", public())
def test_signatures_documentation_and_pickles_survive(name):
    thing = getattr(ll, name)
    assert pickle.loads(pickle.dumps(thing)) is thing
    if inspect.isfunction(thing):
        assert inspect.signature(thing) == inspect.signature(inspect.unwrap(thing))
        assert thing is not inspect.unwrap(thing)
        assert getattr(sys.modules[thing.__module__], thing.__name__) is thing
        assert inspect.getsource(thing).lstrip().startswith(("def", "@"))


def test_every_name_of_the_table_is_an_argument_somewhere():
    arguments = set()
    for name in public():
        thing = getattr(ll, name)
        members = [thing, *(m for k, m in inspect.getmembers(thing, callable) if k[0] != "_")]
        for member in members:
            try:
                arguments |= set(inspect.signature(member).parameters)
            except (TypeError, ValueError):  # of C, or without a signature
                continue
    assert set(OTHER_NAMES) <= arguments


def test_a_valid_call_has_no_explanation():
    def function(a, *, b=1, **options):
        pass

    assert explain(function, (1,), {"c": 3}) is None
    assert "missing" in str(explain(function, (), {}))
    assert hinted(function)(1, c=3) is None
