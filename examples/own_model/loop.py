"""SWAG in your own training loop: any optimizer, mixed precision, gradient accumulation."""

from __future__ import annotations

import project
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import lowland as ll

EPOCHS, ACCUMULATE = 30, 2


def loader(split: dict[str, torch.Tensor], *, shuffle: bool) -> DataLoader:
    """Batches (means, rest, labels): two inputs of the model, and the target."""
    return DataLoader(TensorDataset(*split.values()), batch_size=32, shuffle=shuffle)


def main() -> None:
    """Trains a network and averages the iterates of the last quarter."""
    torch.manual_seed(0)
    splits = project.data()
    train = loader(splits["train"], shuffle=True)
    model = project.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    swag = ll.SWAG(ll.ParamLayout(model), rank=5)

    for epoch in range(EPOCHS):
        for i, (means, rest, labels) in enumerate(train):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(means, rest)
            loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
            (loss / ACCUMULATE).backward()
            if (i + 1) % ACCUMULATE == 0:
                optimizer.step()
                optimizer.zero_grad()
        if epoch >= 0.75 * EPOCHS:
            swag.update(model)

    surface = ll.LossSurface(model, ll.Classification(), loader(splits["train"], shuffle=False))
    test = loader(splits["test"], shuffle=False)
    for name, post in [("last iterate", surface.layout.flatten(model)), ("SWAG", swag.posterior())]:
        print(name, ll.predict(surface, post, test).metrics())


if __name__ == "__main__":
    main()
