"""Processes among which a BLT is shared out train what one trains, and go on from each other's states."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from bltdata.errors import BuildError, CheckpointError
from bltdata.training.keeping import Keeping
from bltdata.training.progress import Reporter
from bltdata.training.task import PackedTask
from bltdata.training.world import World
from bltmodel.cli import main
from bltmodel.model import BLT
from bltmodel.step_config import StepConfig
from bltmodel.training import train_blt
from bltmodel.training_data import open_training_data
from tests.bltdata.training.runs import at_step, metrics_of, press_ctrl_c
from tests.bltmodel.datasets import texts, training, write_dataset
from tests.bltmodel.documents import tiny_config
from tests.several import Group, commands, group

FULL = StepConfig(sharding="full")
STEPS = 5
SMALL = {name: value for name, value in vars(tiny_config()).items() if isinstance(value, int)}


@pytest.fixture(scope="module")
def pair() -> Iterator[Group]:
    with group(2) as both:
        yield both


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("sharding") / "shards", texts(60), texts(60, seed=1))


def run(
    world: World, shards: Path, out: Path, step: StepConfig = FULL, stop_at: int = 0, keeping: Keeping | None = None, **changes: Any
) -> list[str]:
    """Train; returns what was said. Nothing is clipped: that would hide a wrong scale."""
    said: list[str] = []
    reporter = Reporter(said=said.append, stepped=at_step(stop_at, press_ctrl_c) if stop_at else lambda count: None)
    config = training(**{"steps": STEPS, "optimiser": "adamw", "clip_norm": 1e6, **changes})
    data = open_training_data(shards, folder=out, world=world)
    train_blt(tiny_config(), config, data, out, device="cpu", reporter=reporter, keeping=keeping, step=step, world=world)
    return said


def run_with(world: World, shards: Path, out: Path, options: dict[str, Any]) -> list[str]:
    return run(world, shards, out, **options)


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(World(), shards, folder, StepConfig())
    return folder


def assert_same_run(folder: Path, other: Path, atol: float = 1e-5) -> None:
    for ours, theirs in zip(metrics_of(folder), metrics_of(other), strict=True):
        assert ours == pytest.approx(theirs, abs=atol, rel=atol)
    for model in ("model.safetensors", "last/model.safetensors"):
        ours, theirs = load_file(folder / model), load_file(other / model)
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, atol=atol, rtol=0, msg=name)


def errors(outcomes: list[Any]) -> list[str | None]:
    return [outcome.error for outcome in outcomes]


def test_two_train_what_one_does(pair, shards, alone, tmp_path):
    outcomes = pair.run(run, shards, tmp_path / "run")
    assert errors(outcomes) == [None, None]
    assert_same_run(tmp_path / "run", alone)
    BLT.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ({"checkpoint_activations": True, "patch_margin": 1.0}, {"micro_batch_rows": 1, "clip_norm": 1e-3}),
        # Tables are shared out too; the second process has nothing to judge on.
        ({}, {"table_optimiser": "adamw", "validation_bytes": 20}),
    ],
)
def test_with_whatever_else_there_is(pair, shards, tmp_path, step, changes):
    assert errors(pair.run(run_with, shards, tmp_path / "run", {"step": StepConfig(sharding="full", **step), **changes})) == [None, None]
    run(World(), shards, tmp_path / "alone", StepConfig(**step), **changes)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def test_in_bfloat16_losses_are_near(pair, shards, tmp_path):
    # The last bits of a sum decide how it is rounded, and each step makes more of that.
    assert errors(pair.run(run_with, shards, tmp_path / "run", {"precision": "bfloat16"})) == [None, None]
    run(World(), shards, tmp_path / "alone", StepConfig(), precision="bfloat16")
    ours, theirs = ([each["loss"] for each in metrics_of(folder)] for folder in (tmp_path / "run", tmp_path / "alone"))
    assert ours == pytest.approx(theirs, abs=0.01)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_three_have_parts_of_unequal_size(shards, tmp_path, optimiser):
    changes = {"optimiser": optimiser, "batch_rows": 3}
    with group(3) as three:
        assert errors(three.run(run_with, shards, tmp_path / "run", changes)) == [None] * 3
    run(World(), shards, tmp_path / "alone", StepConfig(), **changes)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def shares(world: World, shards: Path, out: Path) -> dict[str, Any]:
    """What part of the model's parameters and of what is remembered of them this process has, and what was whole."""
    from bltdata.training.sharding import Sharded

    found: dict[str, Any] = {}

    def save(placement: Sharded, folder: Path, step: int, state: dict[str, Any], keep_last: int) -> None:
        tensors = [tensor for tensor in state["model"].values() if isinstance(tensor, DTensor)]
        moments = [value for entry in state["optimiser"]["adamw"]["state"].values() for value in entry.values() if value.dim()]
        for name, group_ in (("weights", tensors), ("moments", moments)):
            found[name] = sum(tensor.to_local().nbytes for tensor in group_) / max(1, sum(tensor.nbytes for tensor in group_))
        found["whole"] = [name for name, tensor in state["model"].items() if not isinstance(tensor, DTensor)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sharded, "save", save)
        run(world, shards, out)
    return found


