import dataclasses

import pytest

from bltdata.cli.settings import field_docs
from bltdata.config import to_mapping
from bltdata.errors import ConfigError
from bltdata.training.config import TrainingConfig


def test_defaults_are_valid_and_explained():
    assert TrainingConfig().share(1) == (TrainingConfig().batch_rows, TrainingConfig().batch_rows)
    assert set(field_docs(TrainingConfig)) == {field.name for field in dataclasses.fields(TrainingConfig)}


@pytest.mark.parametrize(
    ("batch_rows", "micro_batch_rows", "num_processes", "expected"),
    [
        (6, 2, 1, (6, 2)),
        (6, None, 2, (3, 3)),
        (6, 3, 2, (3, 3)),
        (8, 2, 2, (4, 2)),
        (8, 4, 4, (2, 2)),
        (8, 8, 8, (1, 1)),
        (6, 2, 2, (3, 1)),
        (12, 4, 2, (6, 3)),
        (8, 3, 1, (8, 2)),
        (8, 99, 1, (8, 8)),
    ],
)
def test_shares(batch_rows, micro_batch_rows, num_processes, expected):
    assert TrainingConfig(batch_rows=batch_rows, micro_batch_rows=micro_batch_rows).share(num_processes) == expected


def test_rows_that_cannot_be_shared_out():
    with pytest.raises(ConfigError, match=r"^The training setting batch_rows is 6; it must be a multiple of the 4 processes\.$"):
        TrainingConfig(batch_rows=6).share(4)


def test_smaller_micro_batches_are_divisors_of_the_rows():
    share = TrainingConfig(batch_rows=12, micro_batch_rows=6).share(1)
    assert [share.at_most(limit).rows_at_once for limit in (12, 6, 5, 4, 3, 2, 1)] == [6, 6, 4, 4, 3, 2, 1]
    assert share.at_most(5).num_rows == 12


def test_settings_that_came_later_are_told_only_where_they_are_used():
    assert {"schedule", "decay_share", "skip_spikes"}.isdisjoint(to_mapping(TrainingConfig()))
    told = to_mapping(TrainingConfig(schedule="wsd", decay_share=0.2, skip_spikes=True))
    assert (told["schedule"], told["decay_share"], told["skip_spikes"]) == ("wsd", 0.2, True)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("steps", 0, "at least 1"),
        ("row_tokens", 1, "at least 2"),
        ("row_tokens", 0, "at least 1"),
        ("batch_rows", 0, "at least 1"),
        ("evaluate_every", 0, "at least 1"),
        ("validation_bytes", 0, "at least 1"),
        ("micro_batch_rows", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("final_learning_rate_ratio", 1.5, "from 0 to 1"),
        ("final_learning_rate_ratio", -0.1, "from 0 to 1"),
        ("decay_share", 0.0, "above 0 and at most 1"),
        ("decay_share", 1.5, "above 0 and at most 1"),
        ("decay_share", 0.2, "left alone with the schedule cosine, or given with wsd"),
        ("warmup_steps", -1, "0 or more"),
        ("weight_decay", -0.1, "0 or more"),
        ("beta1", 1.0, "from 0 to below 1"),
        ("beta2", -0.5, "from 0 to below 1"),
        ("clip_norm", 0.0, "above 0"),
        ("seed", -1, r"from 0 to below 2\*\*63"),
        ("seed", 2**63, r"from 0 to below 2\*\*63"),
        ("learning_rate", float("nan"), "above 0"),
    ],
)
def test_out_of_range(name, value, limit):
    with pytest.raises(ConfigError, match=f"^The training setting {name} is {value}; it must be {limit}.$"):
        TrainingConfig(**({"batch_rows": 8} | {name: value}))
