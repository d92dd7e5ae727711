import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from bltdata.errors import ConfigError
from bltdata.vocab import VOCAB_SIZE, encode
from bltmodel.interop import build_tokenizer
from bltmodel.interop.tokenizer import SPECIAL_TOKENS
from tests.bltmodel.interop.checkpoints import exported

texts = st.one_of(st.text(), st.lists(st.sampled_from([*SPECIAL_TOKENS.values(), "a", " ", "\n", "\u00e9", "<|"])).map("".join))


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory):
    return AutoTokenizer.from_pretrained(exported(tmp_path_factory.mktemp("checkpoint") / "out"))


@given(texts)
def test_ids_are_those_of_the_bytes(of_transformers, text):
    ids = encode(text.encode(), bos=True).tolist()
    assert of_transformers(text).input_ids == ids
    assert of_transformers.decode(ids, skip_special_tokens=True) == text


@given(st.text())
def test_the_file_alone_gives_the_same_ids(text):
    tokenizer = Tokenizer.from_str(build_tokenizer().to_str())
    ids = encode(text.encode(), bos=True).tolist()
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids) == text
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(f"<|eos|>{text}").ids == encode(f"<|eos|>{text}".encode(), bos=True).tolist()


def test_every_id_has_a_name(of_transformers):
    assert len(of_transformers) == VOCAB_SIZE
    assert (of_transformers.bos_token_id, of_transformers.eos_token_id, of_transformers.pad_token_id) == (1, 2, 0)
    assert of_transformers.padding_side == "right"
    vocabulary = of_transformers.get_vocab()
    assert sorted(vocabulary.values()) == list(range(VOCAB_SIZE))


def test_two_texts_are_two_documents(of_transformers):
    assert of_transformers("a", "b").input_ids == [1, 101, 1, 102]


def test_without_the_package(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"tokenizer\.json needs the package tokenizers; install it with pip install"):
        build_tokenizer()
