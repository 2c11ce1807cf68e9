"""What `fit` says before it trains."""

import os

from kclassify import runtime
from kclassify.checks import printable
from kclassify.data.spec import FileImages, PackedImages, Share, Source
from kclassify.training.checkpoint import Checkpoint

runtime.prepare()

from kclassify.data.pipeline import AHEAD  # noqa: E402
from kclassify.data.windows import Windows  # noqa: E402
from kclassify.models.cost import count_parameters  # noqa: E402
from kclassify.training.learned import FULL_EPOCHS  # noqa: E402
from kclassify.training.resume import Past  # noqa: E402
from kclassify.training.session import Session, training_examples  # noqa: E402
from kclassify.training.time_budget import Plan  # noqa: E402

# With fewer, batch normalization's moving statistics are still far from those of the images.
FEW_STEPS = 200


def description(source: Source, session: Session, path: os.PathLike[str]) -> str:
    """Return the lines on data, model, training and run folder."""
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in source.splits.items())
    height, width, channels = source.input_shape
    config = session.config
    epochs = "" if config.time_budget else f"{config.epochs} epochs of "
    return (
        f"data      {source.name}: {sizes}; {source.num_classes} classes, "
        f"{height}x{width}x{channels}\n"
        f"model     {config.model}: {count_parameters(session.network):,} parameters, "
        f"{session.macs:,} MACs an image\n"
        f"training  {epochs}{session.steps:,} steps of {config.batch_size} "
        f"images, {config.optimizer}, {session.policy}, on {_where(session)}, XLA "
        f"{'on' if session.model.jit_compile else 'off'}\n"
        f"images    {_feeding(source, session)}\n"
        f"run       {path}"
    )


def _feeding(source: Source, session: Session) -> str:
    """Return where images come from, as their size decides, and where the batches go."""
    images = training_examples(session, source).images
    service = session.config.data_service
    made = f" that {service} makes" if service else ""
    device = session.device if session.replicas.count == 1 else "each device"
    ahead = f"; uint8 batches{made}, {AHEAD} ahead on {device}"
    if isinstance(images, FileImages):
        return f"{len(images):,} files, decoded as they are used{ahead}"
    if not isinstance(images, PackedImages):
        return f"{images.nbytes / 1e6:,.1f} MB in memory{ahead}"
    share = Share(0, session.replicas.count)
    windows = Windows.of(images, batch_size=session.config.batch_size, share=share)
    return (
        f"{images.sizes.sum() / 1e6:,.1f} MB streamed in windows of {windows.images:,} images "
        f"({windows.share_of_epoch:.1%} of an epoch), each a random sample in random order, "
        f"in {session.config.memory_budget} of memory{ahead}"
    )


def _where(session: Session) -> str:
    replicas = session.replicas
    if replicas.count == 1:
        return session.device
    share = session.config.batch_size // replicas.count
    workers = f"{replicas.workers} workers with " if replicas.workers > 1 else ""
    return f"{workers}{', '.join(replicas.devices)}, {share} images each"


def notes(source: Source, session: Session, plan: Plan, past: Past) -> str:
    """Return what should be known of data, learning rate, plan and past, a line each."""
    left_out = f"note      {len(source.skipped)} images left out: " + ", ".join(
        path for path, _ in source.skipped[:3]
    )
    length = "time_budget" if plan.pace else "epochs"
    few = (
        f"note      only {plan.steps} steps in all, too few for most networks: raise `{length}` or "
        "lower `batch_size`"
    )
    found = [_rate(session, plan)] if session.replicas.count > 1 else []
    found += _skipping(session)
    found += [left_out] * bool(source.skipped) + [few] * (plan.steps < FEW_STEPS)
    found += [f"note      a damaged checkpoint is passed over: {name}" for name in past.damaged]
    if past.checkpoint is not None:
        found.append(f"resuming  after step {past.checkpoint.step:,} of {plan.steps:,}")
        found += _other_packages(past.checkpoint)
    return "".join(f"{note}\n" for note in found)


def _skipping(session: Session) -> list[str]:
    if session.seen is None:
        return []
    return [
        f"skipping  from epoch {FULL_EPOCHS + 1} on the {session.config.skip_learned:.0%} of the "
        "images with the smallest last loss, in whose place others come twice"
    ]


def _rate(session: Session, plan: Plan) -> str:
    """Return the learning rate of several devices, and by which rule it is theirs."""
    config = session.config
    rises = config.schedule != "constant" and not session.schedule.begin
    rise = round(config.warmup * plan.steps) if rises else 0
    return (
        f"rate      {config.learning_rate:g} after a warm-up of {rise:,} of {plan.steps:,} steps: "
        f"those of one device, since `batch_size` is that of all {session.replicas.count} together"
    )


def _other_packages(checkpoint: Checkpoint) -> list[str]:
    there, here = checkpoint.facts["packages"], runtime.environment()["packages"]
    changed = [f"{name} {there.get(name)} before, {here[name]} now"
               for name in here if there.get(name) != here[name]]  # fmt: skip
    text = ", ".join(changed)
    return [f"note      {text}: the last bits of the weights may differ"] if changed else []


def say(text: str, end: str = "\n") -> None:
    """Print it, with what a terminal would obey made visible."""
    print(printable(text), end=end)


def silent(*_: object, **__: object) -> None:
    """Print nothing."""
