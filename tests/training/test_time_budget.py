import math
import re
from contextlib import contextmanager

import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.data.sources import load_source, prepare
from kclassify.presets import PRESETS
from kclassify.training import time_budget
from kclassify.training.replicas import Replicas
from kclassify.training.session import build_session
from kclassify.training.time_budget import Deadline, Plan


def test_a_plan_counts_the_seconds_of_its_parts():
    plan = Plan(steps=10, epochs=1, pace=(1.0, 3.0))
    assert plan.seconds(0, 10) == 5 * 1.0 + 5 * 3.0
    assert plan.seconds(4, 6) == 1.0 + 3.0
    # After its end it goes on as it was last.
    assert plan.seconds(9, 12) == 9.0


@pytest.mark.parametrize(("first", "seconds"), [(0, 2.0), (0, 8.0), (3, 5.0), (7, 30.0)])
def test_the_steps_within_some_seconds_take_those_seconds(first, seconds):
    plan = Plan(steps=10, epochs=1, pace=(1.0, 3.0))
    last = plan.steps_within(seconds, first=first)
    assert plan.seconds(first, last) == seconds


def test_no_time_is_no_step():
    assert Plan(steps=10, epochs=1, pace=(1.0,)).steps_within(-3.0, first=4) == 4


class Clock:
    """A clock that stands still until it is told the time."""

    now = 0.0

    def perf_counter(self):
        return self.now


def deadline(monkeypatch, *, end):
    """Return a deadline for 4 passes of 10 steps of a second, and its clock."""
    clock = Clock()
    monkeypatch.setattr(time_budget.time, "perf_counter", clock.perf_counter)

    class Part:
        steps = 10
        stop_training = False
        total = None

        def set_total_steps(self, steps):
            self.total = steps

    session = Part()
    session.schedule = session
    callback = Deadline(session, Plan(steps=40, epochs=8, pace=(1.0,), between=1.0), end=end)
    callback.set_model(session)
    return callback, clock, session


def run_pass(callback, clock, epoch, *, step, between, steps=10):
    callback.on_epoch_begin(epoch)
    for number in range(steps):
        clock.now += step
        callback.on_train_batch_end(number)
        if callback.model.stop_training:
            break
    clock.now += between
    callback.on_epoch_end(epoch)


def test_a_slow_machine_gets_fewer_steps(monkeypatch):
    callback, clock, session = deadline(monkeypatch, end=47.0)
    run_pass(callback, clock, 0, step=2.0, between=1.0)
    # 25 seconds are left, less the finish and two more validations: 11 steps of 2 seconds.
    assert session.total == callback.steps == 10 + 11
    for epoch in (1, 2):
        run_pass(callback, clock, epoch, step=2.0, between=1.0)
    assert session.stop_training
    assert callback.done == 21
    assert 44.0 <= clock.now <= 47.0


def test_a_quick_machine_gets_more(monkeypatch):
    callback, clock, session = deadline(monkeypatch, end=47.0)
    run_pass(callback, clock, 0, step=0.5, between=1.0)
    assert session.total > 40


def test_out_of_time_stops(monkeypatch):
    callback, clock, session = deadline(monkeypatch, end=5.0)
    run_pass(callback, clock, 0, step=2.0, between=1.0)
    assert session.stop_training


def test_one_slow_pass_does_not_end_the_training(monkeypatch):
    callback, clock, session = deadline(monkeypatch, end=200.0)
    for epoch in range(4):
        run_pass(callback, clock, epoch, step=1.0, between=1.0)
    run_pass(callback, clock, 4, step=9.0, between=9.0)
    # 56 seconds are left: six passes of 10 and 1 at the usual pace, but one at that of the last.
    assert not session.stop_training
    assert callback.steps >= 50 + 40


def test_the_last_validation_is_expected_to_take_as_long_as_its_images_are_large(monkeypatch):
    callback, clock, _ = deadline(monkeypatch, end=100.0)
    # The second half of the steps has larger images, which take twice as long.
    callback.plan = Plan(steps=40, epochs=8, pace=(1.0, 2.0), between=4.0)
    run_pass(callback, clock, 0, step=1.0, between=2.0)
    assert callback.between[-1] == 4.0


def test_what_comes_between_two_passes_counts(monkeypatch):
    callback, clock, _ = deadline(monkeypatch, end=100.0)
    run_pass(callback, clock, 0, step=1.0, between=2.0)
    # The checkpoint is written after the callbacks.
    clock.now += 3.0
    callback.on_epoch_begin(1)
    assert callback.between[-1] == 5.0


def test_a_machine_that_gets_quicker_in_the_last_pass_goes_on(monkeypatch):
    callback, clock, session = deadline(monkeypatch, end=19.0)
    callback.on_epoch_begin(0)
    for number in range(10):
        clock.now += 2.0 if number < 2 else 1.0
        callback.on_train_batch_end(number)
    assert not session.stop_training
    assert callback.done == 10


def test_a_fit_with_a_budget_anneals_to_the_end_of_its_plan(
    tiny_arrays, tiny_options, monkeypatch, capsys
):
    # As if a step took two seconds; and no clock that plans anew when it does not.
    monkeypatch.setattr(time_budget, "measure_pace", lambda *_, **__: (2.0,))
    monkeypatch.setattr(Deadline, "_plan", lambda *_, **__: None)
    options = {k: v for k, v in tiny_options.items() if k != "epochs"} | {"verbose": True}
    run = kclassify.fit(tiny_arrays, run_dir="r", time_budget="60s", **options)
    shown = capsys.readouterr().out
    assert "4 images a second" in shown
    assert "ends at" in shown
    assert "raise `time_budget`" in shown
    (steps,) = re.findall(r"\(([0-9]+) steps\)", shown)
    # 39 images are 4 steps of 8 a pass.
    assert run.summary["epochs_trained"] == math.ceil(int(steps) / 4)
    assert run.history["learning_rate"].iloc[-1] < 1e-6 < run.history["learning_rate"].max()


