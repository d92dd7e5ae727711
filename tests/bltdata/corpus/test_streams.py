import builtins
import bz2
import gzip
import lzma

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.corpus.streams import COMPRESSED_ENDINGS, estimate_raw_bytes, is_compressed, open_binary
from bltdata.errors import CorpusError


def compress_zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": compress_zstd}


def test_every_ending_is_tested():
    assert set(COMPRESS) == set(COMPRESSED_ENDINGS)


@pytest.mark.parametrize("ending", [*COMPRESS, ".GZ", ".txt", ""])
@pytest.mark.parametrize("data", [b"", b"\n", bytes(range(256)) * 3, b"line\r\n\n" * 100_000], ids=["empty", "newline", "bytes", "big"])
def test_read(tmp_path, ending, data):
    path = tmp_path / f"file{ending}"
    path.write_bytes(COMPRESS.get(ending.lower(), bytes)(data))
    with open_binary(str(path)) as stream:
        assert stream.read() == data
    with open_binary(str(path)) as stream:
        assert b"".join(stream) == data


@given(first=st.binary(), second=st.binary(), ending=st.sampled_from(COMPRESSED_ENDINGS))
def test_files_put_one_after_the_other(tmp_path_factory, first, second, ending):
    """As `cat a.gz b.gz` does, and programs that compress in parallel."""
    path = tmp_path_factory.mktemp("joined") / f"file{ending}"
    path.write_bytes(COMPRESS[ending](first) + COMPRESS[ending](second))
    with open_binary(str(path)) as stream:
        assert stream.read() == first + second


@pytest.mark.parametrize("ending", COMPRESSED_ENDINGS)
def test_a_file_that_was_cut_off(tmp_path, ending):
    path = tmp_path / f"file{ending}"
    whole = COMPRESS[ending](bytes(range(256)) * 50)
    path.write_bytes(whole[: len(whole) - 9])
    message = rf"file{ending} can't be read: .+; it may be damaged or cut off\."
    with pytest.raises(CorpusError, match=message), open_binary(str(path)) as stream:
        stream.read()


@pytest.mark.parametrize("ending", COMPRESSED_ENDINGS)
def test_a_file_that_is_something_else(tmp_path, ending):
    path = tmp_path / f"file{ending}"
    path.write_bytes(b"This was never compressed.")
    with pytest.raises(CorpusError, match=rf"file{ending} can't be read: .+; it may be damaged"), open_binary(str(path)) as stream:
        stream.read()


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    message = r"secret\.txt can't be read: Permission denied; check its permissions\."
    with pytest.raises(CorpusError, match=message), open_binary("secret.txt"):
        pass


def test_others_errors_pass(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a")
    with pytest.raises(ZeroDivisionError), open_binary(str(tmp_path / "a.txt")):
        raise ZeroDivisionError


def test_estimates():
    assert is_compressed("a.txt.GZ")
    assert not is_compressed("gz")
    assert estimate_raw_bytes("a.txt", 10) == 10
    assert estimate_raw_bytes("a.gz", 10) > 10
