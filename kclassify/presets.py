"""Named recipes: each lists only its differences from the defaults of `FitConfig`.

The README's results table has what was measured of each, and says which were not.
"""

from typing import Any

# From the quickest; what preset="auto" chooses among.
SIZES = ("fast", "accurate", "hour", "best")

# What the recipes after the CIFAR-10 speed records (Jordan 2024) share.
_RECORD: dict[str, Any] = {
    "model": "fastnet",
    "optimizer": "muon",
    "learning_rate": 0.12,
    "batch_size": 500,
    "warmup": 0.0,
    "weight_decay": 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Minutes of CIFAR-10 on two CPU cores.
    "fast": {
        **_RECORD,
        "model_args": {"filters": [32, 64, 128]},
        "epochs": 6,
        "progressive": (0.5, 0.75, 1.0),
        "skip_learned": 0.3,
    },
    # Widths of the CIFAR-10 record with Muon; as many epochs as take 0.8 of its time here.
    "accurate": {
        **_RECORD,
        "model_args": {"filters": [64, 256, 256]},
        "epochs": 20,
        "progressive": (0.5, 0.75, 1.0),
    },
    # What two CPU cores with bfloat16 units learn of CIFAR-10 in an hour.
    "hour": {
        **_RECORD,
        "model_args": {"filters": [128, 384, 384]},
        "epochs": 20,
        "progressive": (0.5, 0.75, 1.0),
    },
    # Wider and longer, for a GPU; not measured yet.
    "best": {**_RECORD, "model_args": {"filters": [128, 384, 512]}, "epochs": 40},
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
        # Nor do 16 bits help arithmetic of that size.
        "mixed_precision": False,
    },
    # 8x8 grey digits: small batches since there are few images, and never mirrored.
    "digits": {
        "model_args": {"filters": 32, "depth": 2},
        "batch_size": 32,
        "epochs": 30,
        "augmentation": "crop",
    },
}
