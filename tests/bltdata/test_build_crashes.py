"""Whatever becomes of a build, and wherever it runs: what it made stands, and run again it ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bltdata.build import BuildConfig, BuildReporter, build_shards
from bltdata.cli import main
from bltdata.corpus import Corpus
from bltdata.errors import BuildError
from bltdata.patching import PatchRule
from tests.bltdata.builds import contents
from tests.bltdata.killing import ROOT, run_killed
from tests.bltdata.small import line_corpus, numbered_lines

pytestmark = pytest.mark.slow

RULE = PatchRule(scheme="fixed", stride=4)
CONFIG = BuildConfig(rule=RULE, fragment_bytes=1000)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_lines(tmp_path_factory.mktemp("corpora") / "lines.txt", 600)


@pytest.fixture
def corpus(lines: Path) -> Corpus:
    return line_corpus(lines)


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, lines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    build_shards(line_corpus(lines), model_folder, CONFIG, folder)
    return contents(folder)


@pytest.fixture
def options(model_folder: Path, lines: Path) -> list[str]:
    """The build of `undisturbed` as a command, but for the folder and the workers."""
    corpus = f"files:{lines}#document=line&source=lines"
    settings = ["--scheme", "fixed", "--stride", "4", "--fragment-bytes", "1000", "--split", "all", "--device", "cpu"]
    return ["--corpus", corpus, "--entropy-model", str(model_folder), *settings]


def processes(of: Callable[[int, str], bool]) -> Iterator[int]:
    """The processes whose parent and command line are as wanted."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if of(parent, command):
            yield int(folder.name)


def kill_one(of: Callable[[int, str], bool], after: int) -> BuildReporter:
    """Kills a process as soon as so many shards are made."""
    built: list[str] = []

    def note(file: str) -> None:
        built.append(file)
        if len(built) == after:
            os.kill(next(processes(of)), signal.SIGKILL)

    return BuildReporter(built=lambda record: note(record.file))


# ----------------------------------------------------------------------------------------------------------------- killed


def test_a_build_that_is_killed_thirty_times(options, undisturbed, tmp_path):
    lives = run_killed(3, 30, "build-shards", *options, "--workers", "1", "--out", tmp_path / "shards")
    assert lives[-1] == "exit 0"
    assert len(lives) > 10
    assert contents(tmp_path / "shards") == undisturbed


def test_jobs_that_are_killed_ten_times_each(options, undisturbed, tmp_path):
    for index in range(2):
        share = ["--shard-index", str(index), "--shard-count", "2"]
        lives = run_killed(10 + index, 10, "build-shards", *options, *share, "--workers", "1", "--out", tmp_path / "shards")
        assert lives[-1] == "exit 0"
        assert len(lives) > 3
    assert contents(tmp_path / "shards") == undisturbed


def test_a_worker_that_the_system_kills(corpus, model_folder, undisturbed, tmp_path):
    own = os.getpid()
    reporter = kill_one(lambda parent, command: parent == own and "multiprocessing" in command and "spawn_main" in command, after=2)
    with pytest.raises(BuildError, match=r"^A worker process was killed, perhaps for want of memory: what was finished is kept; run the"):
        build_shards(corpus, model_folder, CONFIG, tmp_path / "shards", workers=2, reporter=reporter)
    assert len(list((tmp_path / "shards" / "built").iterdir())) >= 2
    assert not (tmp_path / "shards" / "manifest.json").exists()
    build_shards(corpus, model_folder, CONFIG, tmp_path / "shards")
    assert contents(tmp_path / "shards") == undisturbed


# -------------------------------------------------------------------------------------------------------------- full disk

ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=80k tmpfs "$1"
shift 1
status=0
"$@" || status=$?
echo "exit $status"
ls "$OUT" "$OUT/built"
mount -o remount,size=10m "$DISK"
"$@"
cp -r "$OUT" "$SAVED"
"""


@pytest.mark.skipif(
    subprocess.run(["sh", "-c", "unshare --user --map-root-user --mount true"], capture_output=True).returncode != 0,
    reason="no file system can be mounted here",
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_is_full(options, undisturbed, tmp_path, workers):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-c", "from bltdata.cli import main; main()", "build-shards", *options, "--workers", workers]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", disk, *command, "--out", disk / "shards"],
        cwd=ROOT,
        env={**os.environ, "DISK": str(disk), "OUT": str(disk / "shards"), "SAVED": str(tmp_path / "saved")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit 1\n" in done.stdout
    listed = [line for line in done.stdout.splitlines() if line.startswith("part-")]
    made, records = ([line for line in listed if line.endswith(ending)] for ending in (".parquet", ".json"))
    # Finished shards stand; one may be there that could not be listed.
    assert 0 < len(records) <= len(made) < len(undisturbed) - 2
    sentence, resumed = done.stderr.splitlines()[:2]
    assert sentence == f"Error: The disk is full: free some space below {disk / 'shards'} and run the same command again."
    assert resumed.startswith(f"{disk / 'shards'} has {len(records)} of {len(undisturbed) - 2} shards already;")
    assert contents(tmp_path / "saved") == undisturbed


# ---------------------------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers(corpus, model_folder, undisturbed, tmp_path, workers):
    build_shards(corpus, model_folder, CONFIG, tmp_path / "shards", workers=workers)
    assert contents(tmp_path / "shards") == undisturbed


def test_on_ray_while_a_worker_is_killed(corpus, model_folder, undisturbed, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray isn't installed; it is the extra [ray]")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    reporter = kill_one(lambda parent, command: command.startswith("ray::_Worker"), after=3)
    build_shards(corpus, model_folder, CONFIG, tmp_path / "shards", workers=2, engine="ray", reporter=reporter)
    assert contents(tmp_path / "shards") == undisturbed


def test_ctrl_c_on_ray(options, undisturbed, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray isn't installed; it is the extra [ray]")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shards = tmp_path / "shards"
    command = [sys.executable, "-c", "from bltdata.cli import main; main()", "build-shards", *options, "--out", str(shards)]
    run = subprocess.Popen(
        [*command, "--engine", "ray", "--workers", "2"], cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    # A machine that is busy with other things takes long to start a cluster.
    deadline = time.monotonic() + 400
    while not list(shards.glob("built/*.json")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    # As a terminal does it: to every process that the command started.
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130, said
    assert said.strip().splitlines()[-1] == "Interrupted; what was finished is kept: run the same command again to go on."
    assert not (shards / "manifest.json").exists()
    again = CliRunner().invoke(main, ["build-shards", *options, "--workers", "1", "--out", str(shards)])
    assert again.exit_code == 0, again.output
    assert "shards already" in again.stderr
    assert contents(shards) == undisturbed
