"""The techniques by name: from a parent and options to the recipe of a run. All is checked here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.compression.parent import Parent, keep_untrained
from kclassify.compression.pruning import check_pruning
from kclassify.compression.retraining import (
    Recipe,
    Retraining,
    check_names,
    copy_of,
    retraining,
)
from kclassify.config import check_model_args
from kclassify.models.registry import MODELS
from kclassify.training.place import Place, train_in

runtime.prepare()

from kclassify.compression import pruning  # noqa: E402
from kclassify.compression.choosing import aim_of, narrowed  # noqa: E402
from kclassify.compression.clipping import check_shares, choose_share, clipped  # noqa: E402
from kclassify.compression.low_rank import factorized  # noqa: E402
from kclassify.compression.quantization import check_scheme  # noqa: E402
from kclassify.compression.quantize import write_run  # noqa: E402


def _own(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Take the technique's own options out of `options`; what is left is the training's."""
    check_names(options, also=names)
    return {name: options.pop(name) for name in names if name in options}


def prune(parent: Parent, **options: Any) -> Recipe:
    """Set single weights to zero and train the others."""
    own: dict[str, Any] = {
        "sparsity": 0.8,
        "criterion": "magnitude",
        "scope": "global",
        "ramp": "cubic",
    }
    asked = _own(options, *own)
    own |= asked
    check_pruning(**own)
    epochs = options.get("epochs", 1)
    expected = "a whole number of at least 0"
    check_number("epochs", epochs, expected=expected, ok=is_whole(epochs, least=0))
    trained = epochs > 0
    if not trained:
        # Nothing is trained, and so there is nothing to rise along.
        options.pop("epochs")
        own["ramp"] = asked.get("ramp", "one_shot")
        expected = "'one_shot' without epochs, in which it could rise"
        check_number("ramp", own["ramp"], expected=expected, ok=own["ramp"] == "one_shot")
    how = retraining(parent, options)
    facts = {"technique": "prune", **own, "trained": trained, **how.facts()}
    name = f"prune-{100 * own['sparsity']:g}"
    if own["criterion"] != "magnitude":
        name += f"-{own['criterion']}"
    return Recipe(name, how.config, facts, partial(_prune, parent, how, own, trained=trained))


def _prune(
    parent: Parent,
    how: Retraining,
    own: dict[str, Any],
    place: Place,
    facts: dict,
    *,
    trained: bool,
) -> None:
    network = copy_of(parent.network)
    train = parent.source.splits["train"]
    score = pruning.scorer(own["criterion"], seed=how.config.seed, train=train)
    gradual = own["ramp"] == "cubic"
    sparsity = 0.0 if gradual else own["sparsity"]
    masks = pruning.masks_of(score(network), sparsity=sparsity, scope=own["scope"])
    pruning.apply_masks(network, masks)
    if not trained:
        keep_untrained(place, parent, network, facts, accuracy=_accuracy(parent, network))
        return
    session = how.session(parent, network)
    held = pruning.hold(session.trained, masks)
    if gradual:
        callback = pruning.GradualPruning(
            session.trained, held, score=score, sparsity=own["sparsity"], scope=own["scope"],
            schedule=session.schedule,
        )  # fmt: skip
        session = replace(session, beside=(callback,))
    train_in(place, parent.source, session, facts=facts)


def prune_filters(parent: Parent, **options: Any) -> Recipe:
    """Remove whole channels and train what is left: fewer parameters, fewer MACs, faster."""
    aim = aim_of(**_own(options, "macs", "parameters", "criterion"))
    how = retraining(parent, options)
    train = parent.source.splits["train"]
    network = narrowed(parent.network, aim, seed=how.config.seed, train=train)
    own = {aim.cost: aim.share, "criterion": aim.criterion}
    name = f"filters-{100 * aim.share:g}" + "-parameters" * (aim.cost == "parameters")
    facts = {"technique": "prune_filters", **own, **how.facts()}
    return Recipe(name, how.config, facts, _training(parent, how, network))


