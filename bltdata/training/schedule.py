"""The learning rate of each step: a linear rise, then either half a cosine or a constant that falls in the end."""

import math

from bltdata.training.config import TrainingConfig


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of step `step`, counted from 0.

    It rises linearly over the warm-up. With `cosine` it then follows half a cosine to the final rate; with `wsd` it stays at
    its peak and falls linearly to the final rate over the last `decay_share` of all steps, or over as many as the warm-up
    leaves of them.

    Source: warm-up, stable, decay arXiv:2404.06395, section 4.2, which takes a tenth of the steps for the decay and lets it
    be any function that falls.

    >>> config = TrainingConfig(steps=101, warmup_steps=0, learning_rate=1.0, final_learning_rate_ratio=0.0)
    >>> [round(learning_rate_at(step, config), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    >>> config = TrainingConfig(steps=10, warmup_steps=2, learning_rate=1.0, schedule="wsd", decay_share=0.4)
    >>> [round(learning_rate_at(step, config), 4) for step in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7625, 0.525, 0.2875, 0.05]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    floor = config.final_learning_rate_ratio
    kept = _wsd(step, config) if config.schedule == "wsd" else _cosine(step, config)
    return config.learning_rate * (floor + (1 - floor) * kept)


def _cosine(step: int, config: TrainingConfig) -> float:
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * progress))


def _wsd(step: int, config: TrainingConfig) -> float:
    begin = max(config.steps - max(1, round(config.decay_share * config.steps)), config.warmup_steps)
    return 1 - min(1.0, max(0, step - begin + 1) / max(1, config.steps - begin))
