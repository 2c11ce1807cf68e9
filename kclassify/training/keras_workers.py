"""What Keras 3 lacks for `fit` on several workers (keras#20585), mended while it runs.

tests/training/test_keras_workers.py fails when a newer Keras no longer needs it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kclassify import runtime

runtime.prepare()

import tensorflow as tf  # noqa: E402
from keras import tree  # noqa: E402
from keras.src.backend.tensorflow import trainer as keras_trainer  # noqa: E402


@contextmanager
def mended(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Have Keras's `fit` work under a `MultiWorkerMirroredStrategy`, until the context ends."""
    kind = keras_trainer.TensorFlowTrainer
    build, reduce = kind._maybe_symbolic_build, keras_trainer.reduce_per_replica

    def first(value: Any) -> Any:
        return strategy.experimental_local_results(value)[0]

    def built_of_one(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        """Build by the batch of one replica: Keras averages those of all, integers among them."""
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = tree.map_structure(first, next(batches))
        build(self, data_batch=data_batch)

    def reduced(values: Any, on: Any, reduction: str) -> Any:
        """Take any replica's results: they are those of metrics, which are alike on all.

        Keras takes the mean over their first axis, which a scalar has not.
        """
        if reduction in ("auto", "mean"):
            return tree.map_structure(first, values)
        return reduce(values, on, reduction)

    kind._maybe_symbolic_build, keras_trainer.reduce_per_replica = built_of_one, reduced
    try:
        yield
    finally:
        kind._maybe_symbolic_build, keras_trainer.reduce_per_replica = build, reduce
