# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The statistics of a dataset
#
# A dataset can be wrong in ways that no error message tells: the mean patch length is what was asked for, training runs, and
# the patches have nothing to do with the text. This notebook builds a small dataset, looks at its statistics, asks the
# diagnostics what may be wrong with it, and then plants such a fault and has it found.
#
# It needs nothing but this project and what Python ships, and takes less than a minute. What entropies and patches are is in
# `01_patch_boundaries`.

# %%
import html
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display

from bltdata import EntropyModelConfig, Patches, PatchRule, TrainingConfig, open_corpus, open_shards, patch, pretrain
from bltdata.build import BuildConfig, build_shards
from bltdata.corpus import SplitFractions
from bltdata.nn import one_thread
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.stats import Diagnosis, collect_statistics, diagnose, render, take_sample, to_mapping, to_page
from bltdata.training.loop import Reporter

# Colours that can be read on a light page and on a dark one.
GREY, BLUE, ORANGE = "#808080", "#4a8fd4", "#eb6e14"
plt.rcParams.update(
    {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "figure.dpi": 110,
        **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"], GREY),
    }
)

# %% [markdown]
# ## 1. A dataset
#
# Documents of two sources: prose, the topics of Python's language reference, and code, some of its modules. They go into a
# file each, a line of JSON a document, as a corpus of one's own might be. The label after `#source=` is what statistics
# are told apart by.

# %%
workspace = tempfile.TemporaryDirectory()
folder = Path(workspace.name)
SOURCE_BYTES = 160_000

room = {"prose": SOURCE_BYTES, "code": SOURCE_BYTES}
lines: dict[str, list[str]] = {"prose": [], "code": []}
for document in open_corpus("python-docs"):
    source = "prose" if "/topics/" in document.doc_id else "code"
    if 1000 <= len(document.data) <= 20_000 and len(document.data) <= room[source]:
        room[source] -= len(document.data)
        lines[source].append(json.dumps({"id": document.doc_id, "text": document.data.decode(errors="replace")}))
for source, texts in lines.items():
    (folder / f"{source}.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")

specs = [f"{folder}/{source}.jsonl#text=text&id=id&source={source}" for source in lines]
fractions = SplitFractions(train=0.8, validation=0.2, test=0.0)
train, validation = (open_corpus(specs, split, fractions=fractions) for split in ("train", "validation"))

# %% [markdown]
# A very small entropy model, trained for seconds, and shards: every document is scored, cut into patches, and both are
# stored. The threshold is the one that gives patches of 4.5 bytes on average.

# %%
architecture = EntropyModelConfig(dim=64, num_layers=2, num_heads=4, ffn_dim=192, window=32)
training = TrainingConfig(
    steps=800, batch_rows=8, row_tokens=64, learning_rate=5e-3, warmup_steps=30, evaluate_every=200, precision="float32", seed=0
)
reporter = Reporter(evaluated=lambda metrics: print(f"step {metrics['step']:4}   {metrics['bits_per_byte']:.2f} bits per byte"))
with one_thread():
    pretrain(train, validation, architecture, training, folder / "model", device="cpu", reporter=reporter)

TARGET = 4.5
config = BuildConfig(rule=PatchRule(), target_patch_length=TARGET, fragment_bytes=100_000)
manifest = build_shards(train, folder / "model", config, folder / "shards")
dataset = open_shards(folder / "shards")
threshold = manifest.patch_rule["threshold"]
print(f"{manifest.totals.num_documents} documents in {manifest.totals.num_shards} shards, threshold {threshold:.3f} nats")

# %% [markdown]
# ## 2. What is in it
#
# `collect_statistics` reads the shards once, a row group at a time. What it counts are whole numbers, so the result is exact,
# and the same in whichever order and by however many processes the shards are read. `bltdata entropy-stats` prints these
# tables:

# %%
statistics = collect_statistics(dataset)
report = to_mapping(statistics)
print(render(report))

# %% [markdown]
# The same as pictures. An entropy can lie between 0 and ln 260 = 5.56 nats and nowhere else; patch lengths should be spread
# out; white space is easier to guess than digits; and the first bytes of a document, before the model has
# anything to go by, are the hardest.

# %%
overall = report["overall"]
entropy, lengths = statistics.overall().entropy.summary(), statistics.overall().patch_lengths.summary()

