"""`PatchingConfig` makes the rules that its words mean."""

import dataclasses
from typing import Any

import pytest

from bltdata.config import from_mapping, to_mapping
from bltdata.errors import ConfigError
from bltdata.patching import PatchingConfig, PatchRule


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, PatchRule()),
        ({"entropy_threshold": 1.335}, PatchRule(threshold=1.335)),
        ({"entropy_threshold": 0.5, "use_monotonic": True}, PatchRule(relative_threshold=0.5)),
        ({"entropy_threshold": -0.5, "use_monotonic": True}, PatchRule(relative_threshold=-0.5)),
        (
            {"entropy_threshold": 1.0, "reset_context": True, "min_patch_size": 2, "max_patch_size": 16},
            PatchRule(threshold=1.0, reset_at_newline=True, min_length=2, max_length=16),
        ),
        ({"scheme": "fixed", "stride": 4}, PatchRule(scheme="fixed", stride=4)),
        ({"scheme": "space", "max_patch_size": 16}, PatchRule(scheme="space", max_length=16)),
        ({"scheme": "byte"}, PatchRule(scheme="byte")),
    ],
)
def test_the_rule_that_it_means(fields: dict[str, Any], rule: PatchRule) -> None:
    config = PatchingConfig(**fields)
    assert config.rule() == rule
    assert from_mapping(PatchingConfig, to_mapping(config)) == config


def test_its_fields() -> None:
    names = [field.name for field in dataclasses.fields(PatchingConfig)]
    assert names == ["scheme", "entropy_threshold", "stride", "use_monotonic", "reset_context", "min_patch_size", "max_patch_size"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "spaces"}, "no patch rule 'spaces'; the nearest is 'space'"),
        ({"entropy_threshold": -1.0}, r"^entropy_threshold is -1\.0; it must lie between 0"),
        ({"entropy_threshold": 1.0, "min_patch_size": 9, "max_patch_size": 8}, "^min_patch_size is 9; .* above max_patch_size, which is 8"),
        ({"scheme": "bpe"}, "scheme is 'bpe', whose settings have no words here; use PatchRule, or one of entropy, fixed, space, byte"),
        ({"scheme": ["entropy"]}, "no patch rule"),
        ({"stride": 4}, "it reads entropy_threshold, min_patch_size, max_patch_size, reset_context"),
        ({"scheme": "fixed"}, "needs a stride"),
        ({"scheme": "space", "reset_context": True}, "^reset_context is True and the rule 'space'"),
        ({"scheme": "space", "entropy_threshold": 1.0}, "^entropy_threshold is 1.0 and the rule 'space' doesn't read it"),
        ({"scheme": "space", "entropy_threshold": 1.0, "use_monotonic": True}, "use_monotonic is set and the rule 'space'"),
        ({"use_monotonic": True}, "use_monotonic needs an entropy_threshold"),
        ({"use_monotonic": 1}, "use_monotonic is 1; it must be true or false"),
    ],
)
def test_words_that_make_no_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PatchingConfig(**fields)
