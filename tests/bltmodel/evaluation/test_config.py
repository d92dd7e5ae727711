import pytest

from bltdata.errors import ConfigError
from bltmodel.evaluation.config import EvaluationConfig


def test_the_stride_is_half_the_context_unless_it_is_given():
    assert [EvaluationConfig().stride_of(context) for context in (2, 7, 1024)] == [1, 3, 512]
    assert EvaluationConfig(stride=7).stride_of(7) == 7


def test_rates_of_noise():
    assert dict(EvaluationConfig(noise=("swap=1", "drop"), noise_rate=0.3).noise_rates) == {"swap": 1.0, "drop": 0.3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bytes": 0}, "max_bytes is 0; it must be at least 1, or none for all"),
        ({"context_tokens": 1}, "The context is 1 tokens; it must be at least 2"),
        ({"stride": 0}, "The stride is 0 tokens; it must be at least 1"),
        ({"stride": 9, "context_tokens": 8}, "The stride is 9 tokens; it must be at most 8, the context"),
        ({"level": 1.0}, "The level of intervals is 1; it must lie between 0 and 1, such as 0.95"),
        ({"level": float("nan")}, "The level of intervals is nan"),
        ({"resamples": 99}, "The number of resamples is 99; it must be at least 100"),
        ({"seed": -1}, "The seed is -1; it must be 0 or more"),
        ({"noise_rate": 0.0}, "noise_rate is 0; it must be above 0 and at most 1"),
        ({"noise_rate": 0.2}, "noise_rate is 0.2, but no kind of noise is given; leave it out, or give noise a kind without a rate"),
        ({"noise_rate": 0.2, "noise": ("drop=0.1", "swap=0.3")}, "noise_rate is 0.2, but every kind of noise has a rate of its own; leave"),
        ({"noise": ("dorp",)}, "There is no noise 'dorp'; the nearest is 'drop'"),
        ({"noise": ("drop", "drop=0.2")}, "The noise 'drop' is given twice"),
        ({"noise": ("drop=much",)}, "The rate of the noise 'drop' is 'much'; it must be a number, such as drop=0.2"),
        ({"noise": ("drop=2",)}, "The rate of the noise 'drop' is 2; it must be above 0 and at most 1"),
        ({"noise": ("drop=nan",)}, "The rate of the noise 'drop' is nan"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**settings)
