"""The settings of the gate: what a new model must show before it replaces the champion, and what it may cost."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dash_core.section import Positive, Section, Share

Parent = Literal["latest", "champion"]
Probability = Annotated[float, Field(gt=0, lt=1)]
MOST_LOOKS = 1000


class GateConfig(Section):
    """What a challenger must show.

    margin: loss of accuracy that is tolerated, as a share. alpha: bound on the probability that one hold-out ever
    releases a challenger that is worse than its champion by the margin. looks: how often one hold-out may be used.
    policy: `improved` also asks for a proof that the challenger is better. class_alpha: level of the tests of the
    classes together. class_drop: an observed loss in a class of at least 100 images that a person must look at.
    floor: accuracy that the first model needs. anchor_margin: tolerated loss against the anchor; None: 2 margin.
    """

    margin: Probability = 0.02
    alpha: Probability = 0.05
    looks: Annotated[int, Field(ge=1, le=MOST_LOOKS)] = 10
    policy: Literal["not_worse", "improved"] = "not_worse"
    class_alpha: Probability = 0.05
    class_drop: Probability = 0.05
    floor: Share | None = None
    anchor_margin: Probability | None = None

    @property
    def margin_to_anchor(self) -> float:
        """Tolerated loss of accuracy against the anchor."""
        return min(2 * self.margin, 0.5) if self.anchor_margin is None else self.anchor_margin


class Budget(Section):
    """Upper bounds on what a model and its training cost; None: no bound.

    parameters: of the model. forward_flops: of one image. training_steps, training_flops, training_seconds: of one
    model's intervention and training, which end at the step that reaches the bound. latency_ms: of one image on the
    CPU, the median of 50.
    """

    later: ClassVar = frozenset({"training_steps"})

    parameters: Positive | None = None
    forward_flops: Positive | None = None
    training_flops: Positive | None = None
    training_seconds: Positive | None = None
    latency_ms: Positive | None = None
    training_steps: Positive | None = None

    @property
    def given(self) -> dict[str, float]:
        """The bounds that are set."""
        return self.model_dump(exclude_none=True)
