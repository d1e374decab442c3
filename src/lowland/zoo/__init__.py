"""Networks and data for studies, examples and the demo."""

from lowland.zoo.convnet import ConvNet
from lowland.zoo.digits import digits
from lowland.zoo.uci import uci, uci_net

__all__ = ["ConvNet", "digits", "uci", "uci_net"]
