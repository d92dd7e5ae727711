import copy
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BltConfig, BltForCausalLM, BltModel

from bltdata.config import to_mapping
from bltdata.entropy import EntropyModel, patcher_config
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.training.checkpoint import load_model_metadata
from bltdata.vocab import encode
from bltmodel.interop import export_blt, import_blt, transformers_config
from bltmodel.model import BLT, KIND
from tests.bltmodel.datasets import RULE, entropy_model, texts
from tests.bltmodel.documents import configs, random_document, tiny_config
from tests.bltmodel.interop.checkpoints import data, exported, patches, saved


def made_by_transformers(config: BltConfig, seed: int = 0) -> BltForCausalLM:
    model = BltForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    return model


@settings(max_examples=max(settings().max_examples // 20, 1))
@given(
    config=configs(pooling="max", encoder_cross_attention="last"),
    # Near the middle of the entropies of such a patcher.
    threshold=st.floats(4.9, 5.3),
    in_pieces=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_logits_of_any_checkpoint_equal(config, threshold, in_pieces, dtype, seed):
    patcher = {"patch_in_forward": True, "patcher_config": patcher_config(entropy_model().config), "patching_threshold": threshold}
    theirs = made_by_transformers(BltConfig(**{**transformers_config(config), **patcher}), seed)
    # What is stored in few bits is computed in many. Not by casting the whole model, which would round its rotary frequencies too.
    for parameter in theirs.parameters():
        parameter.data = parameter.data.to(dtype).float()
    with tempfile.TemporaryDirectory() as folder:
        copy.deepcopy(theirs).to(dtype).save_pretrained(Path(folder) / "in", max_shard_size="20KB" if in_pieces else "1GB")
        assert (Path(folder) / "in" / "model.safetensors.index.json").exists() == in_pieces
        imported = import_blt(Path(folder) / "in", Path(folder) / "out", entropy_model_out=Path(folder) / "entropy-model")
        ours, model = BLT.load(Path(folder) / "out"), EntropyModel.load(Path(folder) / "entropy-model")
        known = load_model_metadata(Path(folder) / "out", KIND)["data"]
    assert (ours.config, known) == (config, imported.data)
    assert known["entropy_model"]["fingerprint"] == model.fingerprint
    rng, compared = np.random.default_rng(seed), 0
    for num_bytes in (50, 12, 12, 6, 6, 3, 3):
        document = random_document(rng, num_bytes, rng.uniform(0.05, 0.9))
        ids = torch.from_numpy(encode(document.data, bos=True))[None]
        with torch.no_grad():
            given_lengths = theirs(ids, patch_lengths=torch.tensor([[1, *document.lengths]])).logits[0]
            their_own = theirs(ids).logits[0]
        torch.testing.assert_close(ours.logits(document.data, document.lengths), given_lengths, atol=1e-4, rtol=0)
        lengths, entropies = patches(document.data, model, imported.rule, known["entropy_precision"])
        # Rounded to float16, whose steps are 1/256 here, an entropy moves by half of one.
        if np.abs(entropies - threshold).min() > 1 / 512 + 1e-5:
            torch.testing.assert_close(ours.logits(document.data, lengths), their_own, atol=1e-4, rtol=0)
            compared += 1
    assert compared > 0


@settings(max_examples=max(settings().max_examples // 20, 1))
@given(config=configs(pooling="max", encoder_cross_attention="last"), seed=st.integers(0, 100), has_patcher=st.booleans())
def test_there_and_back(config, seed, has_patcher):
    described = data(PatchRule(threshold=4.55), train="a fingerprint")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blt, patcher = saved(folder, BLT(config, seed), described)
        export_blt(blt, folder / "out", entropy_model=patcher if has_patcher else None)
        import_blt(folder / "out", folder / "back", entropy_model_out=folder / "patcher-back" if has_patcher else None)
        assert (folder / "back" / "model.safetensors").read_bytes() == (blt / "model.safetensors").read_bytes()
        metadata = load_model_metadata(folder / "back", KIND)
        assert (metadata["config"], metadata["data"], metadata["imported_from"]) == (to_mapping(config), described, "out")
        if has_patcher:
            again = (folder / "patcher-back" / "model.safetensors").read_bytes()
            assert again == (patcher / "model.safetensors").read_bytes()


def test_a_threshold_that_was_changed_since_is_the_one_that_counts(edited):
    imported = import_blt(edited({"patching_threshold": 2.0}), edited.folder / "out")
    assert imported.rule == PatchRule(threshold=2.0)
    assert "train" not in imported.data
    imported = import_blt(edited({"max_patch_length": 6}), edited.folder / "another")
    assert (imported.rule.max_length, imported.rule.scheme) == (6, "entropy")


def test_without_a_patcher_or_a_word_nobody_knows_the_rule(tmp_path):
    blt, _ = saved(tmp_path)
    export_blt(blt, tmp_path / "in")
    imported = import_blt(tmp_path / "in", tmp_path / "out")
    assert (imported.entropy_model, imported.rule) == (None, None)
    assert "data" not in load_model_metadata(tmp_path / "out", KIND)
    with pytest.raises(CheckpointError, match=r"holds no patcher \(no tensor is called model\.patcher\.\.\.\.\)"):
        import_blt(tmp_path / "in", tmp_path / "again", entropy_model_out=tmp_path / "patcher")
    assert not (tmp_path / "again").exists()


def test_generating_after_an_import(tmp_path):
    blt = exported(tmp_path / "in")
    imported = import_blt(blt, tmp_path / "out")
    options = {"entropy_model": entropy_model(), "rule": RULE, "max_new_bytes": 6}
    known = imported.data
    (new,) = imported.model.generate(
        [b"abc"], **options | {"rule": PatchRule(**known["patch_rule"])}, entropy_precision=known["entropy_precision"]
    )
    assert [new] == BLT.load(tmp_path / "in-made-of" / "blt").generate([b"abc"], **options)


# ---------------------------------------------------------------------------------------------------- what isn't a BLT


class Edited:
    """A checkpoint whose settings and tensors were changed after it was written; None takes one out."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = original
        self.folder = folder

    def __call__(self, config: dict[str, Any] | None = None, tensors: dict[str, torch.Tensor | None] | None = None) -> Path:
        checkpoint = self.folder / "in"
        shutil.rmtree(checkpoint, ignore_errors=True)
        shutil.copytree(self._original, checkpoint)
        stored = json.loads((checkpoint / "config.json").read_text())
        for key, value in (config or {}).items():
            *tables, name = key.split(".")
            place = stored
            for table in tables:
                place = place[table]
            place[name] = value
        (checkpoint / "config.json").write_text(json.dumps(stored))
        if tensors:
            weights = load_file(checkpoint / "model.safetensors") | tensors
            save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, checkpoint / "model.safetensors")
        return checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("checkpoint") / "out")


@pytest.fixture
def edited(original, tmp_path) -> Edited:
    return Edited(original, tmp_path)


ENCODER = "config.json, encoder_config"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "config.json, key 'model_type' is 'llama'; give a transformers checkpoint of a BLT ('blt')."),
        ({"model_type": ["blt"]}, "config.json, key 'model_type' is ['blt']; give a transformers checkpoint of a BLT ('blt')."),
        ({"model_type": "blt_patcher"}, "config.json, key 'model_type' is 'blt_patcher'; give a transformers checkpoint of a BLT ('blt')."),
        ({"vocab_size": 256}, "config.json, key 'vocab_size' is 256; a BLT like this has 260 only."),
        ({"cross_attn_k": "2"}, "config.json, key 'cross_attn_k' is '2'; it must be of type int."),
        ({"cross_attn_k": 3}, f"{ENCODER}, key 'cross_attn_k' is 2; a BLT like this has 3 only."),
        ({"local_attention_window_len": None}, "config.json, key 'local_attention_window_len' is null, so a byte sees all before it, and"),
        ({"encoder_hash_byte_group_nb_functions": 12}, "config.json makes no BLT: The BLT's hash_functions is 12; there are 11 at most."),
        ({"encoder_hash_byte_group_size": [4, 3]}, "config.json makes no BLT: The BLT's ngram_sizes are [4, 3]; they must be lengths in"),
        ({"encoder_config": 3}, "config.json, key 'encoder_config' is 3; it must be a table: copy the checkpoint again."),
        ({"encoder_config.num_attention_heads": 3}, "config.json makes no BLT: The BLT's local_dim is 16 with 3 heads; it must be a"),
        ({"encoder_config.num_key_value_heads": 1}, f"{ENCODER}, key 'num_key_value_heads' is 1; a BLT like this has 2 only."),
        ({"encoder_config.hidden_act": "gelu"}, f"{ENCODER}, key 'hidden_act' is 'gelu'; a BLT like this has 'silu' only."),
        (
            {"encoder_config.cross_attn_all_layers": True, "encoder_config.num_hidden_layers": 2},
            f"{ENCODER}, key 'cross_attn_all_layers' is true with 2 layers, where transformers pools the bytes anew after each; a BLT",
        ),
        ({"encoder_config.rope_parameters": {"rope_type": "yarn"}}, f"{ENCODER}, key 'rope_parameters' is {{'rope_type': 'yarn'}}; a BLT"),
        ({"decoder_config.hidden_size": 32}, "config.json, decoder_config, key 'hidden_size' is 32; a BLT like this has 16 only."),
        ({"decoder_config.intermediate_size": 8}, "config.json, decoder_config, key 'intermediate_size' is 8; a BLT like this has 24"),
        ({"decoder_config.num_attention_heads": 4}, "config.json, decoder_config, key 'num_attention_heads' is 4; a BLT like this has 2"),
        ({"decoder_config.cross_attn_all_layers": False}, "decoder_config, key 'cross_attn_all_layers' is False; a BLT like this has True"),
        ({"decoder_config.hidden_size_global": 48}, "decoder_config, key 'hidden_size_global' is 48; a BLT like this has 24 only."),
        ({"decoder_config.rms_norm_eps": 1e-3}, "decoder_config, key 'rms_norm_eps' is 0.001; a BLT like this has 1e-05 only."),
        ({"global_config.rope_parameters": {"rope_theta": 7.0}}, "global_config has a rope_theta of 7; a BLT like this has 500000 in all"),
        ({"global_config.head_dim": 6}, "config.json, global_config, key 'head_dim' is 6; a BLT like this has 12 only."),
        ({"patching_mode": "space"}, "config.json, key 'patching_mode' is 'space', for which transformers has no patches of its own;"),
        ({"patching_threshold": None}, "config.json, key 'patching_threshold' is None, for which transformers has no patches of its own;"),
        ({"patch_size": None}, "config.json, key 'patch_size' is null, for which transformers takes every byte for a patch, whatever the"),
        ({"patching_threshold": 9.0}, "config.json makes no patch rule: threshold is 9.0; it must lie between 0 and ln 260"),
        ({"patcher_config.sliding_window": None}, "patcher_config, key 'sliding_window' is null, so a position sees all before it, and an"),
        ({"bltmodel_data": {"patch_rule": {}}}, "config.json, key 'bltmodel_data' isn't what bltmodel export wrote; export it again"),
        ({"decoder_config.num_hidden_layers": 3}, " lack model.local_decoder.cross_attn_layers.2.k_norm.weight; copy the checkpoint again"),
        ({"decoder_config.num_hidden_layers": 1}, " have model.local_decoder.cross_attn_layers.1.k_norm.weight, which a BLT hasn't;"),
        ({"encoder_hash_byte_group_vocab": 100}, "encoder_hash_tok_embedding.weight, has shape [606, 16], and "),
    ],
)  # fmt: skip
def test_settings_that_a_blt_has_not(edited: Edited, config: dict[str, Any], message: str):
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        import_blt(edited(config), edited.folder / "out", entropy_model_out=edited.folder / "patcher")
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")
    assert not (edited.folder / "out").exists()
    assert not (edited.folder / "patcher").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lm_head.weight": None}, " lack lm_head.weight; copy the checkpoint again, or give one with the layers of config.json"),
        ({"model.local_decoder.norm.bias": torch.zeros(16)}, " have model.local_decoder.norm.bias, which a BLT hasn't; copy"),
        ({"lm_head.weight": torch.zeros(260, 17)}, "tensor lm_head.weight, has shape [260, 17], and "),
        ({"lm_head.weight": torch.zeros(260, 16, dtype=torch.int8)}, "tensor lm_head.weight, is stored as int8; save the checkpoint in"),
        ({"model.patcher.norm.weight": None}, " lack model.patcher.norm.weight; copy the checkpoint again, or give one whose patcher has"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(edited: Edited, tensors: dict[str, torch.Tensor | None], message: str):
    with pytest.raises(CheckpointError) as caught:
        import_blt(edited(tensors=tensors), edited.folder / "out")
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")


Spoil = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            r"holds no transformers checkpoint \(config\.json is missing\); give what",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json can't be read \(.*\); copy the checkpoint again\.$"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing; copy the whole checkpoint, or save it"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), r"model\.safetensors can't be read \(.*\); copy the checkpoint"),
    ],
)
def test_files_that_are_missing_or_damaged(edited: Edited, spoil: Spoil, message: str):
    checkpoint = edited()
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=message):
        import_blt(checkpoint, edited.folder / "out")


def test_options_that_nothing_reads(tmp_path):
    blt, patcher = saved(tmp_path, described=data())
    export_blt(blt, tmp_path / "without")
    with pytest.raises(ConfigError, match=r"A window of 9 is given, but .*without doesn't patch by itself and its patcher isn't asked for"):
        import_blt(tmp_path / "without", tmp_path / "out", window=9)
    export_blt(blt, tmp_path / "with", entropy_model=patcher)
    with pytest.raises(ConfigError, match=r"Both models would be written to .*out; give two folders"):
        import_blt(tmp_path / "with", tmp_path / "out", entropy_model_out=tmp_path / "x" / ".." / "out")
    assert import_blt(tmp_path / "with", tmp_path / "out", window=9).entropy_model.config.window == 9


def test_a_model_without_a_head(tmp_path):
    BltModel(BltConfig(**transformers_config(tiny_config()))).save_pretrained(tmp_path / "in")
    with pytest.raises(CheckpointError, match="in holds a BltModel, which predicts nothing; give what save_pretrained of a BltForCausalLM"):
        import_blt(tmp_path / "in", tmp_path / "out")


def test_settings_that_are_not_spelled_out_are_those_of_transformers():
    # Meta tensors: the default is the shape of the released 1B model.
    from bltmodel.interop.architecture import own_config

    made = BltConfig()
    stored = {"encoder_config": {"intermediate_size": 2816}, "decoder_config": None, "model_type": "blt"}
    own = own_config(stored, Path("config.json"))
    spelled_out = {**made.to_dict(), "encoder_config": {**made.encoder_config.to_dict(), "intermediate_size": 2816}}
    assert own == own_config(spelled_out, Path("config.json"))
    assert (own.window, own.norm_eps, own.rope_theta) == (made.local_attention_window_len, 1e-5, 500_000.0)


def test_documents_of_both_sides_are_the_same():
    # So that the tests above compare what they say they do.
    document = texts(1, seed=3)[0]
    assert encode(document, bos=True).tolist() == [1, *(byte + 4 for byte in document)]
