import json

import numpy as np
import pytest
import torch

from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.shards import open_shards, round_entropies
from bltdata.shards.precision import Precision
from bltdata.training.checkpoint import load_model_metadata
from bltmodel.evaluation.cutting import Cutter
from bltmodel.model import KIND
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts

CPU = torch.device("cpu")


def starts_of(lengths: np.ndarray) -> list[bool]:
    return [place == 0 for length in lengths.tolist() for place in range(length)]


def test_documents_of_shards_are_cut_as_they_were(trained):
    cutter = Cutter.for_blt(load_model_metadata(trained.blt, KIND), trained.blt, trained.entropy_model, CPU)
    rows = list(open_shards(trained.shards / "validation"))
    found = list(cutter.starts((row.source, row.data) for row in rows))
    assert [starts.tolist() for starts in found] == [starts_of(row.patch_lengths) for row in rows]


@pytest.mark.parametrize("precision", ["grid", "float16"])
@pytest.mark.parametrize("reset", [True, False])
def test_rules_of_sources_rounding_and_newlines_are_those_of_the_shards(precision: Precision, reset: bool):
    rules = SourceRules(default=RULE, by_source={"code": PatchRule(threshold=4.2), "bytes": PatchRule(scheme="byte")})
    cutter = Cutter(entropy_model(), rules, entropy_precision=precision, reset_at_newline=reset)
    documents = [(["code", "bytes", "prose"][index % 3], text) for index, text in enumerate(texts(30))]
    for (source, data), starts in zip(documents, cutter.starts(documents), strict=True):
        (entropy_nats,) = entropy_model().score([data], reset_at_newline=reset)
        assert starts.tolist() == starts_of(rules.rule_for(source).lengths(data, round_entropies(entropy_nats, precision)))


def test_texts_are_read_as_results_are_taken():
    read = []
    endless = (("", read.append(number) or b"text") for number in range(10**9))
    next(Cutter(None, SourceRules(default=PatchRule(scheme="space"))).starts(endless))
    assert len(read) <= 2
    next(Cutter(entropy_model(), SourceRules(default=RULE)).starts(endless))
    assert len(read) < 1000


def described(data: dict, tmp_path, **changes) -> dict:
    opinionated_blt().save(tmp_path / "blt", {"data": {**data, **changes}})
    return load_model_metadata(tmp_path / "blt", KIND)


def test_a_rule_without_entropies_needs_no_model(trained, tmp_path):
    data = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]
    unknown = {"patch_rule": {"scheme": "space"}, "entropy_model": {"fingerprint": None, "config": None, "context": None}}
    cutter = Cutter.for_blt(described(data, tmp_path, **unknown), tmp_path / "blt", None, CPU)
    assert [starts.tolist() for starts in cutter.starts([("", b"a b")])] == [starts_of(PatchRule(scheme="space").lengths(b"a b"))]


def test_mistakes(trained, tmp_path):
    data = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]
    entropy_model(1).save(tmp_path / "other")
    for changes, folder, kind, message in [
        ({}, None, ConfigError, "Texts are to be cut as the shards were that .*blt was trained on; give their entropy model"),
        ({}, tmp_path / "other", CheckpointError, "other isn't the entropy model of the shards that .*blt was trained on; give that one"),
        (
            {"entropy_model": {"fingerprint": None}},
            trained.entropy_model,
            CheckpointError,
            "Nobody knows which entropy model .* Arrow files",
        ),
    ]:
        with pytest.raises(kind, match=message):
            Cutter.for_blt(described(data, tmp_path, **changes), tmp_path / "blt", folder, CPU)
