"""The report of a search: one page for people, from the files of the search alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kclassify.reporting.importance import importance
from kclassify.reporting.report import encodable
from kclassify.reporting.search_figures import (
    importance_figure,
    parallel_coordinates,
    trial_curves,
)
from kclassify.reporting.templates import html_templates


def search_page(
    facts: Mapping[str, Any],
    trials: pd.DataFrame,
    curves: Mapping[str, pd.Series],
    *,
    folder: Path,
    verdict: str,
    command: str,
) -> str:
    """Return the page.

    Args:
        facts: what the search's file says.
        trials: a row a trial, the best first.
        curves: the objective by epoch, by trial, the best first.
        folder: of the search.
        verdict: the sentence on the best.
        command: what trains it.
    """
    search = facts["search"]
    objective = search["objective"]
    names = [name for name in _names(search["space"]) if name in trials]
    known = trials[np.isfinite(trials[objective])] if objective in trials else trials.iloc[:0]
    shares = importance(known, names, objective)
    page = {
        "facts": facts,
        "search": search,
        "folder": folder,
        "trials": trials,
        "names": names,
        "verdict": verdict,
        "command": command,
        "parallel": parallel_coordinates(known, names, objective) if len(known) else None,
        "importance": None if shares is None else importance_figure(shares),
        "curves": trial_curves(curves, objective) if curves else None,
    }
    template = html_templates().get_template("search.html.jinja")
    return encodable(template.render(page))


def _names(space: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(dimension["name"] for dimension in space))
