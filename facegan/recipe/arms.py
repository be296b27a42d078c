"""An arm as a recipe names it: what it is trained on, a set of rows made from train photos among it."""

from __future__ import annotations

from pydantic import model_validator

from facegan.core.options import unhashed_default
from facegan.generation.augmenters import AugmenterConfig
from facegan.generation.controls import ControlConfig
from facegan.generation.options import AnySet
from facegan.recognition.options import Arm


class RecipeArm(Arm):
    """What one arm of the comparison is trained on."""

    set: AnySet | None = unhashed_default(
        None,
        description="a control in the place of new people, as many classes and images: {kind: warp}; or an augmenter, "
        "more rows of the train people, besides existing and new: {kind: degrade}",
    )

    @property
    def augmented(self) -> bool:
        """Whether its set is of train people, who keep their names."""
        return isinstance(self.set, AugmenterConfig)

    @property
    def needs_guide(self) -> bool:
        """Whether its set is learned with a recognizer of train people."""
        return isinstance(self.set, AugmenterConfig) and self.set.needs_guide

    @property
    def generated(self) -> bool:
        """Whether it asks for what a generator makes, or for as many rows as that."""
        return super().synthetic or (isinstance(self.set, ControlConfig) and self.set.sizes is None)

    @property
    def synthetic(self) -> bool:
        """Whether this arm has any synthetic row."""
        return super().synthetic or self.set is not None

    @property
    def merged(self) -> Arm:
        """What merge is told: a control stands in the place of new people; augmented photos come besides."""
        fields = self.model_dump(exclude={"set"})
        if not self.synthetic or super().synthetic:
            return Arm.model_validate(fields)
        return Arm.model_validate({**fields, "existing" if self.augmented else "new": True})

    @model_validator(mode="after")
    def _control_alone(self) -> RecipeArm:
        if isinstance(self.set, ControlConfig) and (self.existing or self.new):
            raise ValueError(
                f"a set ({self.set.kind}) stands in the place of synthetic images: leave out existing and new"
            )
        return self
