"""The `bpe` rule, against tokenizers that the tests train."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.config import from_mapping, to_mapping
from bltdata.errors import PatchingError
from bltdata.patching import PatchRule, bpe

tokenizers = pytest.importorskip("tokenizers")

TEXT = "hello world, the cat said hello to the caf\u00e9 in \u65e5\u672c the end \U0001f600 "


def byte_level() -> Any:
    """As GPT-2's: any byte can be a token, spaces belong to the word after, and offsets are trimmed in post-processing."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def byte_fallback() -> Any:
    """As Llama's: characters, and bytes for characters that it doesn't know."""
    pieces = ["\u2581", "a", "b", "ab", "\u2581ab"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [("a", "b"), ("\u2581", "ab")]
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return tokenizer


def normalising() -> Any:
    """As BERT's: accents and case are dropped, white space too, and special tokens are added around."""
    vocab = {"[UNK]": 0, "[CLS]": 1, "cafe": 2, "noir": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    steps = (tokenizers.normalizers.NFD(), tokenizers.normalizers.StripAccents(), tokenizers.normalizers.Lowercase())
    tokenizer.normalizer = tokenizers.normalizers.Sequence(list(steps))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    return tokenizer


MAKERS = {"byte-level": byte_level, "byte-fallback": byte_fallback, "normalising": normalising}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, make in MAKERS.items():
        make().save(str(folder / f"{name}.json"))
    return {name: str(folder / f"{name}.json") for name in MAKERS}


def cut(path: str, data: bytes) -> list[bytes]:
    lengths = PatchRule(scheme="bpe", tokenizer=path).lengths(data)
    ends = np.cumsum(lengths)
    assert ends[-1] == len(data) + 1
    assert not data or lengths[-1] == 1, "the end is a token"
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)][: -1 if data else None]


def test_tokens_are_patches(paths: dict[str, str]) -> None:
    assert cut(paths["byte-level"], b"hello world the") == [b"hello", b" world", b" the"]
    assert cut(paths["byte-fallback"], b"ab ab ba") == [b"ab", b" ab", b" ", b"b", b"a"]
    assert cut(paths["normalising"], "  Caf\u00e9  noir x".encode()) == [b"  ", "Caf\u00e9  ".encode(), b"noir ", b"x"]
    for path in paths.values():
        assert cut(path, b"") == [b""]


def test_byte_level_tokens_inside_characters_are_where_their_bytes_are(paths: dict[str, str]) -> None:
    # The tokens say themselves which bytes they are, one after the other.
    text = " \u65e5\u672c \U0001f601 \u0416\u00fc"
    tokens = byte_level().encode(text, add_special_tokens=False).tokens
    patches = cut(paths["byte-level"], text.encode())
    assert patches == [bpe._bytes_of(token) for token in tokens]
    assert any(not _is_utf8(patch) for patch in patches)


def _is_utf8(data: bytes) -> bool:
    try:
        return bool(data.decode()) or True
    except UnicodeDecodeError:
        return False


def test_byte_fallback_tokens_are_bytes(paths: dict[str, str]) -> None:
    assert cut(paths["byte-fallback"], "a\u65e5b".encode()) == [b"a", b"\xe6", b"\x97", b"\xa5", b"b"]


def test_bytes_that_are_no_utf8_are_tokens_of_their_own(paths: dict[str, str]) -> None:
    for path in paths.values():
        patches = cut(path, b"\xffab\xe6\x97ab\xc3")
        assert [patch for patch in patches if patch not in (b"a", b"b", b"ab")] == [b"\xff", b"\xe6", b"\x97", b"\xc3"]
        assert b"".join(patches) == b"\xffab\xe6\x97ab\xc3"
        # What stands between them is tokenized as if it were alone.
        assert patches[1 : patches.index(b"\xe6")] == cut(path, b"ab")


@settings(max_examples=500)
@given(st.text(max_size=30) | st.text("ab helo\n\u00e9\u65e5\U0001f600", max_size=30))
def test_byte_level_tokens_of_any_text(paths: dict[str, str], text: str) -> None:
    tokens = TRAINED.encode(text, add_special_tokens=False).tokens
    assert cut(paths["byte-level"], text.encode()) == ([bpe._bytes_of(token) for token in tokens] or [b""])


TRAINED = byte_level()


@settings(max_examples=500)
@given(st.binary(max_size=40), st.binary(max_size=10), st.sampled_from(sorted(MAKERS)), st.integers(1, 4), st.none() | st.integers(4, 9))
def test_any_bytes(paths: dict[str, str], data: bytes, other: bytes, name: str, min_length: int, max_length: int | None) -> None:
    rule = PatchRule(scheme="bpe", tokenizer=paths[name], min_length=min_length, max_length=max_length)
    lengths = rule.lengths(data)
    assert lengths.sum() == len(data) + 1
    assert lengths.max() <= (max_length or len(data) + 1)
    assert lengths[:-1].min(initial=min_length) >= min_length
    together, offsets = rule.lengths_of_documents(data + other, [0, len(data), len(data) + len(other)])
    assert together[: offsets[1]].tolist() == lengths.tolist()
    assert together[offsets[1] :].tolist() == rule.lengths(other).tolist()


def test_it_is_refused_while_generating(paths: dict[str, str]) -> None:
    rule = PatchRule(scheme="bpe", tokenizer=paths["byte-level"])
    assert not rule.is_incremental
    assert rule.needs_bytes
    assert not rule.needs_entropies
    with pytest.raises(PatchingError, match=r"'bpe' needs the whole document .* while generating there is only its beginning"):
        rule.stepper()


def test_the_file_is_known_by_its_content(paths: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(Path(paths["byte-level"]).read_bytes())
    rule = PatchRule(scheme="bpe", tokenizer=str(path))
    assert rule.tokenizer_fingerprint == PatchRule(scheme="bpe", tokenizer=paths["byte-level"]).tokenizer_fingerprint
    assert len(rule.tokenizer_fingerprint or "") == 16
    assert from_mapping(PatchRule, to_mapping(rule)) == rule
    assert json.loads(json.dumps(to_mapping(rule))) == to_mapping(rule)
    stored = to_mapping(rule)
    path.write_bytes(Path(paths["normalising"]).read_bytes())
    bpe.load_tokenizer.cache_clear()
    with pytest.raises(PatchingError, match=f"has the fingerprint .* and the rule asks for {rule.tokenizer_fingerprint}; give the file"):
        PatchRule(**stored).lengths(b"hello")
    # A dataset can be opened where its tokenizer is not.
    path.unlink()
    assert PatchRule(**stored) == rule


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    for content in ("{}", "not JSON", "[1]"):
        path = tmp_path / "tokenizer.json"
        path.write_text(content)
        with pytest.raises(PatchingError, match="is no tokenizer that the installed tokenizers can read"):
            PatchRule(scheme="bpe", tokenizer=str(path)).lengths(b"abc")


def test_without_the_library(paths: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    bpe.load_tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PatchingError, match=r"needs the package tokenizers; install it with pip install 'blt-toolkit\[hf\]'"):
        PatchRule(scheme="bpe", tokenizer=paths["byte-level"]).lengths(b"abc")
