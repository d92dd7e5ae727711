import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.engines.share import WHOLE, Share
from bltdata.errors import BuildError, ConfigError
from bltdata.lock import JOBS_FOLDER


@given(st.lists(st.integers()), st.integers(1, 9))
def test_every_item_has_one_job(items, count):
    shares = [Share(index, count).of(items) for index in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    # None has much more to do than another.
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_all_of_it():
    assert WHOLE.of([3, 1, 2]) == [3, 1, 2]


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [
        (0, 0, "--shard-count is 0; it must be at least 1."),
        (-1, 2, "--shard-index is -1; with --shard-count 2 it must lie between 0 and 1."),
        (2, 2, "--shard-index is 2; with --shard-count 2 it must lie between 0 and 1."),
    ],
)
def test_no_such_job(index, count, message):
    with pytest.raises(ConfigError) as caught:
        Share(index, count)
    assert str(caught.value) == message


def test_who_may_write(tmp_path):
    with Share(0, 2).writing(tmp_path), Share(1, 2).writing(tmp_path):
        for share in (Share(0, 2), WHOLE, Share(2, 3)):
            with pytest.raises(BuildError), share.writing(tmp_path):
                pytest.fail(f"{share} must wait")
    with WHOLE.writing(tmp_path), pytest.raises(BuildError), Share(1, 2).writing(tmp_path):
        pytest.fail("somebody writes alone")


def test_who_works_alone_waits_for_nobody(tmp_path):
    with WHOLE.turn(tmp_path), WHOLE.turn(tmp_path):
        assert not (tmp_path / JOBS_FOLDER).exists()
