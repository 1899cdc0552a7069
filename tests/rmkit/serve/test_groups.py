"""Group transforms, the gather, the mix of components."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from rmkit.serve.rewards import groups
from rmkit.serve.rewards.groups import GroupGather
from rmkit.serve.rewards.shaping import shape
from rmkit.shaping import Group, chain
from rmkit.signal.mix import mixed


def transformed(transform: str, rewards: list[float | None]) -> list[float | None]:
    return chain(transform).apply(Group.of(reward=rewards))["reward"]


REWARDS = st.lists(st.none() | st.floats(-50, 50), min_size=1, max_size=12)


def test_transforms_by_hand() -> None:
    group = [1.0, 3.0, None, 8.0]
    assert transformed("center", group) == [-3, -1, None, 4]
    assert transformed("leave_one_out", group) == [1 - 5.5, 3 - 4.5, None, 8 - 2]
    assert transformed("rank", [3.0, 1.0, 3.0, None, 7.0]) == [0.5, 0, 0.5, None, 1]
    spread = statistics.pstdev([1, 3, 8])
    assert transformed("z_score", group) == [pytest.approx(-3 / spread), pytest.approx(-1 / spread), None, 4 / spread]
    assert transformed("z_score", [0.1, 0.1, 0.1]) == [0, 0, 0]  # though their mean is not 0.1
    assert transformed("center", [None, None]) == [None, None]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("group", "center", "z_score", "leave_one_out", "rank"),
    [
        # One alone, two alike, several alike.
        ([2.0], [0], [0], [None], [None]),
        ([-3.0, -3.0], [0, 0], [0, 0], [0, 0], [0.5, 0.5]),
        ([7.0, None, 7.0, 7.0], [0, None, 0, 0], [0, None, 0, 0], [0, None, 0, 0], [0.5, None, 0.5, 0.5]),
        # What is no number is missing, and the others are as if it were not there.
        ([1.0, NAN, 4.0], [-1.5, None, 1.5], [-1, None, 1], [-3, None, 3], [0, None, 1]),
        ([INF, 1.0, -INF, 4.0, None], [None, -1.5, None, 1.5, None], [None, -1, None, 1, None],
         [None, -3, None, 3, None], [None, 0, None, 1, None]),
        ([NAN], [None], [None], [None], [None]),
        # Sums and squares beyond the largest number, 1.8e308: means of 1e308 and -1/3 of 1.5e308.
        ([1e308, 1e308], [0, 0], [0, 0], [0, 0], [0.5, 0.5]),
        ([1.2e308, 0.8e308], [0.2e308, -0.2e308], [1, -1], [0.4e308, -0.4e308], [1, 0]),
        ([1.5e308, -1.5e308, -1.5e308], [None, -1e308, -1e308], [2**0.5, -(2**-0.5), -(2**-0.5)],
         [None, -1.5e308, -1.5e308], [1, 0.25, 0.25]),
        # Squares that vanish.
        ([1e-200, 3e-200], [-1e-200, 1e-200], [-1, 1], [-2e-200, 2e-200], [0, 1]),
        ([0.0, 5e-324], None, [-1, 1], [-5e-324, 5e-324], [0, 1]),
    ],
)  # fmt: skip
def test_transforms_of_odd_numbers_by_hand(
    group: Any, center: Any, z_score: Any, leave_one_out: Any, rank: Any
) -> None:
    expected: dict[str, Any] = {
        "center": center,
        "z_score": z_score,
        "leave_one_out": leave_one_out,
        "rank": rank,
    }
    for transform, right in expected.items():
        if right is not None:
            result = transformed(transform, group)
            assert [one is None for one in result] == [one is None for one in right], transform
            assert [one for one in result if one is not None] == pytest.approx(
                [one for one in right if one is not None], rel=1e-12, abs=0
            ), transform


@given(REWARDS, st.floats(-100, 100), st.floats(0.1, 10))
def test_transforms_do_not_see_what_they_must_not(group: list[float | None], shift: float, scale: float) -> None:
    """All are blind to a shift; z_score and rank to a scale as well; a missing reward stays where it is."""
    moved = [None if reward is None else reward * scale + shift for reward in group]
    present = [reward for reward in group if reward is not None]
    for transform in ("center", "z_score", "leave_one_out", "rank"):
        before, after = transformed(transform, group), transformed(transform, moved)
        factor = scale if transform in ("center", "leave_one_out") else 1
        for reward, first, second in zip(group, before, after, strict=True):
            assert (first is None) == (second is None)
            assert reward is not None or first is None
            if len(set(present)) == len({round(one, 6) for one in present}) and first is not None:
                assert second == pytest.approx(factor * first, abs=1e-3)
        if transform == "center":
            assert sum(value for value in before if value is not None) == pytest.approx(0, abs=1e-9)


async def meet(
    gather: GroupGather, rewards: list[float | None], *, size: int = 4, model: str = "a", wait_s: float = 5
) -> tuple[list[float | None], int] | str:
    deadline = time.monotonic() + wait_s
    rows = [{"reward": reward} for reward in rewards]
    met = await gather.meet(("g",), rows, fingerprint=model, size=size, deadline=deadline)
    return met if isinstance(met, str) else ([row["reward"] for row in met[0].rows], met[1])


def test_a_group_is_whole_when_all_have_come() -> None:
    async def test() -> None:
        gather = GroupGather()
        first, second, third = await asyncio.gather(meet(gather, [1.0]), meet(gather, [2.0, None]), meet(gather, [4.0]))
        assert first == ([1, 2, None, 4], 0)
        assert second == ([1, 2, None, 4], 1)
        assert third == ([1, 2, None, 4], 3)
        assert gather.waiting == 0

    asyncio.run(test())


def test_a_group_is_transformed_once_for_all_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of n requests had made the whole group's anew: 2,000 of them held the event loop for two seconds."""
    sizes: list[int] = []

    def counted(transforms: Any, rows: Any) -> Any:
        sizes.append(len(rows))
        return shape(transforms, rows)

    monkeypatch.setattr(groups, "shape", counted)

    async def test() -> list[Any]:
        gather, deadline = GroupGather(), time.monotonic() + 20
        met = await asyncio.gather(
            *(
                gather.meet(("g",), [{"reward": float(at)}], fingerprint="a", size=5, deadline=deadline)
                for at in range(5)
            )
        )
        return [group.shaped(chain("center"))[begin] for group, begin in met]  # type: ignore[misc, union-attr]

    assert asyncio.run(test()) == [-2, -1, 0, 1, 2]
    assert sizes == [5]


