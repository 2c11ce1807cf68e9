"""Muon for convolutions (Jordan et al. 2024), on Keras's own Muon."""

import math

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402
from keras import ops  # noqa: E402


class ConvolutionMuon(keras.optimizers.Muon):
    """Orthogonalize the updates of convolution kernels; every other weight is Adam's.

    Keras's Muon takes matrices alone. Here a kernel ``(height, width, in, out)`` is the matrix of
    its ``out`` filters, and is kept at the norm ``sqrt(out)`` (as in the CIFAR-10 records, Jordan
    2024), so that `learning_rate` is the share of a kernel that one step renews.
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign(m, m * self.momentum + gradient)
        update = gradient + self.momentum * m if self.nesterov else m
        filters = variable.shape[-1]
        matrix = ops.reshape(update, (-1, filters))
        update = ops.reshape(self.zeropower_via_newtonschulz5(matrix, self.ns_steps), update.shape)
        norm = ops.norm(ops.reshape(variable, (-1,))) + self.epsilon
        self.assign(variable, variable * (math.sqrt(filters) / norm) - lr * update)