def test_each_has_about_half(pair, shards, tmp_path):
    outcomes = [outcome.value for outcome in pair.run(shares, shards, tmp_path / "run")]
    for found in outcomes:
        assert found["whole"] == ["embedding.ngrams.weight"]
    for name in ("weights", "moments"):
        first, second = (found[name] for found in outcomes)
        assert first + second == 1
        assert 0.45 < second <= 0.5


@pytest.mark.parametrize("optimiser", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_a_run_goes_on_whole_or_shared_out_by_any_number(pair, shards, tmp_path, optimiser):
    changes = {"steps": 6, "optimiser": optimiser}
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(World(), shards, folder, StepConfig(), stop_at=1, **changes)
    for stop_at, step in ((2, FULL), (3, None), (4, FULL), (5, StepConfig())):
        if step is None:
            with pytest.raises(KeyboardInterrupt):
                # One has nothing to share out.
                run(World(), shards, folder, FULL, stop_at=stop_at, **changes)
            continue
        outcomes = pair.run(run_with, shards, folder, {"step": step, "stop_at": stop_at, **changes})
        assert errors(outcomes) == ["KeyboardInterrupt"] * 2
        # A state is a file, and where parts were shared out a folder with it.
        assert len(states_of(folder)) == (2 if step is FULL else 1)
    assert errors(pair.run(run_with, shards, folder, changes)) == [None, None]
    run(World(), shards, tmp_path / "alone", StepConfig(), **changes)
    assert_same_run(folder, tmp_path / "alone")
    # And one finds it finished.
    assert run(World(), shards, folder, StepConfig(), **changes)[-1].startswith("It had finished already")


def states_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*training_state*"))


def orthogonalised_steps(world: World, dtype: torch.dtype) -> bool:
    """Whether matrices in parts, of a number of rows that isn't even, take the steps of whole ones, bit for bit."""
    from torch.distributed.tensor import Shard, distribute_tensor

    from bltdata.training.muon import Muon
    from bltdata.training.sharded_muon import ShardedMuon

    mesh = world.mesh(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(7, 5, generator=generator, requires_grad=True)
    parts = distribute_tensor(whole.detach(), mesh, [Shard(0)], src_data_rank=None).requires_grad_()
    optimisers = [kind([matrix], dtype, lr=0.1, weight_decay=0.3) for kind, matrix in ((Muon, whole), (ShardedMuon, parts))]
    for _ in range(3):
        whole.grad = torch.randn(7, 5, generator=generator)
        parts.grad = distribute_tensor(whole.grad, mesh, [Shard(0)], src_data_rank=None)
        for optimiser in optimisers:
            optimiser.step()
    momenta = [next(iter(optimiser.state.values()))["momentum_buffer"] for optimiser in optimisers]
    assert momenta[1].to_local().shape == (4 - world.rank, 5)
    return torch.equal(parts.full_tensor(), whole) and torch.equal(momenta[1].full_tensor(), momenta[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_steps_are_those_of_whole_matrices(pair, dtype):
    outcomes = pair.run(orthogonalised_steps, dtype)
    assert [outcome.value for outcome in outcomes] == [True, True]


# ------------------------------------------------------------------------------------------------------------------- states


@pytest.fixture(scope="module")
def kept(pair: Group, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose last states, of the steps 2, 4 and 5, are kept."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    assert errors(pair.run(run_with, shards, folder, {"keeping": Keeping(keep_last=3)})) == [None, None]
    return folder


def folder_of(folder: Path, step: int) -> Path:
    (path,) = folder.glob(f"training_state-{step:08d}-*.shards")
    return path


def test_states_are_kept_and_gone_on_from(pair, shards, kept, alone, tmp_path):
    assert [len(list(kept.glob(f"training_state-{step:08d}*"))) for step in (2, 4, 5)] == [2, 2, 2]
    assert sorted(path.name for path in folder_of(kept, 2).iterdir()) == [".metadata", "__0_0.distcp", "__1_0.distcp"]
    folder = tmp_path / "run"
    shutil.copytree(kept, folder)
    outcomes = pair.run(run_with, shards, folder, {"keeping": Keeping(keep_last=2, resume_from=2)})
    assert outcomes[0].value == [f"Going on: {folder} holds this run at step 2 of {STEPS}."]
    assert_same_run(folder, alone)
    assert len(states_of(folder)) == 5
    assert folder_of(folder, 5).name != folder_of(kept, 5).name


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garble(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("__1_0.distcp", lose, "needs {0}/__1_0.distcp, which is missing, so the run can't go on from it"),
        ("__0_0.distcp", cut, "needs {0}/__0_0.distcp, which is damaged, so the run can't go on from it"),
        (".metadata", garble, "{0} is damaged, so the run can't go on from it"),
        ("__0_0.distcp", garble, "{0} is damaged, so the run can't go on from it"),
    ],
)
def test_a_damaged_state_is_refused_and_the_one_before_named(pair, shards, kept, tmp_path, name, damage, problem):
    folder = tmp_path / "run"
    shutil.copytree(kept, folder)
    shards_folder = folder_of(folder, 5)
    damage(shards_folder / name)
    way_out = "go on from the state of step {} with --resume-from {}, or start the run again with --no-resume."
    with pytest.raises(CheckpointError) as caught:
        run(World(), shards, folder, StepConfig())
    assert str(caught.value).endswith(f"{problem.format(shards_folder)}; {way_out.format(4, 4)}")
    first, second = pair.run(run_with, shards, folder, {})
    assert (first.error, first.sentence, second.error) == ("CheckpointError", str(caught.value), "PeerFailedError")
    assert states_of(folder) == states_of(kept)


# ------------------------------------------------------------------------------------------------------------------ failures


def train_where_one_fails(arguments: list[str]) -> None:
    """The command `bltmodel`, of which the second process fails in its third step."""
    how, *rest = arguments
    plain, taken = PackedTask.loss, 0

    def loss(task: PackedTask, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if os.environ["RANK"] == "1" and taken == 3:
            if how == "dies":
                os._exit(9)
            raise torch.OutOfMemoryError("CUDA out of memory.") if how == "has no memory" else BuildError("The document has gone.")
        return plain(task, batch)

    PackedTask.loss = loss
    main(rest)


LOST = "Error: Process 0 lost another of the 2 that train together; run the same command again to go on from the last checkpoint."
TOO_LARGE = (
    "Error: Memory doesn't suffice for 2 rows at once (step 3), and with sharding they aren't halved during a run: "
    "lower micro_batch_rows, or for a single row row_tokens (32)."
)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("fails", [(1, ""), (1, "Error: The document has gone.")]),
        ("has no memory", [(1, ""), (1, TOO_LARGE)]),
        pytest.param("dies", [(1, LOST), (9, "")], marks=pytest.mark.slow),
    ],
)
def test_one_that_fails_in_a_step_ends_all(shards, tmp_path, how, expected):
    out = tmp_path / "run"
    options = ["--row-tokens", "32", "--batch-rows", "4", "--steps", "6", "--evaluate-every", "2", "--validation-bytes", "100"]
    model = tmp_path / "tiny.toml"
    model.write_text("[model]\n" + "".join(f"{name} = {value}\n" for name, value in SMALL.items()))
    arguments = ["train", "--shards", shards, "--out", out, "--config", model, "--device", "cpu", "--sharding", "full", *options]
    with commands(tmp_path / "said", train_where_one_fails, how, *arguments) as running:
        said = running.wait()
    found = [(one.exit_code, "\n".join(line for line in one.stderr.splitlines() if not line.startswith("step "))) for one in said]
    assert found == expected
    assert torch.load(out / "training_state.pt", weights_only=True)["progress"]["step"] == 2


def write_to_a_full_disk(world: World, shards: Path, out: Path) -> list[str]:
    """Train where the second process can't write its share."""

    plain, (limit, most) = dcp.FileSystemWriter.write_data, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*arguments: Any) -> Any:
        # Not a disk, but the system says it to whoever writes, and not before some bytes are written.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
        try:
            return plain(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))

    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 1:
            patch.setattr(dcp.FileSystemWriter, "write_data", full)
        return run(world, shards, out)


@pytest.mark.slow
def test_a_state_that_one_cannot_write_is_none(shards, tmp_path):
    with group(2) as both:
        first, second = both.run(write_to_a_full_disk, shards, tmp_path / "run")
    assert (first.error, second.error) == ("PeerFailedError", "OSError")
    assert states_of(tmp_path / "run") == []
