import numpy as np
import pytest

from bltdata.config import to_mapping
from bltdata.errors import ConfigError, PatchingError
from bltdata.patching import PatchRule
from bltdata.patching.batch import DocumentBatch
from bltdata.patching.sources import PatchCounts, SourceRules, count_patches, cut_alike

ONE, TWO = PatchRule(threshold=1.0), PatchRule(scheme="space")


def batch(source: str, *documents: bytes, entropy_nats: list[float] | None = None) -> DocumentBatch:
    data = np.frombuffer(b"".join(documents), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, documents)])
    entropies = entropy_nats if entropy_nats is not None else [0.5] * (len(data) + len(documents))
    return DocumentBatch(source=source, data=data, data_offsets=offsets, entropy_nats=np.array(entropies, dtype=np.float16))


def test_a_source_has_its_rule_and_every_other_the_default():
    rules = SourceRules(default=ONE, by_source={"b": TWO, "a": ONE})
    assert [rules.rule_for(name) for name in ("a", "b", "c")] == [ONE, TWO, ONE]
    assert list(rules.by_source) == ["a", "b"]
    assert rules.needs_bytes
    assert not SourceRules(default=ONE).needs_bytes


def test_rules_are_alike_wherever_their_tokenizer_lies():
    bpe = {"scheme": "bpe", "tokenizer": "here/tokenizer.json", "tokenizer_fingerprint": "0123456789abcdef"}
    moved, other = bpe | {"tokenizer": "tokenizer.json"}, bpe | {"tokenizer_fingerprint": "f" * 16}
    assert cut_alike({"patch_rule": bpe}, {"patch_rule": moved, "source_rules": {}})
    assert cut_alike({"patch_rule": bpe, "source_rules": {"a": bpe}}, {"patch_rule": bpe, "source_rules": {"a": moved}})
    assert not cut_alike({"patch_rule": bpe}, {"patch_rule": other})
    assert not cut_alike({"patch_rule": bpe}, {"patch_rule": bpe, "source_rules": {"a": other}})
    assert not cut_alike({"patch_rule": bpe, "source_rules": {"a": bpe}}, {"patch_rule": bpe, "source_rules": {"b": bpe}})


def test_the_mapping_is_that_of_a_manifest():
    rules = SourceRules(default=ONE, by_source={"b": TWO, "a": ONE})
    mapping = rules.to_mapping()
    assert mapping == {"patch_rule": to_mapping(ONE), "source_rules": {"a": to_mapping(ONE), "b": to_mapping(TWO)}}
    assert SourceRules.from_mapping(mapping | {"other": 3}) == rules
    assert SourceRules(default=ONE).to_mapping() == {"patch_rule": to_mapping(ONE)}
    assert SourceRules.from_mapping({"patch_rule": to_mapping(ONE)}) == SourceRules(default=ONE)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "it must have a table 'patch_rule'"),
        ({"patch_rule": {}, "source_rules": 3}, "'source_rules' must be a table"),
        ({"patch_rule": {"treshold": 1.0}}, "unknown key 'treshold'; the nearest is 'threshold'"),
        ({"patch_rule": {"threshold": 1.0}, "source_rules": {"a": {"stride": 3}}}, "doesn't read it"),
        ({"patch_rule": {}}, "The rule of the default has no threshold"),
        ({"patch_rule": {"threshold": 1.0}, "source_rules": {"a": {}}}, "The rule of source 'a' has no threshold"),
    ],
)
def test_mappings_that_make_no_sense(mapping, message):
    with pytest.raises(ConfigError, match=message):
        SourceRules.from_mapping(mapping, "it")


def test_counting_by_source():
    batches = [batch("b", b"a b", b""), batch("a", b"xyz", entropy_nats=[0, 2, 2, 0]), batch("b", b"c d e")]
    counts = count_patches(batches, SourceRules(default=ONE, by_source={"b": TWO}))
    assert list(counts) == ["a", "b"]
    assert counts["a"] == PatchCounts(num_documents=1, num_bytes=3, num_patches=3)
    assert counts["b"] == PatchCounts(num_documents=3, num_bytes=8, num_patches=2 + 1 + 3)
    assert counts["b"].mean_patch_length == 11 / 6


def test_an_entropy_that_is_none():
    good = batch("a", b"ab", b"c")
    good.check_entropies()
    assert (good.num_documents, good.num_bytes) == (2, 3)
    with pytest.raises(PatchingError, match="position 1 of document 1 is nan"):
        batch("a", b"ab", b"c", entropy_nats=[0, 0, 0, 0, float("nan")]).check_entropies()
    with pytest.raises(PatchingError, match="There are 2 entropies for 5 positions"):
        batch("a", b"ab", b"c", entropy_nats=[0, 0]).check_entropies()
