"""The parts of the page that only some runs have."""

# The parts that only some runs have, in their order: what makes them, with the run's folder.
SECTIONS = {
    "calibration": "kclassify evaluate {run}",
    "abstention": "kclassify evaluate {run}",
    "comparison": "kclassify compare OTHER {run}",
    "compression": "kclassify compress {run}",
    "slices": "kclassify analyze {run} --parts slices",
    "explanation": "kclassify analyze {run} --parts explanation",
    "learned": "kclassify analyze {run} --parts learned",
    "out_of_distribution": "kclassify analyze {run} --parts out_of_distribution",
    "robustness": "kclassify robustness {run}",
    "label_errors": "kclassify label-errors DATA --run {run}",
    "cost": "kclassify analyze {run} --parts cost",
}
