"""What a classifier may answer beyond one label an image: nothing, or a set of labels."""

from dataclasses import asdict, dataclass
from typing import Any

# The label and the class index of an answer that is withheld.
UNKNOWN, WITHHELD = "unknown", -1


@dataclass(frozen=True)
class Threshold:
    """The probability below which an answer is withheld.

    Attributes:
        accuracy: what the answers are guaranteed, with `certainty`.
        certainty: how often such a guarantee holds, over validation splits.
        probability: the least that an answer has.
        coverage: the share of the validation images that are answered.
        images: how many validation images it was chosen on.
    """

    accuracy: float
    certainty: float
    probability: float
    coverage: float
    images: int


@dataclass(frozen=True)
class LabelSets:
    """How sets of labels are made that hold the right one so often.

    Attributes:
        coverage: the share of images whose set holds the right label, at least.
        least_probability: labels of at least this probability are in the set.
        images: how many validation images it was chosen on.
    """

    coverage: float
    least_probability: float
    images: int


@dataclass(frozen=True)
class Deciding:
    """When an answer is withheld, and how sets of labels are made; by default neither."""

    threshold: Threshold | None = None
    label_sets: LabelSets | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `metrics.json` and an export's metadata hold."""
        return asdict(self)

    def __str__(self) -> str:
        lines = []
        if self.threshold:
            lines.append(
                f"withheld below a probability of {self.threshold.probability:.4f}, for answers "
                f"that are right in {self.threshold.accuracy:.4g} of cases"
            )
        if self.label_sets:
            lines.append(
                f"sets of labels from a probability of {self.label_sets.least_probability:.4f}, "
                f"which hold the right one in {self.label_sets.coverage:.4g} of cases"
            )
        return "\n".join(lines)
