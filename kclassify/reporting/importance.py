"""How much each hyper-parameter has to do with how good a trial is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

# With fewer trials, what is found is chance.
LEAST_TRIALS = 8
TREES = 200


def importance(trials: pd.DataFrame, names: Sequence[str], objective: str) -> pd.Series | None:
    """Return the share of each name in what a forest explains the objective by.

    The forest is fitted to the trials that ended, as in the functional ANOVA of Hutter et al.
    (2014); the share is the mean decrease of impurity instead of a decomposition of variance. It
    shows what went with good trials, not what caused them.

    Args:
        trials: a row a trial.
        names: of the columns to explain by.
        objective: the column to explain.

    Returns:
        The shares by name, the largest first; None with fewer than `LEAST_TRIALS` trials.

    Example:
        >>> import pandas as pd
        >>> trials = pd.DataFrame({"good": range(10), "other": [1, 2] * 5, "score": range(10)})
        >>> importance(trials, ["good", "other"], "score").index[0]
        'good'
    """
    known = trials[np.isfinite(trials[objective])] if objective in trials else trials.iloc[:0]
    if len(known) < LEAST_TRIALS:
        return None
    columns = pd.DataFrame({name: as_numbers(known[name]) for name in names})
    forest = RandomForestRegressor(TREES, random_state=0).fit(columns, known[objective])
    return pd.Series(forest.feature_importances_, index=list(names)).sort_values(ascending=False)


def as_numbers(values: pd.Series) -> pd.Series:
    """Return numbers as they are, and anything else by its place in the order of the texts.

    What a trial does not have is one less than the least.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().sum() > values.isna().sum():
        texts = values.map(str).where(values.notna())
        order = {text: place for place, text in enumerate(sorted(texts.dropna().unique()))}
        numbers = texts.map(order)
    numbers = numbers.astype(float)
    return numbers.fillna(numbers.min() - 1)
