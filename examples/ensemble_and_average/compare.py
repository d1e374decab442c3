"""Does an average of weights predict as the ensemble of its members? Two networks on digits."""

import copy
import tempfile
from pathlib import Path

import torch

import lowland as ll
from lowland import plots
from lowland.records import Table
from lowland.zoo import MLP, ConvNet, digits

EPOCHS, MEMBERS, BATCH = 15, 10, 32
LR = 0.1  # at first, and at the ends of FGE's cycles
LOW = 0.001  # in mid-cycle
CONSTANT = 0.05
SCALES = [2.0**-k for k in range(1, 6)]
# in float64: rounding in float32 hides the differences at small scales
NETWORKS = {
    "MLP, tanh": lambda: MLP(inputs=64, outputs=10, widths=(64, 64), activation="tanh").double(),
    "ConvNet, ReLU": lambda: ConvNet(channels=1, widths=(16, 32), classes=10).double(),
}


def train(model, batches, epochs, lr, schedule, *collectors):
    """SGD with momentum and weight decay, in place."""
    ll.sgd(
        model,
        ll.Classification(),
        batches,
        epochs=epochs,
        collectors=collectors,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=5e-4),
        schedule=schedule,
    )


def iterates(model, batches, kind, folder):
    """An iterate an epoch: FGE's in mid-cycle, or after each epoch at a constant learning rate."""
    trajectory = ll.Trajectory.create(folder, ll.ParamLayout(model))
    model, steps = copy.deepcopy(model), len(batches)
    lr, when, schedule = CONSTANT, ll.Every(steps), ll.ConstantSchedule
    if kind == "FGE":
        lr, cycle = LR, steps - steps % 2
        when = ll.MidCycle(cycle)
        schedule = lambda optimizer: ll.CyclicalSchedule(optimizer, cycle=cycle, high=LR, low=LOW)  # noqa: E731
    train(model, batches, MEMBERS, lr, schedule, ll.Collector(trajectory, when=when))
    return trajectory


def main():
    """Prints a table, and writes a picture."""
    torch.set_num_threads(1)  # the networks are tiny
    data = digits()
    train_data, test_data = ((x.double(), y) for x, y in (data["train"], data["test"]))
    test_loader = [test_data]
    rows, pictures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETWORKS.items():
            torch.manual_seed(0)
            model, batches = make(), ll.Batches(train_data, batch_size=BATCH, seed=0)
            surface = ll.LossSurface(model, ll.Classification(), [train_data])
            train(model, batches, EPOCHS, LR, ll.ConstantSchedule)
            for kind in ("FGE", "constant"):
                trajectory = iterates(model, batches, kind, Path(folder, f"{name} {kind}"))
                record = ll.linearization(surface, trajectory, loader=test_loader, scales=SCALES)
                pictures[f"{name}, {kind}"] = record
                members = surface.evaluate(trajectory, test_loader)
                average = ll.predict(surface, trajectory.average(), test_loader).metrics()
                ensemble = ll.predict(surface, trajectory.ensemble(), test_loader).metrics()
                rows.append(
                    {
                        "network": name,
                        "members": kind,
                        "distance": float(record.distance.mean()),
                        "consecutive": float(record.consecutive[0].mean()),
                        "ensemble": float(record.ensemble[0].mean()),
                        "slope": record.slopes["ensemble"],
                        "nll_members": float(members.nll.mean()),
                        "nll_ensemble": ensemble["nll"],
                        "nll_average": average["nll"],
                    }
                )
    print(Table.from_rows(rows))
    print(pictures["MLP, tanh, FGE"].table)
    draw(pictures)


def draw(pictures):
    """The differences of predictions against the scale, a panel a case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    for ax, (name, record) in zip(figure.subplots(2, 2).flat, pictures.items(), strict=True):
        record.plot(ax=ax)
        ax.set_title(name)
    plots.save(figure, "ensemble-and-average.png", dpi=100)


if __name__ == "__main__":
    main()
