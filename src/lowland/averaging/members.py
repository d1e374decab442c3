"""The networks that are averaged or compared, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lowland.core import LossSurface, Point
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError
from lowland.evaluate.weights import as_posterior
from lowland.trajectory import Trajectory
from lowland.trajectory.journal import JOURNAL


class MemberPoints(Sequence[Point]):
    """M networks of one surface, each read, checked and put on its device when it is indexed.

    Attributes:
        names: of the members.
    """

    def __init__(
        self, surface: LossSurface, read: Callable[[int], Any], names: Sequence[str]
    ) -> None:
        self.surface, self.names = surface, list(names)
        self._read = read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(len(self))[index]
            read = lambda i: self._read(places[i])  # noqa: E731
            return MemberPoints(self.surface, read, self.names[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of {len(self)}")
        index %= len(self)
        try:
            return _point(self.surface, self._read(index))
        except (NonFiniteError, LayoutError) as error:
            raise type(error)(f"member {self.names[index]}: {error}") from None

    def __iter__(self) -> Iterator[Point]:
        return (self[i] for i in range(len(self)))


def read_members(surface: LossSurface, members: Any) -> MemberPoints:
    """The members of a call, in order; those on disk are read when they are needed.

    Args:
        members: a `Trajectory`, checkpoint files, a pattern or a folder of them, a posterior with
            finitely many members, (M, P), an iterable of (P,), `Point`s, averages such as `SWA`,
            models or state dicts, or a dict of these by name.

    Raises:
        ConfigError: no member, a posterior with infinitely many. DataError: anything else.
            Reading a member raises LayoutError for weights of another model and NonFiniteError for
            NaN or infinite weights; both name it.

    >>> import torch
    >>> from lowland.core import Classification
    >>> surface = LossSurface(nn.Linear(1, 2, bias=False), Classification())
    >>> points = read_members(surface, {"a": torch.zeros(2), "b": torch.ones(2)})
    >>> points.names, points[1].weights
    (['a', 'b'], tensor([1., 1.]))
    """
    names = None
    if isinstance(members, Mapping):
        names, members = list(map(str, members)), list(members.values())
    members = stored_members(surface, members)
    if isinstance(members, Trajectory):
        names = names or [f"step {step}" for step in members.steps]
        return _checked(MemberPoints(surface, members.__getitem__, names))
    if isinstance(members, Point | nn.Module) or (isinstance(members, Tensor) and members.ndim < 2):
        raise DataError(
            "members: expected several networks, got one; give a list of them, or a dict of names."
        )
    posterior = as_posterior(members)
    if posterior is not None:
        if posterior.support is None:
            raise ConfigError(
                f"members: a {type(posterior).__name__} has no members; draw some, as in "
                "post.sample(8)."
            )
        names = names or list(map(str, range(posterior.support)))
        return _checked(MemberPoints(surface, posterior.point, names))
    if not isinstance(members, Iterable):
        raise DataError(
            "members: expected a Trajectory, checkpoint files, (M, P) or an iterable of networks, "
            f"got {type(members).__name__}."
        )
    several = list(members)
    names = names or list(map(str, range(len(several))))
    return _checked(MemberPoints(surface, several.__getitem__, names))


def stored_members(surface: LossSurface, members: Any) -> Any:
    """The members; those of files as a `Trajectory`."""
    paths = [members] if isinstance(members, str | os.PathLike) else members
    is_path = isinstance(paths, list | tuple) and [isinstance(p, str | os.PathLike) for p in paths]
    if not (is_path and all(is_path)):
        return members
    if len(paths) == 1 and (Path(paths[0]) / JOURNAL).is_file():
        return Trajectory.open(paths[0], layout=surface.layout)
    return Trajectory.from_checkpoints(paths, surface.layout)


def _checked(members: MemberPoints) -> MemberPoints:
    if not members:
        raise ConfigError("members: expected at least one network, got none.")
    return members


def _point(surface: LossSurface, member: Any) -> Point:
    """A network as a point of the surface."""
    if isinstance(member, Mapping):
        state = surface.layout.state_of(member)
        return surface.point(Point(surface.layout.flatten(member), dict(state)))
    if not isinstance(member, Point | Tensor | nn.Module):
        posterior = as_posterior(member)
        if posterior is None or posterior.support != 1:
            raise LayoutError(
                f"expected weights (P,), a Point, a model or a state dict, got "
                f"{type(member).__name__}."
            )
        member = posterior.point(0)
    return surface.point(member)
