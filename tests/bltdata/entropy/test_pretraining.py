import json
from pathlib import Path

import pytest

from bltdata.corpus import Corpus, open_corpus
from bltdata.entropy import EntropyModel
from bltdata.entropy.pretraining import architecture_of, pretrain
from bltdata.errors import BuildError, CheckpointError, ConfigError, CorpusError
from bltdata.lock import exclusive
from bltdata.training.loop import Reporter
from tests.bltdata.small import architecture, line_corpus, random_documents, training, write_lines


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "corpus.txt", random_documents(60, 30, seed=1, num_symbols=90))


def corpora(lines: Path, **limits: int) -> tuple[Corpus, Corpus]:
    # A split of so few documents may be empty; here nothing depends on what is judged.
    return line_corpus(lines, "train", **limits), line_corpus(lines, "train", **limits)


def test_from_a_corpus_to_a_model(lines, tmp_path):
    said: list[str] = []
    train, validation = corpora(lines, min_bytes=5)
    best = pretrain(train, validation, architecture(), training(), tmp_path / "run", reporter=Reporter(said=said.append))
    assert EntropyModel.load(tmp_path / "run").config == architecture()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == {"train": train.describe(), "validation": validation.describe()}
    assert config["validation"]["step"] == best["step"]
    # What was left out is said.
    left_out = ", ".join(f"{count} left out ({reason})" for reason, count in sorted(train.left_out.items()))
    assert said[0].endswith(f" in {tmp_path / 'run' / 'data' / 'train'}, {left_out}.")
    assert "too short" in left_out


def test_the_documents_are_copied_once(lines, tmp_path):
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")
    said: list[str] = []
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run", reporter=Reporter(said=said.append))
    assert said == [f"It had finished already: {tmp_path / 'run'} holds this run at step 6 of 6."]


def test_documents_that_changed_are_copied_again(lines, tmp_path):
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")
    write_lines(lines, random_documents(70, 30, seed=2, num_symbols=90))
    with pytest.raises(CheckpointError, match=r"holds another run: its data\.train\.sources"):
        pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")
    said: list[str] = []
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run", resume=False, reporter=Reporter(said=said.append))
    assert not any("finished already" in text for text in said)


@pytest.mark.parametrize("has_state", [True, False])
def test_the_copy_of_a_run_that_is_refused_stays(lines, tmp_path, has_state):
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")
    if not has_state:
        (tmp_path / "run" / "training_state.pt").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    other = write_lines(tmp_path / "other.txt", random_documents(70, 30, seed=2, num_symbols=90))
    message = r"holds another run: its data\.train" if has_state else "holds a trained model, but there is no state"
    with pytest.raises(CheckpointError, match=message):
        pretrain(*corpora(other), architecture(), training(), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_copy_that_was_cut_off_is_made_again(lines, tmp_path):
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "data" / "train" / "spool.json").unlink()
    (tmp_path / "run" / "data" / "validation" / "data.bin").write_bytes(b"half")
    pretrain(*corpora(lines), architecture(), training(), tmp_path / "run", resume=False)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("which", ["train", "validation"])
def test_an_empty_corpus(lines, tmp_path, which):
    train, validation = corpora(lines)
    nothing = line_corpus(lines, min_bytes=1000)
    chosen = (nothing, validation) if which == "train" else (train, nothing)
    with pytest.raises(CorpusError, match=r"has no documents; all there is was left out: .*\d+ \(too short\)\.$"):
        pretrain(*chosen, architecture(), training(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_validation_documents_without_bytes(lines, tmp_path):
    train, _ = corpora(lines)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").touch()
    with pytest.raises(CorpusError, match="The validation documents have no bytes"):
        pretrain(train, open_corpus(str(tmp_path / "empty")), architecture(), training(), tmp_path / "run")


def test_one_writer_a_folder(lines, tmp_path):
    with exclusive(tmp_path / "run"), pytest.raises(BuildError, match="Another process is writing to"):
        pretrain(*corpora(lines), architecture(), training(), tmp_path / "run")


def test_a_device_that_there_is_not(lines, tmp_path):
    with pytest.raises(ConfigError, match="The device 'abacus' can't be used here"):
        pretrain(*corpora(lines), architecture(), training(), tmp_path / "run", device="abacus")
    assert not (tmp_path / "run").exists()


def test_architecture_of():
    assert architecture_of("tiny", {"window": 5}, "here").window == 5
    with pytest.raises(ConfigError, match=r"^here has an unknown key 'windo'; .*'window'"):
        architecture_of("tiny", {"windo": 5}, "here")
    with pytest.raises(ConfigError, match="There is no entropy model preset 'tinny'"):
        architecture_of("tinny", {}, "here")
