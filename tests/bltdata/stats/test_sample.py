import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.compressors import CompressedSizes
from bltdata.errors import ConfigError
from bltdata.shards import open_shards
from bltdata.stats import take_sample
from tests.bltdata import damage
from tests.bltdata.stats.contexts import context_bits

Rows = list[dict[str, Any]]


def test_a_small_dataset_is_its_own_sample(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    everything = [*rows(30), *rows(20, seed=1)]
    sample = take_sample(open_shards(dataset_folder(everything[:30], everything[30:])))
    documents = [each["data"] for each in everything]
    total = sum(map(len, documents))
    xz = CompressedSizes(["xz"])
    for document in documents:
        xz.add(document)
    none, _, second = context_bits(documents)
    assert (sample.num_documents, sample.num_bytes, sample.num_cut_otherwise, sample.num_tokens) == (50, total, 0, None)
    assert sample.num_patches == sum(len(each["patch_lengths"]) for each in everything)
    assert sample.model_bits_per_byte == pytest.approx(sum(each["nll_nats"] for each in everything) / math.log(2) / total)
    assert (sample.order_0_bits_per_byte, sample.order_2_bits_per_byte) == (none / total, second / total)
    assert sample.compressor_bits_per_byte == 8 * xz.finish()["xz"] / total


@pytest.mark.parametrize("max_bytes", [1, 700, 3000, 8000])
def test_a_sample_is_no_larger_than_asked(dataset_folder: Callable[..., Path], rows: Callable[..., Rows], max_bytes: int) -> None:
    dataset = open_shards(dataset_folder(rows(40), rows(40, seed=2)))
    sample = take_sample(dataset, max_bytes=max_bytes)
    assert sample == take_sample(dataset, max_bytes=max_bytes)
    assert sample.num_documents >= 1
    # One document is taken however long it is.
    assert sample.num_bytes <= max(max_bytes, 400)
    assert sample.num_bytes > max_bytes / 2 or max_bytes < 700


def test_patches_that_were_not_cut_by_the_rule_are_counted(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    folder = dataset_folder(rows(30))
    damage.rewrite(folder, 0, damage.both(*(damage.change_list("patch_lengths", row, lambda lengths: [lengths.sum()]) for row in (3, 7))))
    assert take_sample(open_shards(folder)).num_cut_otherwise == 2
    fixed = dataset_folder(rows(30), name="fixed", patch_rule={"scheme": "fixed", "stride": 4})
    unknown = dataset_folder(rows(30), name="unknown", patch_rule={"scheme": "somebody's"})
    assert [take_sample(open_shards(folder)).num_cut_otherwise for folder in (fixed, unknown)] == [None, None]


def test_an_unknown_likelihood_leaves_the_model_unknown(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    documents = rows(20)
    documents[3]["nll_nats"] = None
    sample = take_sample(open_shards(dataset_folder(documents, entropy_model={"fingerprint": None})))
    assert sample.model_bits_per_byte is None
    assert sample.order_2_bits_per_byte is not None


def test_tokens_beside_patches(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hello": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    dataset = open_shards(dataset_folder([row("a", b"hello big world"), row("b", b"hello")]))
    sample = take_sample(dataset, tokenizer=tmp_path / "tokenizer.json")
    # Three words and an end, one word and an end.
    assert (sample.num_tokens, sample.bytes_per_token) == (6, 20 / 6)
    with pytest.raises(ConfigError, match="Cannot read the tokenizer"):
        take_sample(dataset, tokenizer=tmp_path / "nothing.json")


def test_no_documents_and_no_room(dataset_folder: Callable[..., Path]) -> None:
    dataset = open_shards(dataset_folder([]))
    sample = take_sample(dataset)
    assert (sample.num_documents, sample.model_bits_per_byte, sample.compressor_bits_per_byte) == (0, None, None)
    assert sample.to_mapping()["bytes_per_patch"] is None
    with pytest.raises(ConfigError, match="at least 1"):
        take_sample(dataset, max_bytes=0)
