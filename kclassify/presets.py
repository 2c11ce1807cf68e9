"""Named recipes: each lists only its differences from the defaults of `FitConfig`.

The measured result of each stands in the README's results table.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Ten minutes of CIFAR-10 on two CPU cores.
    "fast": {"model_args": {"filters": [32, 96, 192], "whitening": True}},
    # The recipe of PyTorch's CIFAR-10 tutorial, for comparison with what people start from.
    "tutorial": {
        "model": "lenet",
        "optimizer": "momentum",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "batch_size": 4,
        "epochs": 2,
        "augmentation": "none",
        # Two threads take longer than one to share the work of four small images.
        "threads": 1,
    },
    # 8x8 grey digits: small batches since there are few images, and never mirrored.
    "digits": {
        "model_args": {"filters": 32, "depth": 2},
        "batch_size": 32,
        "epochs": 30,
        "augmentation": "crop",
    },
}
