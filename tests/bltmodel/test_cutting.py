import json

import numpy as np
import pytest
import torch

from bltdata.config import to_mapping
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.shards import EntropyContext, open_shards, round_entropies
from bltdata.shards.precision import Precision
from bltdata.training.checkpoint import load_model_metadata
from bltmodel.cutting import Cutter, LearnedPatches, what_differs
from bltmodel.model import KIND
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts

CPU = torch.device("cpu")


def starts_of(lengths: np.ndarray) -> list[bool]:
    return [place == 0 for length in lengths.tolist() for place in range(length)]


def test_documents_of_shards_are_cut_as_they_were(trained):
    patches = LearnedPatches.of(load_model_metadata(trained.blt, KIND), trained.blt)
    cutter = Cutter(patches, patches.entropy_model(trained.entropy_model, CPU))
    rows = list(open_shards(trained.shards / "validation"))
    found = list(cutter.starts((row.source, row.data) for row in rows))
    assert [starts.tolist() for starts in found] == [starts_of(row.patch_lengths) for row in rows]


@pytest.mark.parametrize("precision", ["grid", "float16"])
@pytest.mark.parametrize("reset", [True, False])
def test_rules_of_sources_rounding_and_newlines_are_those_of_the_shards(precision: Precision, reset: bool):
    rules = SourceRules(default=RULE, by_source={"code": PatchRule(threshold=4.2), "bytes": PatchRule(scheme="byte")})
    context = EntropyContext(reset_at_newline=reset)
    cutter = Cutter(LearnedPatches(rules=rules, entropy_precision=precision, context=context), entropy_model())
    documents = [(["code", "bytes", "prose"][index % 3], text) for index, text in enumerate(texts(30))]
    for (source, data), starts in zip(documents, cutter.starts(documents), strict=True):
        (entropy_nats,) = entropy_model().score([data], reset_at_newline=reset)
        assert starts.tolist() == starts_of(rules.rule_for(source).lengths(data, round_entropies(entropy_nats, precision)))


def test_texts_are_read_as_results_are_taken():
    read = []
    endless = (("", read.append(number) or b"text") for number in range(10**9))
    next(Cutter(LearnedPatches(rules=SourceRules(default=PatchRule(scheme="space"))), None).starts(endless))
    assert len(read) <= 2
    next(Cutter(LearnedPatches(rules=SourceRules(default=RULE)), entropy_model()).starts(endless))
    assert len(read) < 1000


def described(data: dict, tmp_path, **changes) -> dict:
    opinionated_blt().save(tmp_path / "blt", {"data": {**data, **changes}})
    return load_model_metadata(tmp_path / "blt", KIND)


def test_a_rule_without_entropies_needs_no_model(trained, tmp_path):
    data = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]
    unknown = {"patch_rule": {"scheme": "space"}, "entropy_model": {"fingerprint": None, "config": None, "context": None}}
    patches = LearnedPatches.of(described(data, tmp_path, **unknown), tmp_path / "blt")
    cutter = Cutter(patches, patches.entropy_model(None, CPU))
    assert [starts.tolist() for starts in cutter.starts([("", b"a b")])] == [starts_of(PatchRule(scheme="space").lengths(b"a b"))]


def test_mistakes(trained, tmp_path):
    data = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]
    entropy_model(1).save(tmp_path / "other")
    for changes, folder, kind, message in [
        (
            {},
            None,
            ConfigError,
            "The rule of the shards that .*blt was trained on reads entropies; give the entropy model .* with --entropy-model",
        ),
        ({}, tmp_path / "other", CheckpointError, "other isn't the entropy model of the shards that .*blt was trained on; give that one"),
        (
            {"entropy_model": {"fingerprint": None}},
            trained.entropy_model,
            CheckpointError,
            "Nobody knows which entropy model .* Arrow files",
        ),
    ]:
        with pytest.raises(kind, match=message):
            LearnedPatches.of(described(data, tmp_path, **changes), tmp_path / "blt").entropy_model(folder, CPU)


def test_scores_are_of_the_type_that_those_of_the_shards_are():
    patches = LearnedPatches(rules=SourceRules(default=RULE), context=EntropyContext(precision="bfloat16"))
    documents = texts(30)
    scores = entropy_model().score_with_nll(documents, torch.bfloat16)
    expected = [starts_of(RULE.lengths(data, round_entropies(score.entropy_nats))) for data, score in zip(documents, scores, strict=True)]
    assert [starts.tolist() for starts in Cutter(patches, entropy_model()).starts([("", data) for data in documents])] == expected
    wide = Cutter(LearnedPatches(rules=SourceRules(default=RULE)), entropy_model())
    assert [starts.tolist() for starts in wide.starts([("", data) for data in documents])] != expected


def test_the_rule_of_a_text_is_that_of_its_source():
    space = PatchRule(scheme="space")
    one, several = (LearnedPatches(rules=SourceRules(default=RULE, by_source=rules)) for rules in ({}, {"code": space}))
    assert (one.rule_for(None), one.rule_for("code")) == (RULE, RULE)
    assert (several.rule_for("code"), several.rule_for("prose")) == (space, RULE)
    with pytest.raises(ConfigError, match=r"Nothing says with which rule to cut the text: .* give --source, code or any other\."):
        several.rule_for(None)


def test_what_differs():
    def described(*, fingerprint: str = "a", rule: PatchRule = RULE, **context: object) -> dict:
        return {"entropy_model": {"fingerprint": fingerprint, "context": context}, "patch_rule": to_mapping(rule), "source_rules": {}}

    assert what_differs(described(), described(fingerprint="b")) == "entropy model"
    assert what_differs(described(), described(reset_at_newline=True)) == "newlines"
    assert what_differs(described(), described(rule=PatchRule(threshold=1.0))) == "rule"
    assert what_differs(described(precision="bfloat16"), described(precision="float32", device="cuda")) is None
