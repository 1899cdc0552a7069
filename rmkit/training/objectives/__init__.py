"""What a reward model is trained for: one objective a file, its options its own fields, its loss its own method.

A new one is a frozen dataclass over one of the families, and needs nothing else in the tree:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Hinge(PairObjective):
        gap: Annotated[float, "the margin from which on a pair costs nothing"] = 1.0

        def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
            return (self.gap - pairs.chosen + pairs.rejected).clamp(min=0)

trained by `--set objective=my_package:Hinge --set gap=2`, or under a name by an entry point of the group
`rmkit.objectives`. The families: `pairs`, `rankings`, `ratings`; `process` (steps) and whatever derives from
`Objective` itself. These modules import torch inside their methods, so that options can be listed without it.
"""
