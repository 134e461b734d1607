"""Shapes of a(n) and b(n): a new schedule is tested by being added to `SCHEDULES`."""

import math

import pytest
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError

SCHEDULES = [
    Schedule(),
    Schedule(start=10),
    Schedule(warmup=20),
    Schedule(start=10, warmup=20),
    Schedule(decay="linear", end=100),
    Schedule(start=10, warmup=20, decay="linear", end=130),
    Schedule(start=10, warmup=20, decay="cosine", end=130),
    Schedule(start=10, warmup=20, decay="stop", end=130),
    Schedule(decay="stop", end=1),
]
DECAYING = [schedule for schedule in SCHEDULES if schedule.end is not None]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


@every_schedule
def test_a_weight_rises_then_falls_between_zero_and_one(schedule: Schedule) -> None:
    n = [0.25 * i for i in range(800)]
    weights = [schedule(value) for value in n]
    peak = schedule.start + schedule.warmup
    assert all(0 <= weight <= 1 for weight in weights)
    assert all(weight == 0 for value, weight in zip(n, weights, strict=True) if value < schedule.start)
    rising = [weight for value, weight in zip(n, weights, strict=True) if value <= peak]
    falling = [weight for value, weight in zip(n, weights, strict=True) if value >= peak]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert schedule(peak) == 1


@every_schedule
def test_the_warm_up_is_a_straight_line(schedule: Schedule) -> None:
    for share in (0.0, 0.25, 0.5, 0.75):
        if schedule.warmup:
            assert schedule(schedule.start + share * schedule.warmup) == pytest.approx(share)


@pytest.mark.parametrize("schedule", DECAYING, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0, 7.0])
def test_the_decay_has_its_shape(schedule: Schedule, share: float) -> None:
    assert schedule.end is not None
    peak = schedule.start + schedule.warmup
    weight = schedule(peak + share * (schedule.end - peak))
    if share >= 1:
        assert weight == 0
    else:
        shapes = {"linear": 1 - share, "cosine": math.cos(math.pi * share / 2) ** 2, "stop": 1.0}
        assert weight == pytest.approx(shapes[schedule.decay])


@every_schedule
def test_only_a_stop_or_a_late_start_jumps(schedule: Schedule) -> None:
    step = 1e-6
    jumps = [n for n in range(1, 200) if abs(schedule(n + step) - schedule(n - step)) > 1e-4]
    expected = []
    if schedule.start and not schedule.warmup:
        expected.append(int(schedule.start))
    if schedule.decay == "stop":
        assert schedule.end is not None
        expected.append(int(schedule.end))
    assert jumps == expected


WRONG = [
    {"decay": "linear"},
    {"decay": "cosine", "end": 0.0},
    {"decay": "stop", "end": 30.0},
    {"decay": "linear", "end": 29.0},
    {"end": 100.0},
    {"start": -1.0},
    {"warmup": -1.0},
    {"decay": "sudden", "end": 100.0},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """Past the type checker, which only tests run under."""
    schedule = Schedule(start=10, warmup=20)
    for name, value in wrong.items():
        object.__setattr__(schedule, name, value)
    with pytest.raises(InputError) as raised:
        schedule.__post_init__()
    assert "\n" not in str(raised.value)


def test_a_curriculum_is_its_two_schedules() -> None:
    curriculum = Curriculum(alignment=SCHEDULES[5], denoising=SCHEDULES[2])
    for n in (0, 5, 15, 80, 200):
        assert (curriculum.a(n), curriculum.b(n)) == (SCHEDULES[5](n), SCHEDULES[2](n))
    assert (Curriculum().a(0), Curriculum().b(0)) == (1, 1)
