import re

import pytest

from bltmodel.evaluation import EvaluationConfig, evaluate, to_markdown
from bltmodel.evaluation.sections import notes, sections
from tests.bltmodel.datasets import write_dataset

NAME = "a|b *bold* <i>"


@pytest.fixture(scope="module")
def report(trained, blt, tmp_path_factory) -> dict:
    shards = write_dataset(tmp_path_factory.mktemp("sections") / "shards", [b"one", b"two two", (NAME, b"three"), ("empty", b"")])
    config = EvaluationConfig(noise=("drop", "ant=1"), level=0.9, resamples=100, seed=5)
    return evaluate(blt, shards, config, entropy_model=trained.entropy_model, device="cpu", compressors=["gzip"]).report()


def test_every_row_has_every_cell(report):
    found = sections(report)
    assert [section.title for section in found] == [
        "Bits per raw byte",
        "Predictions",
        "With noise in characters",
        "Bits per byte with noise, by source",
        "Accuracy by confidence, all sources",
    ]
    assert all(len(row) == len(section.headings) for section in found for row in section.rows)
    for section in (found[0], found[1], found[3]):
        assert [row[0] for row in section.rows] == [*report["sources"], "all"]


def test_cells_are_what_the_report_has(report):
    bits, predictions, noise, by_source, calibration = sections(report)
    overall, text = report["overall"], report["sources"]["text"]
    low, high = text["bits_per_byte_interval"]
    assert bits.rows[-2] == (
        "text", "2", "10", f"{text['bits_per_byte']:.3f}", f"{low:.3f} to {high:.3f}", f"{text['compressors_bits_per_byte']['gzip']:.3f}"
    )  # fmt: skip
    assert bits.headings[4] == "90 % interval"
    assert dict(zip(bits.headings, bits.rows[0], strict=True))["90 % interval"] == "-"
    assert predictions.rows[-1][5:8] == (
        f"{overall['expected_calibration_error']:.3f}",
        f"{overall['reconstruction']['share']:.1%}",
        str(overall["reconstruction"]["whole_documents"]),
    )
    assert [row[:3] for row in noise.rows] == [
        ("none", "-", "15"), ("drop", "0.1", f"{overall['noise']['drop']['bytes']}"), ("ant", "1", f"{overall['noise']['ant']['bytes']}"),
    ]  # fmt: skip
    assert noise.rows[2][6] == f"{overall['noise']['ant']['bits_per_clean_byte']:.3f}"
    assert by_source.rows[-1][1:] == tuple(f"{each['bits_per_byte']:.3f}" for each in (overall, *overall["noise"].values()))
    assert sum(int(row[1]) for row in calibration.rows) == 15 + 4


def test_notes_say_how_it_was_measured(report):
    said = "\n".join(notes(report))
    for part in (
        "Contexts of 32 tokens", "begin 16 tokens apart", "at least 16 tokens before it", "float32", report["entropy_model"],
        "patch rule entropy, threshold 4.55", "90 % of 100 resamples of the documents (seed 5)",
        "of one document, or without bytes, there is none",
        "Noise drop: with probability 0.1 (seed 5), a character is left out.", "Reconstructed is the share", "divide by the noised bytes",
    ):  # fmt: skip
        assert part in said
    quiet = {**report, "noise": {}, "source_rules": {"code": {}}, "overall": {**report["overall"], "reconstruction": None}}
    assert "oise" not in "\n".join(notes(quiet))
    assert "Reconstructed" not in "\n".join(notes(quiet))
    assert "rules of their own for code." in "\n".join(notes(quiet))
    assert len(sections(quiet)) == 3


def test_markdown_keeps_names_as_they_are(report):
    text = to_markdown(report, "Evaluation of <this>")
    assert text.startswith("# Evaluation of &lt;this&gt;\n\nContexts of 32 tokens")
    rows = [line for line in text.splitlines() if r"a\|b \*bold\* &lt;i&gt;" in line]
    assert len(rows) == 3
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        # Signs that belong to a name are escaped.
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
