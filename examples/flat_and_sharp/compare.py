"""Is the minimum of small batches flatter? Two classifiers of digits, trained to the same loss."""

import copy

import torch
import torch.nn.functional as F

import lowland as ll
from lowland import plots
from lowland.records import Table
from lowland.zoo import MLP, digits

TARGET, MOST_EPOCHS = 0.03, 1000  # training ends at this training loss
LRS = {32: 0.05, 600: 0.1}  # by the size of a batch


def train(model, data, batch_size):
    """Trains in place by SGD with momentum; returns the number of epochs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LRS[batch_size], momentum=0.9)
    batches = ll.Batches(data, batch_size=batch_size, seed=0)
    inputs, labels = data
    for epoch in range(1, MOST_EPOCHS + 1):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            if F.cross_entropy(model(inputs), labels) <= TARGET:
                return epoch
    return MOST_EPOCHS


def main():
    """Prints a table, and writes two pictures."""
    torch.set_num_threads(1)  # the networks are tiny
    data = digits()
    torch.manual_seed(0)
    start = MLP(inputs=64, outputs=10, widths=(64, 64))
    surface = ll.LossSurface(start, ll.Classification(), [data["train"]])
    test = [data["test"]]
    rows, points, widths = [], [], {}
    for batch_size in LRS:
        name = f"batches of {batch_size}"
        model = copy.deepcopy(start)
        epochs = train(model, data["train"], batch_size)
        w = surface.point(model)
        keskar, sam, adaptive, average = (
            ll.sharpness(surface, w, kind=kind) for kind in ("keskar", "sam", "adaptive", "average")
        )
        spectrum = ll.spectrum(surface, w, top=1, probes=0)
        widths[name] = ll.widths(surface, w)
        metrics = ll.predict(surface, w, test).metrics()
        rows.append(
            {
                "network": name,
                "epochs": str(epochs),
                "loss": keskar.loss,
                "test_error": 1 - metrics["accuracy"],
                "gradient_norm": keskar.gradient_norm,
                "keskar": float(keskar),
                "sam": float(sam),
                "adaptive": float(adaptive),
                "average": float(average),
                "eigenvalue": float(spectrum.eigenvalues),
                "width": float(widths[name].width.median()),
            }
        )
        points.append(w)
    print(Table.from_rows(rows))
    line = ll.path(ll.Line(*points), surface, t=torch.linspace(-1, 2, 61), loader=test)
    plots.save(plots.interpolation(line, ends=tuple(widths)), "line.png", dpi=110)
    plots.save(plots.widths(widths), "rays.png", dpi=110)


if __name__ == "__main__":
    main()