def test_who_leaves_takes_its_rewards_along_and_may_come_again() -> None:
    async def test() -> None:
        gather = GroupGather()
        stays = asyncio.create_task(meet(gather, [1.0, 2.0]))
        leaves = asyncio.create_task(meet(gather, [3.0]))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        assert await meet(gather, [3.0], wait_s=0.01) == (
            "only 3 of the group's 4 completions came before the deadline"
        )
        again = await meet(gather, [5.0, 3.0])
        assert (await stays, again) == (([1, 2, 5, 3], 0), ([1, 2, 5, 3], 2))
        assert gather.waiting == 0

    asyncio.run(test())


def test_a_group_that_contradicts_itself_is_told() -> None:
    async def test() -> None:
        gather = GroupGather()
        waits = asyncio.create_task(meet(gather, [1.0, 2.0], wait_s=0.05))
        await asyncio.sleep(0)
        assert "another request gave the group 4" in await meet(gather, [1.0], size=5)
        assert "got 5" in await meet(gather, [1.0, 2.0, 3.0])
        assert "only 2 of" in await waits
        assert gather.waiting == 0

    asyncio.run(test())


def test_a_group_across_a_hot_swap_is_told_so_at_once_and_may_come_again() -> None:
    async def test() -> None:
        gather, since = GroupGather(), time.monotonic()
        parts = [meet(gather, [1.0, 2.0]), meet(gather, [30.0], model="b"), meet(gather, [4.0])]
        why = await asyncio.gather(*parts)
        assert len(set(why)) == 1
        assert "swapped in between (fingerprints a, b); send the whole group again" in why[0]
        assert time.monotonic() - since < 4  # not at the deadline
        again = await asyncio.gather(meet(gather, [10.0, 20.0], model="b"), meet(gather, [30.0, 40.0], model="b"))
        assert [*again] == [([10, 20, 30, 40], 0), ([10, 20, 30, 40], 2)]
        assert gather.waiting == 0

    asyncio.run(test())


def test_a_refused_request_leaves_no_group_behind() -> None:
    async def test() -> None:
        gather = GroupGather()
        assert "got 3" in await meet(gather, [1.0, 2.0, 3.0], size=2)
        assert gather.waiting == 0
        assert await meet(gather, [1.0], size=1) == ([1], 0)

    asyncio.run(test())


def test_a_mix_is_a_weighted_sum_of_what_is_there() -> None:
    made = mixed({"reward": 0.5, "tests": 2}, {"reward": 3.0, "tests": 1.0, "unused": 9.0})
    assert (made.reward, made.components, made.missing) == (3.5, {"reward": 3, "tests": 1}, None)
    assert (
        mixed({"reward": 1, "tests": 0}, {"reward": 1.0, "tests": None}).missing == "the component 'tests' is missing"
    )
    for odd, shown in ((NAN, "nan"), (INF, "inf"), (-INF, "-inf")):
        made = mixed({"reward": 1, "tests": 0}, {"reward": 1.0, "tests": odd})
        assert made == (None, {"reward": 1}, f"the component 'tests' is {shown}, not a finite number")
    assert mixed({"reward": 1}, {"reward": 1.0, "unused": NAN}).reward == 1
    for weights, components in (({"a": 10.0}, {"a": 1e308}), ({"a": 1.0, "b": 1.0}, {"a": 1e308, "b": 1e308})):
        made = mixed(weights, components)
        assert (made.reward, made.missing) == (None, "the mix of its components is inf, not a finite number")


def test_products_harmonic_means_and_gates_by_hand() -> None:
    parts = {"a": 0.5, "b": 0.2}
    assert mixed({"a": 1, "b": 2}, parts, combine="product").reward == pytest.approx(0.5 * 0.2**2)
    assert mixed({"a": 1, "b": 3}, parts, combine="harmonic").reward == pytest.approx(4 / (1 / 0.5 + 3 / 0.2))
    assert mixed({"a": 1, "b": 1}, {"a": 0.5, "b": 0.0}, combine="harmonic").reward == 0
    below = mixed({"a": 1, "b": 1}, {"a": 0.5, "b": -0.1}, combine="product")
    assert (below.reward, below.missing) == (None, "the component 'b' is below 0, which product cannot join")
    assert mixed({"a": 2}, parts, gates={"b": 0.2}).reward == 1
    closed = mixed({"a": 2}, parts, gates={"b": 0.3}, gated=-1)
    assert (closed.reward, closed.components) == (-1, parts)
    assert mixed({"a": 2}, {"a": 0.5}, gates={"b": 0.3}).missing == "the component 'b' is missing"
    assert mixed({"a": 1}, {"a": None}, reasons={"a": "a: no reference"}).missing == "a: no reference"
