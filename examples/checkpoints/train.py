"""A training script without averages: it saves a checkpoint after each epoch."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from lowland.train import Batches
from lowland.zoo import ConvNet, digits

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
torch.manual_seed(0)
torch.set_num_threads(1)  # the network is tiny
model = ConvNet(channels=1, widths=[16, 32], classes=10)
data = digits(train=0.2, validation=0.2, shift=2, seed=0)
batches = Batches(data["train"], batch_size=32, seed=0, transform=data["transform"])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
Path("run").mkdir(exist_ok=True)
for epoch in range(1, epochs + 1):
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    save_file(model.state_dict(), f"run/epoch-{epoch}.safetensors")