def low_rank(parent: Parent, **options: Any) -> Recipe:
    """Replace dense and 1x1 kernels by products of thinner ones, where that pays."""
    own: dict[str, Any] = {"energy": 0.95} | _own(options, "energy")
    how = retraining(parent, options)
    network = factorized(parent.network, **own)
    facts = {"technique": "low_rank", **own, **how.facts()}
    return Recipe(f"rank-{100 * own['energy']:g}", how.config, facts,
                  _training(parent, how, network))  # fmt: skip


def _accuracy(parent: Parent, network: Any) -> float:
    return float(parent.right_on_validation(network).mean())


def _training(parent: Parent, how: Retraining, network: Any) -> Callable[[Place, dict], None]:
    return lambda place, facts: train_in(
        place, parent.source, how.session(parent, network), facts=facts
    )


def distill(parent: Parent, **options: Any) -> Recipe:
    """Train another network, or the same anew, on what the parent says of the images."""
    arguments = {name for entry in MODELS.values() for name in entry.arguments}
    own = _own(options, "model", "model_args", *arguments)
    model = own.pop("model", parent.config.model)
    check_choice("model", model, MODELS)
    args = own.pop("model_args", {} if model != parent.config.model else parent.config.model_args)
    check_number("model_args", args, expected="a mapping", ok=isinstance(args, Mapping))
    args = {**args, **own}
    check_model_args(model, args, also=set())
    # The whole of the schedule, since it is a new network.
    whole = {"epochs": parent.epochs, "schedule": parent.config.schedule}
    options = {**whole, **options}
    how = retraining(parent, options)
    how = replace(how, config=how.config.replace(model=model, model_args=args))
    facts = {"technique": "distill", "model": model, "model_args": dict(args), **how.facts()}
    return Recipe(f"distill-{model}", how.config, facts, _training(parent, how, None))


def clip(parent: Parent, **options: Any) -> Recipe:
    """Clip each kernel to the share of its values that does best; nothing is trained."""
    own: dict[str, Any] = {"shares": None, "max_drop": 0.005} | _own(options, "shares", "max_drop")
    if own["shares"] is not None:
        check_shares(own["shares"])
    for name, value in options.items():
        raise InputError(
            f"`{name}` must be left out with 'clip', which trains nothing. Received: "
            f"{name}={value!r}. Leave it out, or choose another technique."
        )
    how = retraining(parent, {})
    facts = {"technique": "clip", **own}
    return Recipe("clip", how.config, facts, partial(_clip, parent, own))


def _clip(parent: Parent, own: dict[str, Any], place: Place, facts: dict[str, Any]) -> None:
    share, sweep = choose_share(parent, **own)
    place.tell(sweep.to_string(index=False, float_format="{:.4f}".format))
    network = clipped(parent.network, share=share)
    keep_untrained(place, parent, network, facts, accuracy=_accuracy(parent, network))
    place.run.write(place.run.table_file("clip"), sweep.set_index("share"))


def quantize(parent: Parent, **options: Any) -> Recipe:
    """Write a file of 8- or 16-bit numbers for LiteRT or ONNX Runtime, which is what is served."""
    own: dict[str, Any] = {"scheme": "litert_int8", "max_drop": 0.005, "images": 500}
    own |= _own(options, *own)
    check_scheme(own["scheme"])
    check_number(
        "images", own["images"], expected="a whole number of at least 1",
        ok=is_whole(own["images"], least=1),
    )  # fmt: skip
    how = retraining(parent, options)
    facts = {"technique": "quantize", **own, **how.facts()}
    return Recipe(own["scheme"], how.config, facts, partial(write_run, parent, how, own))


# Their options are listed in `kclassify.options`, which the command line reads without TensorFlow.
TECHNIQUES: dict[str, Callable[..., Recipe]] = {
    "prune": prune,
    "prune_filters": prune_filters,
    "low_rank": low_rank,
    "distill": distill,
    "clip": clip,
    "quantize": quantize,
}
