import dataclasses
import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bltdata import plan
from bltdata.build import BuildReporter, Share, build_share, plan_shards
from bltdata.corpus import Corpus, open_corpus
from bltdata.errors import BuildError, CorpusError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, ShardRecord
from tests.bltdata.builds import CALIBRATED, CONFIG, DAMAGES, Stopped, contents, stop_after
from tests.bltdata.small import line_corpus

# ---------------------------------------------------------------------------------------------------------------- the plan


def test_the_plan_names_what_every_shard_reads(run, finished, lines):
    plan = json.loads((finished / "plan.json").read_text())
    fragments = line_corpus(lines).fragments(CONFIG.fragment_bytes)
    assert [(fragment["index"], fragment["size_bytes"], fragment["fingerprint"]) for fragment in plan["fragments"]] == [
        (fragment.index, fragment.size_bytes, fragment.fingerprint) for fragment in fragments
    ]
    assert sum(fragment["size_bytes"] for fragment in plan["fragments"]) == lines.stat().st_size
    longest = max(len(line) for line in lines.read_bytes().splitlines(keepends=True))
    assert all(fragment["size_bytes"] < CONFIG.fragment_bytes + longest for fragment in plan["fragments"])


def test_a_column_that_is_not_there_leaves_no_plan(model_folder, tmp_path):
    (tmp_path / "good.jsonl").write_text('{"text": "a document"}\n')
    (tmp_path / "pages.jsonl").write_text('{"body": "a document"}\n' * 20)
    corpus = [f"{tmp_path / 'good.jsonl'}", f"{tmp_path / 'pages.jsonl'}#text=boddy"]
    for make in (plan_shards, functools.partial(build_share, share=Share(1, 3))):
        with pytest.raises(CorpusError, match=r"pages\.jsonl, line 1, has no column 'boddy'; the nearest is 'body'"):
            make(open_corpus(corpus), model_folder, CONFIG, tmp_path / "shards")
        assert not (tmp_path / "shards" / "plan.json").exists()


def test_a_build_that_made_nothing_is_begun_anew(run, lines, tmp_path):
    # What a plan doesn't look at yet.
    pages = tmp_path / "pages.jsonl"
    pages.write_text('{"text": "a document"}\n{"text": null}\n')
    with pytest.raises(CorpusError, match="line 2, has null"):
        run(open_corpus(str(pages)))
    with pytest.raises(BuildError, match=r"was begun with another corpus, and nothing is made yet; .* run the command once with --plan"):
        run.job(0, 3)
    # Nor by who isn't alone.
    with Share(1, 3).writing(tmp_path / "shards"), pytest.raises(BuildError, match="Another process is writing to"):
        run()
    said: list[str] = []
    pages.write_text('{"text": "a document"}\n{"text": "more"}\n')
    manifest = run(open_corpus(str(pages)), reporter=BuildReporter(said=said.append))
    assert manifest.totals.num_documents == 2
    assert said[0] == f"{tmp_path / 'shards'} was begun with another corpus, and nothing was made yet, so it is begun anew."
    # Now something is made.
    with pytest.raises(BuildError, match="was begun with another corpus; choose another folder, or delete this one"):
        run()


def test_a_corpus_that_changed_before_the_first_shard(run, lines, model_folder, tmp_path):
    own = tmp_path / "own.txt"
    own.write_bytes(lines.read_bytes())
    before = plan_shards(line_corpus(own), model_folder, CONFIG, tmp_path / "shards")
    os.utime(own, (1, 1))
    said: list[str] = []
    after = plan_shards(line_corpus(own), model_folder, CONFIG, tmp_path / "shards", reporter=BuildReporter(said=said.append))
    assert said == [
        f"{tmp_path / 'shards'} was begun with another corpus (its files have changed), and nothing was made yet, so it is begun anew."
    ]
    assert after.fingerprint == before.fingerprint
    assert run(line_corpus(own)).totals.num_documents == 60


def test_a_plan_is_not_made_twice(run, undisturbed, lines, model_folder, tmp_path, monkeypatch):
    planned = plan_shards(line_corpus(lines), model_folder, CONFIG, tmp_path / "shards")
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {".lock", "plan.json"}
    # To cut a large file at its lines takes reading all of it.
    monkeypatch.setattr(Corpus, "fragments", lambda *_: pytest.fail("it is planned"))
    assert plan_shards(line_corpus(lines), model_folder, CONFIG, tmp_path / "shards") == planned
    run()
    assert contents(tmp_path / "shards") == undisturbed


@pytest.mark.parametrize("change", ["size_bytes", "fingerprint", "nothing"])
def test_what_the_plan_says_beside_is_for_readers(run, finished, undisturbed, change):
    path = finished / "plan.json"
    mapping = json.loads(path.read_text())
    mapping["fragments"][1][change] = "changed"
    path.write_text(json.dumps(mapping))
    if change == "nothing":
        with pytest.raises(BuildError, match=r"plan\.json is damaged; choose another folder"):
            run()
    else:
        run()


@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: plan["fragments"].pop(),
        lambda plan: plan["fragments"][1]["items"][0].update(start=7),
        lambda plan: plan.pop("fragments"),
        lambda plan: plan["fragments"].reverse(),
    ],
)
def test_a_plan_with_other_fragments(run, finished, damage):
    mapping = json.loads((finished / "plan.json").read_text())
    damage(mapping)
    (finished / "plan.json").write_text(json.dumps(mapping))
    with pytest.raises(BuildError, match=r"plan\.json is damaged; choose another folder, or delete this one to build again\.$"):
        run()


