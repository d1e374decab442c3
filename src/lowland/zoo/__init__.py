"""Networks and data for studies, examples and the demo."""

from lowland.zoo.cifar import cifar10, cifar100
from lowland.zoo.class_subset import class_subset
from lowland.zoo.convfc import ConvFC
from lowland.zoo.convnet import ConvNet
from lowland.zoo.digits import digits
from lowland.zoo.folder import image_folder
from lowland.zoo.images import ImageLoader, Prepare
from lowland.zoo.mlp import MLP
from lowland.zoo.preresnet import PreResNet
from lowland.zoo.regression1d import Regression1dNet, regression1d
from lowland.zoo.resize_to_match import resize_to_match
from lowland.zoo.spirals import spirals
from lowland.zoo.tensors import tensors
from lowland.zoo.uci import uci, uci_net
from lowland.zoo.vgg import VGG16
from lowland.zoo.wideresnet import WideResNet

__all__ = [
    "MLP",
    "VGG16",
    "ConvFC",
    "ConvNet",
    "ImageLoader",
    "PreResNet",
    "Prepare",
    "Regression1dNet",
    "WideResNet",
    "cifar10",
    "cifar100",
    "class_subset",
    "digits",
    "image_folder",
    "regression1d",
    "resize_to_match",
    "spirals",
    "tensors",
    "uci",
    "uci_net",
]
