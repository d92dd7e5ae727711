import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bltdata.errors import ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.shards import round_entropies
from bltdata.vocab import MAX_ENTROPY_NATS
from bltmodel.interop import rule_of_threshold, unrounded_threshold
from bltmodel.interop.thresholds import PRECISIONS, beyond_a_threshold

LARGEST = float(np.nextafter(np.float32(MAX_ENTROPY_NATS), np.float32(0)))

thresholds = st.one_of(st.floats(0, LARGEST, width=32), st.integers(0, 1423).map(lambda steps: steps / 256))
precisions = st.sampled_from(PRECISIONS)


@given(threshold=thresholds, precision=precisions, entropies=st.lists(st.floats(0, LARGEST, width=32), min_size=1))
def test_both_comparisons_agree(threshold, precision, entropies):
    unrounded = unrounded_threshold(threshold, precision)
    assert unrounded == np.float32(unrounded)
    # Where they would differ first, if they did.
    edge = np.float32(unrounded)
    values = np.array([*entropies, edge, np.nextafter(edge, np.float32(9)), threshold], dtype=np.float32)
    values = values[values <= np.float32(MAX_ENTROPY_NATS)]
    after = round_entropies(values, precision).astype(np.float32) > np.float32(threshold)
    assert ((values > edge) == after).all()


@given(threshold=thresholds, precision=precisions)
def test_the_rule_comes_back(threshold, precision):
    unrounded = unrounded_threshold(threshold, precision)
    assume(unrounded < MAX_ENTROPY_NATS)
    rule, found = rule_of_threshold(unrounded, None, "a file")
    assert unrounded_threshold(rule.threshold, found) == unrounded


def test_a_threshold_of_their_own_is_taken_as_it_is():
    assert rule_of_threshold(1.335442066192627, 7, "a file") == (PatchRule(threshold=1.335442066192627, max_length=7), "float16")


@pytest.mark.parametrize(
    ("threshold", "max_length", "message"),
    [
        (-0.5, None, "a file makes no patch rule: threshold is -0.5; it must lie between 0 and ln 260"),
        (6.0, None, "a file makes no patch rule: threshold is 6.0; it must lie between 0 and ln 260"),
        (1.0, 0, "a file makes no patch rule: max_length is 0"),
    ],
)
def test_what_is_no_rule(threshold, max_length, message):
    with pytest.raises(ConfigError, match=message):
        rule_of_threshold(threshold, max_length, "a file")


@pytest.mark.parametrize(
    ("rules", "context", "how"),
    [
        (SourceRules(default=PatchRule(threshold=1.0)), {}, None),
        (SourceRules(default=PatchRule(threshold=1.0), by_source={"x": PatchRule(threshold=2.0)}), {}, "by a rule for each source"),
        (SourceRules(default=PatchRule(scheme="space")), {}, "by the rule 'space'"),
        (SourceRules(default=PatchRule(relative_threshold=0.5)), {}, "with a relative_threshold of 0.5"),
        (SourceRules(default=PatchRule(threshold=1.0, relative_threshold=0.5)), {}, "with a relative_threshold of 0.5"),
        (SourceRules(default=PatchRule(threshold=1.0, min_length=2)), {}, "with a min_length of 2"),
        (SourceRules(default=PatchRule(threshold=1.0, max_length=8)), {}, "with a max_length of 8"),
        (SourceRules(default=PatchRule(threshold=1.0, reset_at_newline=True)), {}, "with a reset_at_newline of True"),
        (SourceRules(default=PatchRule(threshold=1.0)), {"reset_at_newline": True}, "by entropies that know no line before their own"),
    ],
)
def test_rules_that_are_more_than_a_threshold(rules, context, how):
    assert beyond_a_threshold(rules, {"fingerprint": "x", "context": context}) == how
