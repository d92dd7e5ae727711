import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import BltForCausalLM

from bltdata.config import to_mapping
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import cut_alike
from bltdata.vocab import encode
from bltmodel.interop import export_blt, import_blt, transformers_names
from bltmodel.model import BLT
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts
from tests.bltmodel.documents import configs, tiny_config
from tests.bltmodel.interop.checkpoints import data, patches, saved


def opened(folder: Path) -> BltForCausalLM:
    model, report = BltForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    return model


def their_logits(model: BltForCausalLM, document: bytes, **inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(encode(document, bos=True))[None], **inputs).logits[0]


@settings(max_examples=max(settings().max_examples // 20, 1))
@given(
    config=configs(pooling="max", encoder_cross_attention="last"),
    steps=st.integers(1000, 1250),
    precision=st.sampled_from(["grid", "float16"]),
    seed=st.integers(0, 1000),
)
def test_logits_equal_with_and_without_patch_lengths(config, steps, precision, seed):
    # An untrained entropy model's entropies lie between these thresholds; thresholds between the steps are no different.
    rule = PatchRule(threshold=(steps + 0.3) / 256)
    ours = BLT(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        blt, patcher = saved(Path(folder), ours, data(rule, entropy_precision=precision))
        threshold = export_blt(blt, Path(folder) / "out", entropy_model=patcher).threshold
        theirs = opened(Path(folder) / "out")
    compared = 0
    for document in [*texts(4, longest=60, seed=seed), b""]:
        lengths, entropies = patches(document, entropy_model(), rule, precision)
        expected = ours.logits(document, lengths)
        torch.testing.assert_close(their_logits(theirs, document, patch_lengths=torch.tensor([[1, *lengths]])), expected, atol=1e-4, rtol=0)
        # Nearer to the threshold than the two computations of it are to one another, either is right.
        if np.abs(entropies - threshold).min() > 1e-5:
            torch.testing.assert_close(their_logits(theirs, document), expected, atol=1e-4, rtol=0)
            compared += 1
    assert compared > 0


def test_patches_are_those_of_the_shards_where_rounding_matters(tmp_path):
    # A threshold between the rounded and the unrounded entropy of a byte that is near the middle between two steps.
    document = b"abcabdcab" * 5
    entropies = patches(document, entropy_model(), RULE, "grid")[1]
    steps = np.floor(entropies * 256)
    up = int(np.flatnonzero((entropies * 256 - steps > 0.55) & (entropies * 256 - steps < 0.95))[0])
    rule = PatchRule(threshold=float((steps[up] + 0.97) / 256))
    assert entropies[up] < rule.threshold
    lengths, _ = patches(document, entropy_model(), rule, "grid")
    assert up in np.cumsum([0, *lengths])
    blt, patcher = saved(tmp_path, described=data(rule))
    export_blt(blt, tmp_path / "out", entropy_model=patcher)
    torch.testing.assert_close(their_logits(opened(tmp_path / "out"), document), BLT.load(blt).logits(document, lengths), atol=1e-4, rtol=0)


def test_what_is_in_the_folder(tmp_path):
    blt, patcher = saved(tmp_path, described=data())
    told = export_blt(blt, tmp_path / "new" / "out", entropy_model=patcher)
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["architectures"], config["use_cache"]) == ("blt", ["BltForCausalLM"], False)
    assert (config["patch_in_forward"], config["patching_threshold"]) == (True, told.threshold)
    assert json.loads((out / "generation_config.json").read_text())["use_cache"] is False
    with safe_open(out / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert file.metadata() == {"format": "pt"}
        assert told.num_parameters == sum(file.get_tensor(name).numel() for name in names)
    assert transformers_names(tiny_config()).keys() == {name for name in names if not name.startswith("model.patcher.")}


def test_transformers_generates_what_we_would(tmp_path):
    blt, patcher = saved(tmp_path, described=data())
    export_blt(blt, tmp_path / "out", entropy_model=patcher)
    prompt = b"abcabd"
    ids = torch.from_numpy(encode(prompt, bos=True))[None]
    theirs = opened(tmp_path / "out").generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, 7:].tolist()
    ours, model, document = [], BLT.load(blt), prompt
    for _ in theirs:
        ours.append(int(model.logits(document, patches(document, entropy_model(), RULE, "grid")[0])[-1].argmax()))
        if ours[-1] < 4:
            break
        document += bytes([ours[-1] - 4])
    assert theirs[: len(ours)] == ours


def test_without_an_entropy_model_any_rule_will_do(tmp_path):
    blt, _ = saved(tmp_path, described=data(PatchRule(scheme="space")))
    assert export_blt(blt, tmp_path / "out").threshold is None
    theirs = opened(tmp_path / "out")
    assert (theirs.model.patcher, theirs.config.patch_in_forward) == (None, False)
    expected = BLT.load(blt).logits(b"ab cd", [3, 3])
    torch.testing.assert_close(their_logits(theirs, b"ab cd", patch_lengths=torch.tensor([[1, 3, 3]])), expected, atol=1e-4, rtol=0)


def test_a_checkpoint_says_nothing_of_where_a_tokenizer_lay(tmp_path):
    rule = PatchRule(scheme="bpe", tokenizer=str(tmp_path / "of-mine" / "words.json"), tokenizer_fingerprint="0123456789abcdef")
    by_source = {"code": to_mapping(rule), "prose": to_mapping(RULE)}
    blt, _ = saved(tmp_path, described=data(rule, source_rules=by_source))
    export_blt(blt, tmp_path / "out")
    written = (tmp_path / "out" / "config.json").read_text()
    assert "of-mine" not in written
    known = import_blt(tmp_path / "out", tmp_path / "again").data
    assert (known["patch_rule"]["tokenizer"], known["source_rules"]["code"]["tokenizer"]) == ("words.json", "words.json")
    assert cut_alike(known, data(rule, source_rules=by_source))


def test_a_threshold_is_taken_as_transformers_has_it(tmp_path):
    blt, patcher = saved(tmp_path, described=data(PatchRule(scheme="space")))
    assert export_blt(blt, tmp_path / "out", entropy_model=patcher, threshold=4.5001).threshold == 4.5001
    assert opened(tmp_path / "out").config.patching_threshold == 4.5001
    # A whole number is a number.
    assert export_blt(blt, tmp_path / "whole", entropy_model=patcher, threshold=4).threshold == 4.0
    assert opened(tmp_path / "whole").config.patching_threshold == 4.0
    blt, patcher = saved(tmp_path / "untrained")
    assert export_blt(blt, tmp_path / "another", entropy_model=patcher, threshold=1.0).threshold == 1.0


@pytest.mark.parametrize(
    ("described", "options", "error", "message"),
    [
        (None, {}, CheckpointError, "blt doesn't say what it was trained on, so nobody knows its patches; say with --threshold."),
        (
            data(PatchRule(scheme="space")),
            {},
            ConfigError,
            "was trained on were cut by the rule 'space'; export it without",
        ),
        (
            data(PatchRule(threshold=1.0, max_length=9)),
            {},
            ConfigError,
            "was trained on were cut with a max_length of 9; export it",
        ),
        (data(entropy_model={"fingerprint": "0123"}), {}, CheckpointError, "entropy-model isn't the entropy model of the shards that"),
        (data(entropy_model={"fingerprint": "0123"}), {"threshold": 1.0}, CheckpointError, "entropy-model isn't the entropy model of the"),
        (data(entropy_model={"fingerprint": None}), {}, CheckpointError, "Nobody knows which entropy model made the shards that"),
        (data(), {"threshold": 7.0}, ConfigError, "threshold is 7.0; it must lie between 0 and ln 260"),
    ],
)
def test_patches_that_transformers_cannot_make(tmp_path, described, options, error, message):
    blt, patcher = saved(tmp_path, described=described)
    with pytest.raises(error, match=message):
        export_blt(blt, tmp_path / "out", entropy_model=patcher, **options)
    assert not (tmp_path / "out").exists()


def test_other_mistakes(tmp_path):
    blt, patcher = saved(tmp_path)
    with pytest.raises(ConfigError, match=r"A threshold of 1\.0 is given without an entropy model, so nothing would read it"):
        export_blt(blt, tmp_path / "out", threshold=1.0)
    with pytest.raises(CheckpointError, match="holds no model"):
        export_blt(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"holds bltdata\.EntropyModel, but bltmodel\.BLT is wanted here"):
        export_blt(patcher, tmp_path / "out")
    opinionated_blt(pooling="mean").save(tmp_path / "mean")
    with pytest.raises(ConfigError, match="pooling is 'mean'"):
        export_blt(tmp_path / "mean", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="isn't empty"):
        export_blt(blt, tmp_path / "full")
    assert not (tmp_path / "out").exists()
