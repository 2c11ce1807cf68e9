"""Muon for convolutions (Jordan et al. 2024), on Keras's own Muon."""

import math

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402
from keras import ops  # noqa: E402


class ConvolutionMuon(keras.optimizers.Muon):
    """Orthogonalize the updates of convolution kernels; every other weight is Adam's.

    Keras's Muon takes matrices alone. Here a kernel ``(height, width, in, out)`` is the matrix of
    its ``out`` filters, and keeps the norm that it has, so that `learning_rate` is the share of a
    kernel that one step renews; the CIFAR-10 records (Jordan 2024) fix the norm at ``sqrt(out)``
    instead, which would rescale pretrained weights. Depthwise kernels, which have one filter a
    channel, are Adam's.
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4 or variable.shape[-1] == 1

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign(m, m * self.momentum + gradient)
        update = gradient + self.momentum * m if self.nesterov else m
        filters = variable.shape[-1]
        matrix = ops.reshape(update, (-1, filters))
        update = ops.reshape(self.zeropower_via_newtonschulz5(matrix, self.ns_steps), update.shape)
        norm = _norm(variable)
        moved = variable - lr * norm / math.sqrt(filters) * update
        self.assign(variable, moved * (norm / (_norm(moved) + self.epsilon)))


def _norm(kernel):
    return ops.norm(ops.reshape(kernel, (-1,)))
