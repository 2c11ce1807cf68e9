"""The images that a run is measured on: its own, loaded and split again, or others."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.preparation import as_trained, prepare, to_memory
from kclassify.data.sources import load_source
from kclassify.data.spec import Examples, Source
from kclassify.runs import Run


def examples_of(run: Run, *, split: str, data: Any, verbose: bool) -> Examples:
    """Return a split of the run's own data, or of `data` where that is given.

    Raises:
        InputError: the data cannot be found, or is other data by now.
    """
    if data is not None:
        return _given_examples(run, split=split, data=data, verbose=verbose)
    return source_of(run, verbose=verbose).splits[split]


def own_split_of(run: Run, *, split: str, data: Any, verbose: bool) -> Examples:
    """Return a split that others are not to be taken for: what is fitted on, or compared with.

    `examples_of` takes whatever images it is given for the split that is to be measured. Here
    those would be test images that pass for training or validation ones, so that `data` counts
    only where it is split, and has this split; otherwise it is the run's own.

    Raises:
        InputError: neither has it.
    """
    if data is not None:
        source = load_source(data, _config_of(run))
        if split in source.splits and len(source.splits) > 1:
            return _as_trained(run, source, split, verbose=verbose)
    if can_reload(run):
        return source_of(run, verbose=verbose).splits[split]
    raise InputError(
        f"`data` must be given with its {split} split for a run that was trained on data in "
        f"memory. Received: {'None' if data is None else 'images without one'} for {str(run)!r}. "
        'Pass data={"train": ..., "validation": ..., "test": ...}.'
    )


def with_own_data(run: Run, data: Any, *, verbose: bool) -> tuple[Run, Any]:
    """Return a run with its source and no other data, where `data` is what it was trained on.

    It is split again as it was: given as others, most of it would be training images. Any other
    data is returned as it was loaded, so that nobody looks at its files again.
    """
    if data is None:
        return run, data
    source = load_source(data, _config_of(run))
    images = sum(len(examples) for examples in source.splits.values())
    if "train" in source.splits and images == sum(run.config["sizes"].values()):
        with suppress(InputError):
            whole = prepare(source, FitConfig.from_json(run.config["config"]), verbose=verbose)
            if fingerprint(whole) == run.config.get("fingerprint"):
                return replace(run, source=whole), None
    return run, source


def source_of(run: Run, *, verbose: bool) -> Source:
    """Return all of the run's own data, split as it was.

    Raises:
        InputError: the data cannot be found, or is other data by now.
    """
    return run.source or _reload(run, verbose=verbose)


def can_reload(run: Run) -> bool:
    """Tell whether a run's data can be had without being given."""
    return run.source is not None or run.config["reference"] is not None


def _reload(run: Run, *, verbose: bool) -> Source:
    reference = run.config["reference"]
    if reference is None:
        raise InputError(
            f"`data` must be given for a run that was trained on data in memory. Received: None "
            f"for {str(run)!r}. Pass data=(images, labels), or --data with a folder or CSV file."
        )
    config = FitConfig.from_json(run.config["config"])
    source = prepare(load_source(reference, config), config, verbose=verbose)
    sizes = {name: len(examples) for name, examples in source.splits.items()}
    if sizes != run.config["sizes"] or list(source.class_names) != run.config["class_names"]:
        raise InputError(
            f"`run` must be evaluated on the data it was split from. Received: {reference!r}, "
            f"which now has {sizes} images; the run had {run.config['sizes']}. "
            "Restore the data, or pass `data`."
        )
    if fingerprint(source) != run.config.get("fingerprint"):
        raise InputError(
            f"`run` must be evaluated on the data it was split from. Received: {reference!r}, "
            "whose images or labels are others now. Restore the data, or pass `data`."
        )
    return source


def _given_examples(run: Run, *, split: str, data: Any, verbose: bool) -> Examples:
    source = load_source(data, _config_of(run))
    if len(source.splits) > 1 and split not in source.splits:
        raise InputError(
            f"`split` must be one that `data` has, {list(source.splits)}. Received: {split!r}. "
            "Name another, or give images that are not split."
        )
    part = split if split in source.splits else next(iter(source.splits))
    return _as_trained(run, source, part, verbose=verbose)


def _config_of(run: Run) -> FitConfig:
    """Return the configuration by which other data is loaded for a run.

    Integer labels are places in the class names, unless the names are numbers themselves.
    """
    own = FitConfig.from_json(run.config["config"])
    names = tuple(run.config["class_names"])
    if own.class_names is None and all(name.isdecimal() for name in names):
        return own
    return own.replace(class_names=names)


def _as_trained(run: Run, source: Source, split: str, *, verbose: bool) -> Examples:
    names, shape = tuple(run.config["class_names"]), tuple(run.config["input_shape"])
    examples = as_trained(source, split, class_names=names, input_shape=shape)
    return to_memory(examples, _config_of(run), verbose=verbose)
