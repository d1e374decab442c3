"""Networks and data for studies, examples and the demo."""

from lowland.zoo.convnet import ConvNet
from lowland.zoo.digits import digits

__all__ = ["ConvNet", "digits"]
