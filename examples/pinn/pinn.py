"""The loss surface of a physics-informed network: u_t + c u_x = 0, at a low and a high speed."""

from __future__ import annotations

import math

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import lowland as ll

SPEEDS = (1.0, 30.0)
EPOCHS = 1500
CONSTANT = 0.5 * math.log(
    2 * math.pi
)  # of the likelihood; the rest of the loss is half the mean square


class Transport(nn.Module):
    """Returns u at points of the initial condition, and u_t + c u_x at all other points."""

    def __init__(self, speed: float, width: int = 24) -> None:
        super().__init__()
        self.speed = speed
        self.net = nn.Sequential(
            nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def u(self, place: Tensor) -> Tensor:
        """The solution at points (x, t), periodic in x."""
        x, t = place.split(1, dim=1)
        return self.net(torch.cat([x.sin(), x.cos(), t], 1))

    def forward(self, place: Tensor, initial: Tensor) -> Tensor:
        place = place.detach().requires_grad_()
        u = self.u(place)
        (slopes,) = torch.autograd.grad(u.sum(), place, create_graph=True)
        return torch.where(initial, u, slopes[:, 1:] + self.speed * slopes[:, :1])


def points(n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Points (x, t) in [0, 2 pi] x [0, 1], a mask of initial points, and targets: sin x at initial
    points, a residual of zero at all others."""
    place = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    place[:, 0] *= 2 * torch.pi
    initial = torch.arange(n)[:, None] < n // 4
    place[initial[:, 0], 1] = 0.0
    return place, initial, torch.where(initial, place[:, :1].sin(), 0.0)


def train(speed: float, data: tuple[Tensor, ...]) -> tuple[ll.LossSurface, Tensor]:
    """The surface of a network for this speed, and its weights, trained by Adam."""
    torch.manual_seed(0)
    model = Transport(speed)
    task = ll.Regression(noise_variance=1.0)
    ll.sgd(
        model,
        task,
        ll.Batches(data, batch_size=len(data[0])),
        epochs=EPOCHS,
        optimizer=lambda params: torch.optim.Adam(params, lr=3e-3),
        schedule=lambda optimizer: ll.DecaySchedule(optimizer, total=EPOCHS),
    )
    surface = ll.LossSurface(model, task, [data])
    w = surface.layout.flatten(model)
    place = torch.cartesian_prod(torch.linspace(0, 2 * torch.pi, 50), torch.linspace(0, 1, 50))
    exact = torch.sin(place[:, :1] - speed * place[:, 1:])
    with torch.no_grad():
        error = float((model.u(place) - exact).norm() / exact.norm())
    print(f"speed {speed:g}: loss {surface(w) - CONSTANT:.1e}, relative error of u {error:.3f}")
    return surface, w


def main() -> None:
    """Trains both networks and plots each surface along the two directions of largest curvature."""
    data = points()
    _, axes = plt.subplots(1, len(SPEEDS), figsize=(10, 4), layout="constrained", sharey=True)
    for ax, speed in zip(axes, SPEEDS, strict=True):
        surface, w = train(speed, data)
        top = ll.Subspace.hessian(surface, w, rank=2)
        print(f"  largest eigenvalues: {', '.join(f'{v:.0f}' for v in top.eigenvalues)}")
        plane = ll.scan(top, surface, resolution=31, bounds=((-0.5, 0.5), (-0.5, 0.5)))
        height = (plane.loss - CONSTANT).log10()
        contours = ax.contourf(plane.x, plane.y, height, levels=torch.linspace(-6, 3, 19).tolist())
        ax.set(title=f"speed {speed:g}", xlabel="along the first eigenvector", aspect="equal")
    axes[0].set_ylabel("along the second")
    plt.colorbar(contours, ax=axes, label="log10 of half the mean squared residual")
    plt.savefig("pinn.png", dpi=120)


if __name__ == "__main__":
    main()
