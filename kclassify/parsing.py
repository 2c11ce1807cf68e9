"""How the words of the `kclassify` command are read; `options` has what each verb takes."""

import argparse
import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

from kclassify import __version__
from kclassify.checks import InputError, check_choice, nearest
from kclassify.config import FitConfig
from kclassify.models.registry import MODELS

# Their options are the fields of `FitConfig` and the model's own arguments.
TRAINING_VERBS = ("fit", "find-lr", "tune", "label-errors", "compress")

Verbs = Mapping[str, tuple[Callable, str, Callable]]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are `InputError`s that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. Run `{self.prog} --help`.")


def parse(arguments: list[str], verbs: Verbs) -> argparse.Namespace:
    """Return the options of a command, with the function of its verb as `verb`.

    Args:
        arguments: the command's words.
        verbs: by name: the function, a line of help, and the function that adds the options.

    Raises:
        InputError: a verb or an option that is not there.
    """
    if arguments and not arguments[0].startswith("-"):
        check_choice("verb", arguments[0], verbs)
    parser, parsers = _parser(verbs)
    options, rest = parser.parse_known_args(arguments)
    verb = parsers[options.verb_name]
    if options.verb_name in TRAINING_VERBS:
        options.config = given_fields(options) | _model_options(verb, rest)
    elif rest:
        _refuse(verb, rest[0])
    return options


def _parser(verbs: Verbs) -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="kclassify", allow_abbrev=False, description="Image classification on Keras 3."
    )
    parser.add_argument("--version", action="version", version=f"kclassify {__version__}")
    subparsers = parser.add_subparsers(dest="verb_name", metavar="VERB", required=True)
    parsers = {}
    for name, (verb, help, add_options) in verbs.items():
        parsers[name] = subparsers.add_parser(name, help=help, description=help, allow_abbrev=False)
        parsers[name].set_defaults(verb=verb)
        add_options(parsers[name])
    return parser, parsers


def _refuse(verb: Parser, word: str) -> NoReturn:
    known = [name for action in verb._actions for name in action.option_strings]
    if verb.prog.removeprefix("kclassify ") in TRAINING_VERBS:
        known += [f"--{name.replace('_', '-')}" for name in _model_arguments()]
    option = word.split("=")[0]
    raise InputError(
        f"`{verb.prog}` must get options that it has. Received: {option!r}."
        f"{nearest(option, known)} Run `{verb.prog} --help`."
    )


def _model_options(verb: Parser, rest: list[str]) -> dict[str, Any]:
    """Return the model's own arguments: what is left of the form ``--name value``."""
    words = [part for word in rest for part in (word.split("=", 1) if "--" in word else [word])]
    known = _model_arguments()
    found = {}
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        if name not in known or not words:
            _refuse(verb, f"--{name.replace('_', '-')}")
        found[name] = literal(words.pop(0))
    return found


def _model_arguments() -> set[str]:
    return {name for model in MODELS.values() for name in model.arguments}


def literal(text: str) -> Any:
    """Return a number, True, None or a tuple that is written as in Python; otherwise the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `FitConfig` that were given."""
    names = [item.name for item in fields(FitConfig)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}