figure, grid = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
axes = grid[0, 0]
axes.hist(entropy.values, bins=np.arange(0, 5.7, 0.125), weights=entropy.counts * 100 / entropy.total, color=BLUE)
above = entropy.counts[entropy.values > np.float32(threshold)].sum() / entropy.total
axes.axvline(threshold, color=ORANGE, linestyle="--", label=f"threshold, {above:.0%} above it")
axes.set(title="Entropy", xlabel="nats", ylabel="positions, %", xlim=(0, 5.56))
axes.legend()
axes = grid[0, 1]
axes.bar(lengths.values, lengths.counts * 100 / lengths.total, width=0.9, color=BLUE)
axes.axvline(lengths.mean, color=ORANGE, linestyle="--", label=f"mean {lengths.mean:.2f}")
axes.set(title="Patch length", xlabel="bytes", ylabel="patches, %", xlim=(0, 24))
axes.legend()
axes = grid[1, 0]
classes = {name: found["mean_entropy_nats"] for name, found in overall["by_class"].items() if found["bytes"] > 500}
axes.barh(list(classes), list(classes.values()), color=BLUE)
axes.invert_yaxis()
axes.set(title="Mean entropy by class of byte", xlabel="nats")
axes = grid[1, 1]
bins = overall["by_position"]
axes.plot([found["from"] for found in bins], [found["mean_entropy_nats"] for found in bins], color=BLUE)
axes.set_xscale("symlog", linthresh=1)
axes.set(title="Mean entropy by distance from the start", xlabel="position in the document", ylabel="nats", ylim=(0, None))
plt.show()

assert entropy.minimum >= 0
assert entropy.maximum <= np.log(260)
assert abs(overall["patch_length"]["mean"] / TARGET - 1) < 0.03
assert bins[0]["mean_entropy_nats"] > overall["entropy_nats"]["mean"]

# %% [markdown]
# After which bytes do patches start? `start_rate_after` has a share for each of the 256 values.

# %%
rates = {chr(byte): rate for byte, rate in enumerate(overall["start_rate_after"]) if rate is not None and 32 <= byte < 127}
often = sorted((character for character in " .,:()_=etns" if character in rates), key=rates.__getitem__, reverse=True)
print("   ".join(f"{character!r} {rates[character]:.0%}" for character in often))

# %% [markdown]
# ## 3. By source
#
# Everything in the report is there for each source as well. One threshold gives the two of them patches of different lengths,
# so a byte of one costs more than a byte of the other.

# %%
for source, found in report["by_source"].items():
    mean, bits = found["patch_length"]["mean"], found["entropy_model_bits_per_byte"]
    print(f"{source:6} {found['total_bytes']:8,} bytes   {mean:.2f} bytes per patch   {bits:.2f} bits per byte")

# %% [markdown]
# Entropies are stored, so cutting again takes no model. `repatch_shards` makes a dataset in which each source has a threshold of
# its own, chosen for the same mean length (on the command line `bltdata repatch --by source`):

# %%
repatch_shards(folder / "shards", RepatchConfig(rule=PatchRule(), target_patch_length=TARGET, by_source=True), folder / "by-source")
by_source = collect_statistics(open_shards(folder / "by-source"))

figure, grid = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, layout="constrained")
for axes, (title, counted) in zip(grid, {"one threshold": statistics, "a threshold for each": by_source}.items(), strict=True):
    for (source, found), colour in zip(sorted(counted.by_source.items()), (BLUE, ORANGE), strict=True):
        summary = found.patch_lengths.summary()
        shares = np.cumsum(summary.values * summary.counts) / (summary.values @ summary.counts) * 100
        axes.step(summary.values, shares, where="post", color=colour, label=f"{source}, mean {summary.mean:.2f}")
    axes.set(title=title, xlabel="bytes in the patch", xlim=(0, 40))
    axes.legend(loc="lower right")
grid[0].set_ylabel("positions in patches up to it, %")
plt.show()

means = [found.mean_patch_length for found in by_source.by_source.values()]
assert max(means) / min(means) < 1.02

# %% [markdown]
# ## 4. Can it be right?
#
# `diagnose` asks eleven questions, and answers each with a verdict, the numbers, and what to do. It needs a sample of the
# documents too, because it lets xz and a context model of two bytes loose on them: an entropy model that can't beat these is
# broken, and one that beats them by far sees what it predicts.

# %%
COLOURS = {"ok": "#2e9e5b", "not checked": GREY, "warning": ORANGE, "error": "#d6453d"}


