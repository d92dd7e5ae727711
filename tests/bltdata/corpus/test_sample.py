from collections import Counter
from pathlib import Path

import pytest

from bltdata.corpus import Corpus, open_corpus
from bltdata.corpus import sample as module
from bltdata.corpus.sample import expected_bytes, sample_documents
from tests.bltdata.small import line_corpus, write_lines

NUM_LINES = 2000


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "lines.txt", [b"line %06d, %s" % (number, b"x" * (number % 80)) for number in range(NUM_LINES)])


def sample(corpus: Corpus, num_bytes: int, target_bytes: int = 4000) -> list[bytes]:
    return [document.data for document in sample_documents(corpus, corpus.fragments(target_bytes), num_bytes)]


def test_about_so_many_bytes_from_all_over_the_corpus(lines):
    found = sample(line_corpus(lines), 20_000)
    assert 14_000 < sum(map(len, found)) < 26_000
    numbers = [int(data[5:11]) for data in found]
    assert len(set(numbers)) == len(numbers)
    for tenth in range(10):
        share = sum(tenth * NUM_LINES // 10 <= number < (tenth + 1) * NUM_LINES // 10 for number in numbers) / len(numbers)
        assert 0.03 < share < 0.2


def test_a_larger_wish_holds_a_smaller_one(lines):
    small, large = sample(line_corpus(lines), 10_000), sample(line_corpus(lines), 40_000)
    assert set(small) < set(large)


@pytest.mark.parametrize("target_bytes", [1000, 4000, 10**6])
def test_the_plan_makes_no_difference(lines, target_bytes, monkeypatch):
    monkeypatch.setattr(module, "MAX_FRAGMENTS", 10**6)
    assert sample(line_corpus(lines), 10_000, target_bytes) == sample(line_corpus(lines), 10_000, 3000)


def test_all_of_a_corpus_that_is_not_larger(lines):
    everything = [document.data for document in line_corpus(lines)]
    assert sample(line_corpus(lines), lines.stat().st_size) == everything
    # A split is a corpus of its own: a twentieth of the bytes is all there is.
    of_a_split = [document.data for document in line_corpus(lines, "validation")]
    assert sample(line_corpus(lines, "validation"), lines.stat().st_size // 20) == of_a_split
    assert 50 < len(of_a_split) < 200


def test_a_split_gives_as_much_as_the_whole(lines):
    for split in (None, "train", "validation"):
        total = sum(map(len, sample(line_corpus(lines, split), 3000)))
        assert 1000 < total < 6000, split


def test_only_some_fragments_of_many(lines, monkeypatch):
    monkeypatch.setattr(module, "MAX_FRAGMENTS", 8)
    corpus = line_corpus(lines)
    read: list[int] = []
    original = Corpus.read
    monkeypatch.setattr(Corpus, "read", lambda self, fragment, *rest: read.append(fragment.index) or original(self, fragment, *rest))
    found = sample(corpus, 8_000, target_bytes=1000)
    num_fragments = len(corpus.fragments(1000))
    assert read == [number * num_fragments // 8 for number in range(8)]
    assert 5_000 < sum(map(len, found)) < 11_000


def test_at_least_one_document(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 5000)
    corpus = open_corpus(str(tmp_path))
    assert len(sample(corpus, 1)) == 1
    assert len(sample(corpus, 1, target_bytes=1)) == 1
    # Always the same one.
    assert sample(corpus, 1) == sample(corpus, 1, target_bytes=1)


def test_a_source_of_unknown_size(lines, tmp_path, monkeypatch):
    corpus = line_corpus(lines)
    plan = corpus.fragments(10_000)
    monkeypatch.setattr(type(plan[0]), "size_bytes", None)
    assert expected_bytes(corpus, plan) is None
    found = [document.data for document in sample_documents(corpus, plan, 20_000)]
    # The first documents of each fragment.
    assert 20_000 <= sum(map(len, found)) < 20_000 + 100 * len(plan)
    assert found[0] == b"line 000000, "
    assert len([document for document in sample_documents(corpus, plan, 1)]) == 1


def test_nothing_to_sample(lines):
    left_out: Counter[str] = Counter()
    corpus = line_corpus(lines, min_bytes=1000)
    assert list(sample_documents(corpus, corpus.fragments(4000), 10_000, left_out)) == []
    assert left_out == {"too short": NUM_LINES}
    # The corpus itself counts for whoever iterates over it.
    assert corpus.left_out == {}


def test_expected_bytes(lines):
    size = lines.stat().st_size
    for split, share in ((None, 1), ("train", 0.9), ("validation", 0.05)):
        corpus = line_corpus(lines, split)
        assert expected_bytes(corpus, corpus.fragments(4000)) == pytest.approx(share * size)
    by_spec = open_corpus({"train": f"files:{lines}#document=line"}, "train")
    assert expected_bytes(by_spec, by_spec.fragments()) == size
