"""A plane over a bowl, plain and with all that is drawn over one."""

import torch

from lowland.records import SurfaceResult

X, Y = torch.linspace(-3, 3, 25).double(), torch.linspace(-2, 2, 17).double()
BOWL = 0.1 + X**2 + Y[:, None] ** 2  # from 0.1 to 13.1


def bowl(loss=BOWL, **options):
    about = {"orthonormal": True, "split": "training"}
    return SurfaceResult(X, Y, {"loss": loss, "error": 0.01 * BOWL}, about=about, **options)


def drawn_over():
    t = torch.linspace(0, 1, 40).double()
    path = torch.stack([3 - 3 * t, 2 * (1 - t) ** 2], 1)
    return bowl(
        examples=4096,
        marks={"SGD 1": path[0] / 2, "SGD 2": torch.zeros(2), "bend": torch.tensor([-1.0, 1.0])},
        curves={"chord": torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), "Bezier": path},
        paths={"SGD": {"coords": path, "residual": 3.2 + 1.9 * t}},
    )
