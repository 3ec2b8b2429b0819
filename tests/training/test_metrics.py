import json
import math
import time

import pytest

from perceiver import InputError
from perceiver.training.metrics import Log, Mean, read_log


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    with Log(tmp_path, 0) as log:
        for step in range(1, 6):
            log.write(step, "train", {"loss": step})
    with Log(tmp_path, 3) as log:
        log.write(4, "train", {"loss": 40})
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_a_new_run_in_a_folder_without_checkpoints_starts_a_new_log(tmp_path):
    for _ in range(2):
        with Log(tmp_path, 0) as log:
            log.write(1, "train", {"loss": 1.0})
    assert len(read_log(tmp_path)) == 1


def test_numbers_that_json_has_no_word_for_are_written_as_text(tmp_path):
    with Log(tmp_path, 0) as log:
        log.write(1, "train", {"loss": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == "nan"


def test_a_half_written_last_line_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "group": "train"}\n{"step": 2, "gro')
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        read_log(tmp_path)


def test_means_are_over_the_steps_since_the_last_report():
    mean = Mean()
    for value in (1.0, 3.0):
        mean.add({"loss": value, "finite": True})
    assert mean.take(batch=8)["loss"] == 2.0
    mean.add({"loss": 7.0, "finite": True})
    taken = mean.take(batch=8)
    assert taken["loss"] == 7.0
    assert taken["examples_per_second"] > 0


def test_a_step_is_split_into_waiting_for_data_telling_the_device_and_waiting_for_it():
    mean = Mean()
    for _ in range(4):
        mean.add({"loss": 1.0, "finite": True}, data=0.001, host=0.0005)
        time.sleep(0.003)
    taken = mean.take(batch=8)
    assert taken["seconds_per_step/data"] == pytest.approx(0.001)
    assert taken["seconds_per_step/host"] == pytest.approx(0.0005)
    whole = sum(value for name, value in taken.items() if name.startswith("seconds_per_step/"))
    assert whole == pytest.approx(8 / taken["examples_per_second"])
    mean.add({"loss": 1.0, "finite": True})
    assert mean.take(batch=8)["seconds_per_step/data"] == 0.0


def test_a_mean_is_of_the_steps_that_are_finite():
    mean = Mean()
    for loss, finite in ((1.0, True), (float("nan"), False), (3.0, True), (float("inf"), False)):
        mean.add({"loss": loss, "finite": finite})
    taken = mean.take(batch=1)
    assert (taken["loss"], taken["finite"]) == (2.0, 0.5)
    mean.add({"loss": float("nan"), "finite": False})
    assert math.isnan(mean.take(batch=1)["loss"])


def test_flops_are_a_rate_and_a_share_of_the_peak():
    mean = Mean(peak=2e6)
    for flops in (1000, 3000):
        mean.add({"loss": 1.0, "finite": True}, flops=flops)
    taken = mean.take(batch=1)
    assert taken["flops_per_second"] == pytest.approx(2000 * taken["examples_per_second"])
    assert taken["share_of_peak"] == pytest.approx(taken["flops_per_second"] / 2e6)
    mean.add({"loss": 1.0, "finite": True})
    assert mean.take(batch=1)["flops_per_second"] == 0.0
