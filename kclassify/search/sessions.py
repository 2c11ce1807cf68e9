"""Sessions that are used again: a trial does not compile what the one before has compiled."""

import gc
import json
from dataclasses import replace

from kclassify import runtime
from kclassify.config import MIXING, FitConfig
from kclassify.data.spec import Source

runtime.prepare()

from kclassify.training.dials import turn_dials  # noqa: E402
from kclassify.training.session import Session, build_session  # noqa: E402
from kclassify.training.state import Arrays, model_arrays, set_model_arrays  # noqa: E402
from kclassify.training.time_budget import measure_pace  # noqa: E402

# What the graph of a step is made from; another value of anything else runs the same graph.
STRUCTURE = (
    "model", "model_args", "batch_size", "optimizer", "schedule", "loss", "class_weights",
    "progressive", "skip_learned", "ema", "gradient_clip", "weight_clip", "mixed_precision",
    "device", "deterministic",
)  # fmt: skip


def structure(config: FitConfig, *, soft: bool) -> str:
    """Return a text that is the same for configurations whose steps have the same graph."""
    values = config.to_json()
    parts = {name: values[name] for name in STRUCTURE}
    return json.dumps([parts, config.weight_decay > 0, soft], sort_keys=True)


class Sessions:
    """The sessions of one source.

    Args:
        source: the data, prepared.
        most: how many are kept; each holds a network, an optimizer and a compiled graph.
    """

    def __init__(self, source: Source, *, most: int = 2):
        self.source = source
        self.most = most
        self._kept: dict[str, Session] = {}
        # The state before the first step, by structure and seed.
        self._initial: dict[tuple[str, int], Arrays] = {}
        self._pace: dict[str, tuple[float, ...]] = {}

    def get(self, config: FitConfig) -> Session:
        """Return a session that is as `build_session` would return it."""
        key = self._key(config)
        session = self._kept.pop(key, None)
        if session is None:
            self._make_room()
            session = build_session(self.source, config)
            self._initial[key, config.seed] = model_arrays(session.model)
        elif (key, config.seed) not in self._initial:
            other = build_session(self.source, config)
            self._initial[key, config.seed] = model_arrays(other.model)
        # The last one that was used is the last one to go.
        self._kept[key] = session
        set_model_arrays(session.model, self._initial[key, config.seed])
        turn_dials(session.dials, config)
        session.schedule.set_total_steps(session.steps * config.epochs)
        session.model.stop_training = False
        return replace(session, config=config)

    def pace(self, config: FitConfig, *, seconds: float) -> tuple[float, ...]:
        """Return the seconds of a step at each size of the images, measured once."""
        key = self._key(config)
        if key not in self._pace:
            self._pace[key] = measure_pace(self.get(config), self.source, seconds=seconds)
        return self._pace[key]

    def _key(self, config: FitConfig) -> str:
        return structure(config, soft=config.augmentation in MIXING)

    def _make_room(self) -> None:
        while len(self._kept) >= self.most:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._initial = {key: value for key, value in self._initial.items()
                             if key[0] != oldest}  # fmt: skip
        gc.collect()
