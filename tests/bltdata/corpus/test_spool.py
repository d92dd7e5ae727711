import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.corpus import Document, Spool, open_corpus, write_spool
from bltdata.errors import CorpusError


def documents(*contents):
    return [Document(f"s/{index}", "s", data) for index, data in enumerate(contents)]


@pytest.fixture
def spool(tmp_path):
    return write_spool(documents(b"one", b"", b"\xff\0"), tmp_path / "spool", fingerprint="abc")


@given(st.lists(st.binary(max_size=20), max_size=10))
@settings(max_examples=25)
def test_round_trip(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("spools") / "spool"
    for spool in (write_spool(documents(*contents), folder), Spool.open(folder)):
        assert [document.tobytes() for document in spool] == contents
        assert (spool.num_documents, len(spool), spool.num_bytes) == (len(contents), len(contents), sum(map(len, contents)))
        assert spool.lengths.dtype == np.int64
        assert spool.lengths.tolist() == [len(data) for data in contents]


def test_a_document_is_a_view_that_cannot_be_written(spool):
    document = spool.document(2)
    assert (document.dtype, document.tobytes()) == (np.uint8, b"\xff\0")
    assert not document.flags.owndata
    assert not document.flags.writeable
    assert spool.document(1).shape == (0,)


@pytest.mark.parametrize("index", [3, -1])
def test_no_such_document(spool, index):
    with pytest.raises(IndexError, match=f"There is no document {index}: the spool has 3"):
        spool.document(index)


def test_what_is_in_the_folder(spool):
    assert sorted(path.name for path in spool.folder.iterdir()) == ["data.bin", "offsets.npy", "spool.json"]
    assert json.loads((spool.folder / "spool.json").read_text()) == {
        "format_version": 1,
        "num_documents": 3,
        "num_bytes": 5,
        "fingerprint": "abc",
    }
    assert np.load(spool.folder / "offsets.npy").tolist() == [0, 3, 3, 5]
    assert (spool.folder / "data.bin").read_bytes() == b"one\xff\0"


def test_a_corpus_is_spooled(tmp_path):
    corpus = open_corpus("python-docs#limit=20")
    spool = write_spool(corpus, tmp_path, fingerprint=corpus.fingerprint)
    assert [document.tobytes() for document in spool] == [document.data for document in corpus]
    assert Spool.open(tmp_path).fingerprint == corpus.fingerprint


def test_it_pickles_without_its_content(tmp_path):
    spool = write_spool(documents(b"x" * 10_000), tmp_path)
    pickled = pickle.dumps(spool)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).document(0).tobytes() == b"x" * 10_000


def test_an_interrupted_writer_leaves_no_spool(spool):
    def interrupted():
        yield Document("s/0", "s", b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_spool(interrupted(), spool.folder)
    with pytest.raises(CorpusError, match=r"There is no spool in .*spool: spool\.json is missing; write it first"):
        Spool.open(spool.folder)
    assert [document.tobytes() for document in write_spool(documents(b"new"), spool.folder)] == [b"new"]


def test_leftovers_of_a_killed_writer_go(spool):
    (spool.folder / ".data.bin.999999.tmp").write_bytes(b"half")
    write_spool([], spool.folder)
    assert sorted(path.name for path in spool.folder.iterdir()) == ["data.bin", "offsets.npy", "spool.json"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data.bin", b"on", r"spool is damaged: its files don't have the sizes that spool\.json says; delete the folder and spool again"),
        ("data.bin", b"", r"is damaged: its files don't have the sizes"),
        ("offsets.npy", b"no numpy", r"offsets\.npy is damaged: .+; delete the folder"),
        ("offsets.npy", b"", r"offsets\.npy can't be read: .+; it may be damaged"),
        ("offsets.npy", None, r"offsets\.npy can't be read: No such file"),
        ("data.bin", None, r"data\.bin can't be read: No such file"),
        ("spool.json", b"{", r"spool\.json is damaged: .+; delete the folder"),
        ("spool.json", b"[]", r"spool\.json has the format version None, but this program reads 1"),
        ("spool.json", b'{"format_version": 2, "more": 1}', r"spool\.json has the format version 2, but this program reads 1; spool again"),
    ],
)
def test_damage_is_noticed(spool, file, content, message):
    path = spool.folder / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        Spool.open(spool.folder)
