import json
import platform
import sysconfig
from pathlib import Path

import pytest

from bltdata.corpus import open_corpus, python_docs
from bltdata.errors import CorpusError

STDLIB = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def documents():
    return {document.doc_id.removeprefix("python-docs/"): document.data for document in open_corpus()}


def test_modules_are_read_as_they_are(documents):
    for name in ("argparse.py", "json/decoder.py", "encodings/__init__.py"):
        assert documents[name] == (STDLIB / name).read_bytes()


def test_topics_are_prose(documents):
    topics = {name: data for name, data in documents.items() if name.startswith("topics/")}
    assert b"assert" in topics["topics/assert"]
    assert len(topics) > 50
    assert list(documents)[: len(topics)] == sorted(topics)


def test_modules_are_sorted(documents):
    names = [name for name in documents if not name.startswith("topics/")]
    assert names == sorted(names)
    assert len(names) > 400


def test_nothing_that_is_a_test_or_not_of_the_library(documents):
    for name in documents:
        assert not {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"} & set(name.split("/")[:-1]), name
        assert not name.startswith(("_sysconfigdata", "sitecustomize", "config-"))


def test_a_topic_stands_in_one_document_only(documents):
    """The module that holds all topics would carry those held out into the training split."""
    assert "pydoc_data/topics.py" not in documents
    assert sum(b"Assert statements are a convenient way" in data for data in documents.values()) == 1


def test_it_is_enough_to_train_on(documents):
    assert 5e6 < sum(map(len, documents.values())) < 50e6


def test_the_description_names_the_python(documents):
    corpus = open_corpus()
    (source,) = corpus.describe()["sources"].values()
    assert source["python_version"] == platform.python_version()
    assert source["python_implementation"] == platform.python_implementation()
    assert source["num_topics"] + source["num_files"] == len(documents)
    json.dumps(corpus.describe())


def test_another_python_is_another_corpus(monkeypatch):
    before = open_corpus().fingerprint
    assert open_corpus().fingerprint == before
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert open_corpus().fingerprint != before


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of which a distribution left out nearly all."""
    for name in ("json/__init__.py", "json/tests/test_json.py", "ast.py", "sitecustomize.py", "site-packages/ast.py", "lib2to3/tests/a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    return tmp_path


def test_parts_may_be_missing(small_library, monkeypatch, read):
    monkeypatch.setattr(python_docs, "_topics", dict)
    assert read() == [("python-docs/ast.py", b"# ast.py\n"), ("python-docs/json/__init__.py", b"# json/__init__.py\n")]


def test_without_topics(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(python_docs.importlib, "import_module", missing)
    assert python_docs._topics.__wrapped__() == {}


def test_without_sources(small_library, read):
    for path in sorted(small_library.rglob("*.py")):
        path.unlink()
    with pytest.raises(CorpusError, match=r"There is no file that ends with \.py in"):
        read()


def test_in_a_plan_of_small_fragments(documents):
    corpus = open_corpus()
    fragments = corpus.fragments(1 << 20)
    assert len(fragments) > 5
    read = [document.doc_id for fragment in fragments for document in corpus.read(fragment)]
    assert read == [f"python-docs/{name}" for name in documents]