def table(diagnoses: list[Diagnosis]) -> HTML:
    """Diagnoses as a table; evidence is text, whatever a source is called."""
    rows = "".join(
        f'<tr><td style="color:{COLOURS[each.verdict]};font-weight:bold;white-space:nowrap">{each.verdict}</td>'
        f'<td style="text-align:left">{html.escape(each.name)}</td><td style="text-align:left">{html.escape(each.evidence)}</td></tr>'
        for each in diagnoses
    )
    return HTML(f"<table>{rows}</table>")


diagnoses = diagnose(statistics, manifest, take_sample(dataset))
display(table(diagnoses))
assert [each.name for each in diagnoses if each.verdict == "error"] == []

# %% [markdown]
# Nothing is an error. If there is a warning about two bytes of context, it is deserved: a model that was trained for seconds may
# well lose against a table of what follows which two bytes. What there is too little to tell of is `not checked`, never
# `ok`; `splits are apart` waits for another split, on the command line `--against`.
#
# ## 5. A planted fault
#
# Now a mistake that is easily made. A threshold is copied from somewhere and is far too low for this model: all entropies are above
# it, every position wants to start a patch, and the minimum length decides alone. With a minimum of 5 the mean is close to what
# was wanted, and the manifest says `entropy`.

# %%
mistaken = PatchRule(threshold=1e-3, min_length=5)
wrong_manifest = repatch_shards(folder / "shards", RepatchConfig(rule=mistaken), folder / "wrong")
wrong = collect_statistics(open_shards(folder / "wrong"))
for name, counted in {"as built": statistics, "mistaken": wrong}.items():
    print(f"{name}: {counted.overall().mean_patch_length:.2f} bytes per patch")

# %% [markdown]
# The mean says nothing. The distribution says all:

# %%
figure, grid = plt.subplots(1, 2, figsize=(10, 3), sharey=True, layout="constrained")
for axes, (title, counted) in zip(grid, {"as built": statistics, "mistaken": wrong}.items(), strict=True):
    summary = counted.overall().patch_lengths.summary()
    axes.bar(summary.values, summary.counts * 100 / summary.total, width=0.9, color=BLUE)
    axes.axvline(summary.mean, color=ORANGE, linestyle="--", label=f"mean {summary.mean:.2f}, std {summary.std:.2f}")
    axes.set(title=title, xlabel="bytes in the patch", xlim=(0, 24))
    axes.legend(loc="upper right")
grid[0].set_ylabel("patches, %")
plt.show()

# %% [markdown]
# And the diagnostics name it, without anybody having to look:

# %%
found = {each.name: each for each in diagnose(wrong, wrong_manifest, take_sample(open_shards(folder / "wrong")))}
errors = [each for each in found.values() if each.verdict == "error"]
display(table(errors))
for each in errors:
    print(f"{each.name}: {each.advice}")

assert {"threshold", "fixed stride"} <= {each.name for each in errors}
assert found["fixed stride"].numbers["length"] == mistaken.min_length

# %% [markdown]
# `bltdata entropy-stats --strict` ends with exit code 1 on an error, so a script can stop there. What it means for a text, first as
# built, then as mistaken; the stronger the colour, the higher the entropy at a patch's first byte:

# %%
row = next(row for row in dataset if row.source == "prose")
right = patch(row.data, row.entropy_nats, PatchRule(threshold=threshold)).head(230)
strided: Patches = patch(row.data, row.entropy_nats, mistaken).head(230)
display(right, strided)
assert set(strided.lengths[:-1].tolist()) == {5}

# %% [markdown]
# ## 6. One page of everything
#
# `to_page` makes a single HTML file of the report, its pictures and diagnoses, without scripts, light or dark as the reader's
# system is. On the command line it is `bltdata entropy-stats runs/shards/train --html report.html`.

# %%
page = to_page(report | {"diagnostics": [each.to_mapping() | {"dataset": "lesson"} for each in diagnoses]}, statistics)
(folder / "report.html").write_text(page, encoding="utf-8")
print(f"{len(page) / 1000:.0f} kB, {page.count('<svg ')} pictures, {page.count('<table>')} tables, {page.count('<script')} scripts")
assert "<script" not in page
workspace.cleanup()

# %% [markdown]
# Next: `bltdata compare` puts datasets such as these three side by side, and `04_from_shards_to_a_blt` trains on one.
