"""The networks of the training benchmarks: in stock Keras, in PyTorch, and for `kclassify.fit`.

Each has the same layers in all three. `conv289` is 32-32-pool-64-64-pool-128-128-average-dense
with batch norm and ReLU; `resnet20` is that of He et al. 2016 for CIFAR-10, with shortcuts of 1x1
convolutions, and `resnet8` the same with a block where that has three.
"""

SHAPE, CLASSES = (32, 32, 3), 10
NAMES = ("conv289", "resnet20")
# As Keras counts, moving statistics included; and the multiply-accumulates of one image.
PARAMETERS = {"conv289": 289_642, "resnet20": 274_042}
MACS = {"conv289": 38_634_752, "resnet20": 40_813_184}
# The model and its arguments, as `FitConfig` takes them; see `register`.
KCLASSIFY = {"conv289": ("conv289", {}), "resnet20": ("resnet", {"depth": 20})}


def keras_network(name: str):
    """Return the network of float images in stock Keras."""
    import keras

    inputs = keras.Input(SHAPE)
    if name == "conv289":
        x = _keras_conv289(inputs)
    else:
        x = _keras_resnet(inputs, blocks={"resnet8": 1, "resnet20": 3}[name])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))


def _keras_conv289(x):
    import keras

    for width in (32, 64, 128):
        if width > 32:
            x = keras.layers.MaxPooling2D()(x)
        for _ in range(2):
            x = keras.layers.ReLU()(_keras_conv_norm(x, width))
    return x


def _keras_resnet(x, *, blocks):
    import keras

    x = keras.layers.ReLU()(_keras_conv_norm(x, 16))
    for width in (16, 32, 64):
        for block in range(blocks):
            strides = 2 if width > 16 and not block else 1
            shortcut = x if strides == 1 else _keras_conv_norm(x, width, size=1, strides=2)
            x = keras.layers.ReLU()(_keras_conv_norm(x, width, strides=strides))
            x = keras.layers.Add()([_keras_conv_norm(x, width), shortcut])
            x = keras.layers.ReLU()(x)
    return x


def _keras_conv_norm(x, width, *, size=3, strides=1):
    import keras

    options = {"strides": strides, "padding": "same", "use_bias": False}
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(width, size, **options)(x))


def torch_network(name: str):
    """Return the network in PyTorch, channels last."""
    import torch

    body, width = {"conv289": _torch_conv289, "resnet20": _torch_resnet20}[name]()
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, CLASSES)]
    return torch.nn.Sequential(*body, *head).to(memory_format=torch.channels_last)


def torch_tutorial():
    """Return the network of PyTorch's CIFAR-10 tutorial, as it is written there."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x):
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            x = torch.flatten(x, 1)
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
            return self.fc3(x)

    return Net()


def _torch_conv289():
    from torch import nn

    layers, before = [], SHAPE[2]
    for width in (32, 64, 128):
        layers += [nn.MaxPool2d(2)] if width > 32 else []
        layers += [*_torch_conv_norm(before, width), nn.ReLU()]
        layers += [*_torch_conv_norm(width, width), nn.ReLU()]
        before = width
    return layers, before


def _torch_resnet20():
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before, width, strides):
            super().__init__()
            first, second = _torch_conv_norm(before, width, strides=strides), []
            self.body = nn.Sequential(*first, nn.ReLU(), *_torch_conv_norm(width, width))
            if strides > 1:
                second = _torch_conv_norm(before, width, size=1, strides=strides)
            self.shortcut = nn.Sequential(*second)

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    layers, before = [*_torch_conv_norm(SHAPE[2], 16), nn.ReLU()], 16
    for width in (16, 32, 64):
        layers.append(Block(before, width, 2 if width > 16 else 1))
        layers += [Block(width, width, 1) for _ in range(2)]
        before = width
    return layers, before


def _torch_conv_norm(before, width, *, size=3, strides=1):
    from torch import nn

    options = {"stride": strides, "padding": size // 2, "bias": False}
    return nn.Conv2d(before, width, size, **options), nn.BatchNorm2d(width)


def register() -> None:
    """Make `conv289` known to `kclassify.fit`, whose own convnet pools elsewhere."""
    from kclassify.models.registry import MODELS, Model

    MODELS["conv289"] = Model("networks:conv289", arguments=(), description="the benchmark's")


def conv289(input_shape, num_classes):
    """Build the network of kclassify's own pieces."""
    import keras

    from kclassify.models import blocks

    style = blocks.Style()
    inputs, x = blocks.image_inputs(input_shape)
    for width in (32, 64, 128):
        x = keras.layers.MaxPooling2D()(x) if width > 32 else x
        x = blocks.conv_norm_act(blocks.conv_norm_act(x, width, style), width, style)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, blocks.logits(x, num_classes))