def test_auto_measures_few_images_too(tiny_arrays, monkeypatch, capsys):
    monkeypatch.setattr(time_budget, "SIZES", ("digits", "fast"))
    monkeypatch.setattr("kclassify.training.fit.SIZES", ("digits", "fast"))
    monkeypatch.setattr(time_budget, "measure_pace", lambda *_, **__: (2.0,))
    monkeypatch.setattr(Deadline, "_plan", lambda *_, **__: None)
    run = kclassify.fit(
        tiny_arrays, run_dir="r", preset="auto", time_budget="40s",
        validation_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip
    assert run.config["preset"] == "digits"
    assert run.config["config"]["batch_size"] == 8
    assert "preset    digits, the largest that 40s has room for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("widths", "steps", "chosen"),
    [
        # The middle one takes 10 s by its own steps, the largest 20 s.
        ((2, 4, 8), {2: 0.005, 4: 0.02, 8: 0.04}, "middle"),
        # What its multiply-accumulates rule out is not measured.
        ((2, 4, 400), {2: 0.005, 4: 0.02}, "middle"),
        ((2, 4, 8), {2: 0.005, 4: 9.0, 8: 9.0}, "small"),
    ],
)
def test_auto_takes_the_largest_that_has_room_by_its_own_steps(
    tiny_arrays, monkeypatch, widths, steps, chosen
):
    names = ("small", "middle", "large")
    for name, width in zip(names, widths, strict=True):
        # 500 steps.
        recipe = {"model_args": {"filters": width, "depth": 1}, "epochs": 500}
        monkeypatch.setitem(PRESETS, name, recipe)
    monkeypatch.setattr(time_budget, "SIZES", names)
    monkeypatch.setattr(
        time_budget, "measure_pace",
        lambda session, *_, **__: (steps[session.config.model_args["filters"]],),
    )  # fmt: skip
    config = kclassify.FitConfig(batch_size=39)
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    options = {"batch_size": 39, "time_budget": "15s"}
    now = time_budget.time.perf_counter()
    assert time_budget.largest_preset(source, options, started=now) == chosen


@pytest.mark.parametrize(("budget", "measured"), [("30s", 1), ("60s", 2), ("120s", 4)])
def test_auto_does_not_measure_the_time_away(tiny_arrays, monkeypatch, budget, measured):
    clock, seen = Clock(), []

    def slowly(source, config, **_):
        seen.append(config)
        clock.now += 12.0
        # The smallest alone has room.
        return 1.0 if len(seen) == 1 else 1000.0

    monkeypatch.setattr(time_budget.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(time_budget, "_training_seconds", slowly)
    monkeypatch.setattr(time_budget, "_macs", lambda *_: 1.0)
    config = kclassify.FitConfig(batch_size=8)
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    assert time_budget.largest_preset(source, {"time_budget": budget}, started=0.0) == "fast"
    assert len(seen) == measured


def test_measuring_leaves_no_trace(tiny_arrays, tiny_options):
    from kclassify.data.sources import load_source, prepare
    from kclassify.training.session import build_session

    config = kclassify.FitConfig(
        model="fastnet", model_args={"filters": (4, 8)}, batch_size=8, augmentation="none",
        progressive=(0.5, 1.0), optimizer="muon",
    )  # fmt: skip
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    session = build_session(source, config)
    before = session.model.get_weights()
    pace = time_budget.measure_pace(session, source, seconds=0.0)
    assert len(pace) == 2
    assert min(pace) > 0
    for found, expected in zip(session.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(not np.any(v.numpy()) for v in session.model.optimizer.variables[1:])
    assert int(session.model.optimizer.iterations) == 0


def test_too_short_a_budget_says_the_least_and_writes_nothing(tiny_arrays, tiny_options, tmp_path):
    options = {k: v for k, v in tiny_options.items() if k != "epochs"}
    with pytest.raises(InputError, match=r"`time_budget` must be at least \d+s"):
        kclassify.fit(tiny_arrays, run_dir="r", time_budget="0.1s", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["soon", "10x", "5ms", "-5m", "0s", "infh", ""])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(InputError, match="`time_budget`"):
        kclassify.FitConfig(time_budget=value)


def test_epochs_and_a_budget_contradict(tiny_arrays):
    with pytest.raises(InputError, match="`epochs` must be left out"):
        kclassify.fit(tiny_arrays, epochs=3, time_budget="1m")


def test_auto_needs_a_time(tiny_arrays):
    with pytest.raises(InputError, match="`preset`"):
        kclassify.fit(tiny_arrays, preset="auto")


def test_steps_are_measured_on_the_device_of_the_session(tiny_arrays, monkeypatch):
    seen, scope = [], Replicas.scope

    @contextmanager
    def noted(replicas):
        with scope(replicas):
            seen.append("in")
            yield
            seen.append("out")

    class Look(time_budget.Stopwatch):
        def on_train_begin(self, logs=None):
            assert seen[-1] == "in"
            super().on_train_begin(logs)

    config = kclassify.FitConfig(batch_size=8, model_args={"filters": 4, "depth": 1})
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    session = build_session(source, config)
    monkeypatch.setattr(Replicas, "scope", noted)
    monkeypatch.setattr(time_budget, "Stopwatch", Look)
    time_budget.measure_pace(session, source, seconds=0)
    assert seen[-1] == "out"
