"""The package imports its rooms when their names are used, and no sooner."""

import subprocess
import sys

import pytest

import lowland as ll
from lowland.lazy import lazy_imports


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_rooms_are_imported_when_they_are_used():
    assert run("import lowland, sys; print('torch' in sys.modules)") == "False"
    code = "import lowland as ll, sys; ll.SWAG; print('lowland.curvature' in sys.modules)"
    assert run(code) == "False"
    assert run("import lowland as ll; print(ll.plots.__name__, ll.core.layout.__name__)") == (
        "lowland.plots lowland.core.layout"
    )


def test_every_public_name_is_there():
    for name in ll.__all__:
        assert getattr(ll, name) is not None
    assert {*ll.__all__, "__version__"} == {*dir(ll)}
    code = "from lowland import *; import lowland; print({*lowland.__all__} <= {*globals()})"
    assert run(code) == "True"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'lowland' has no attribute 'SWAGG'"):
        ll.SWAGG  # noqa: B018
    assert not hasattr(ll, "__wrapped__")


@pytest.mark.parametrize(
    "first", ["ll.sgd", "import lowland.train", "from lowland.train import sgd"]
)
def test_wrong_calls_are_explained_however_a_function_was_imported(first):
    code = f"""
import lowland as ll
{first}
ll.LossSurface
from lowland.train import sgd
try:
    (sgd if "from" in {first!r} else ll.sgd)(None, None, None, n_epochs=3)
except TypeError as error:
    print(error)
"""
    assert run(code) == "sgd: there is no argument n_epochs=; write epochs= instead."


def test_imports_are_read_from_the_source():
    source = (
        "import os\nif not _LAZY:\n    from lowland.core import Point\nif x:\n    from y import z"
    )
    assert lazy_imports(source) == {"Point": "lowland.core"}