def test_a_copied_corpus_gives_the_same_shards(run, lines, tmp_path):
    (tmp_path / "corpus").mkdir()
    copy = tmp_path / "corpus" / "lines.txt"
    manifests = []
    for name, modified in (("one", 1), ("two", 2)):
        copy.write_bytes(lines.read_bytes())
        os.utime(copy, (modified, modified))
        manifests.append(run(line_corpus(copy), folder=name))
    assert manifests[0] == manifests[1]


# ------------------------------------------------------------------------------------------------------------ jobs share it


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_jobs_one_after_the_other(run, undisturbed, tmp_path, order):
    said: list[str] = []
    reporter = BuildReporter(said=said.append)
    assert [run.job(index, 3, reporter=reporter) is None for index in order] == [True, True, False]
    assert contents(tmp_path / "shards") == undisturbed
    num_own = len(range(order[0], 5, 3))
    assert said[0] == f"{tmp_path / 'shards'} has 0 of {num_own} shards of job {order[0]} of 3 already; {num_own} to go."
    assert said[1] == f"{num_own} of all 5 shards are made; whichever job makes the last one writes manifest.json."
    # Once more, any of them, changes nothing.
    assert run.job(1, 3) == Manifest.read(tmp_path / "shards")
    assert contents(tmp_path / "shards") == undisturbed


def test_more_jobs_than_shards(run, undisturbed, tmp_path):
    assert run.job(7, 9) is None
    for index in range(9):
        run.job(index, 9)
    assert contents(tmp_path / "shards") == undisturbed


def test_jobs_at_once_calibrate_once(run, tmp_path, monkeypatch):
    run(config=CALIBRATED, folder="alone")
    calls = []
    original = plan.calibrate_rule

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(plan, "calibrate_rule", counted)
    with ThreadPoolExecutor(4) as jobs:
        ends = list(jobs.map(lambda index: run.job(index, 4, config=CALIBRATED), range(4)))
    # Whoever came last published; two that came last at once published the same.
    assert any(end is not None for end in ends)
    assert len(calls) == 1
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")


def test_a_build_finishes_what_jobs_left(run, undisturbed, tmp_path):
    run.job(1, 3)
    with pytest.raises(Stopped):
        run.job(0, 3, reporter=stop_after(1))
    said: list[str] = []
    run(reporter=BuildReporter(said=said.append))
    assert said == [f"{tmp_path / 'shards'} has 3 of 5 shards already; 2 to go."]
    assert contents(tmp_path / "shards") == undisturbed


def test_another_number_of_jobs_goes_on(run, undisturbed, tmp_path):
    run.job(0, 2)
    built: list[ShardRecord] = []
    for index in range(3):
        run.job(index, 3, reporter=BuildReporter(built=built.append))
    assert [record.file for record in built] == ["part-00003.parquet", "part-00001.parquet"]
    assert contents(tmp_path / "shards") == undisturbed


@pytest.mark.parametrize("damage", ["a bit of a page", "missing"])
def test_a_job_repairs_its_own_shards(run, undisturbed, tmp_path, damage):
    run()
    folder = tmp_path / "shards"
    DAMAGES[damage](folder / "part-00002.parquet")
    # It isn't this job's, and every bit is for its own job to check.
    run.job(0, 3)
    built: list[ShardRecord] = []
    with pytest.raises(Stopped):
        run.job(2, 3, reporter=stop_after(1))
    assert not (folder / "manifest.json").exists()
    assert run.job(2, 3, reporter=BuildReporter(built=built.append)) is not None
    assert built == []
    assert contents(folder) == undisturbed


def test_a_shard_of_another_job_that_is_gone(run, undisturbed, tmp_path):
    run.job(0, 2)
    (tmp_path / "shards" / "part-00002.parquet").unlink()
    assert run.job(1, 2) is None
    assert run.job(0, 2) is not None
    assert contents(tmp_path / "shards") == undisturbed


def test_who_may_build_beside_a_job(run, tmp_path):
    with Share(0, 3).writing(tmp_path / "shards"):
        for other in (lambda: run(), lambda: run.job(0, 3), lambda: run.job(1, 4)):
            with pytest.raises(BuildError, match=r"; .*wait until (it|they) ends?"):
                other()
        assert run.job(1, 3) is None
    with exclusive(tmp_path / "shards"), pytest.raises(BuildError, match="Another process is writing to"):
        run.job(0, 3)


def test_a_job_with_other_settings(run):
    run.job(0, 2)
    with pytest.raises(BuildError, match="was begun with other settings; choose another folder"):
        run.job(1, 2, config=dataclasses.replace(CONFIG, rule=PatchRule(threshold=1.0)))


def test_jobs_of_an_empty_corpus(model_folder, lines, tmp_path):
    empty = line_corpus(lines, min_bytes=1000)
    assert build_share(empty, model_folder, CONFIG, tmp_path / "shards", Share(0, 2)) is None
    with pytest.raises(CorpusError, match=r"has no documents; all there is was left out: 60 \(too short\)\.$"):
        build_share(empty, model_folder, CONFIG, tmp_path / "shards", Share(1, 2))
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [".jobs", ".lock"]
