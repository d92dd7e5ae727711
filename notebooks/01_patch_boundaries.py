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
# # Where patches begin
#
# A Byte Latent Transformer reads bytes, but it does not spend the same effort on each. It groups them into *patches*, and
# starts a new patch where the next byte is hard to guess. This notebook goes from a text to its patches: it trains the small
# model that does the guessing, looks at its entropies, draws the boundaries, and shows that no boundary depends on what
# comes after it.
#
# It needs nothing but this project and what Python ships, and takes less than a minute.

# %%
import os
import tempfile
from pathlib import Path

# Read when torch is imported. With one thread sums have one order: the same machine gives the same numbers every time.
os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib.pyplot as plt
import numpy as np

from bltdata import EntropyModel, PatchRule, open_corpus, patch
from bltdata.corpus import SplitFractions
from bltdata.entropy import EntropyModelConfig
from bltdata.entropy.pretraining import pretrain
from bltdata.patching import calibrate
from bltdata.training.config import TrainingConfig
from bltdata.training.loop import Reporter
from bltdata.vocab import MAX_ENTROPY_NATS, VOCAB_SIZE

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
# ## 1. Bytes
#
# A document is a string of bytes, each a number from 0 to 255. In UTF-8 an English letter is one byte, other characters are
# two to four. Sound, images and broken text are bytes as well, and nothing here decodes them.

# %%
ENGLISH = b"patches"
FRENCH = "d\u00e9j\u00e0 vu".encode()
JAPANESE = "\u65e5\u672c\u8a9e".encode()
SOUND = (20_000 * np.sin(np.arange(40) / 3)).astype("<i2").tobytes()

for name, data in {"English": ENGLISH, "French": FRENCH, "Japanese": JAPANESE, "a sine wave": SOUND}.items():
    text = data.decode("utf-8", errors="replace")
    print(f"{name:12} {len(data):2} bytes  {data[:9].hex(' '):27}{'...' if len(data) > 9 else '   '} {text[:7]!r}")

# %% [markdown]
# The text of this lesson has some of the documentation's prose and some of its code.

# %%
TEXT = b'''The import statement binds names. Importing a module twice runs its code only once.

def mean(values):
    """Return the average of the values."""
    return sum(values) / len(values)
'''
print(len(TEXT), "bytes")

# %% [markdown]
# ## 2. A model that guesses the next byte
#
# The *entropy model* is a causal transformer over bytes: from the bytes before position `i` it gives a probability to each of
# 260 ids, the 256 bytes and 4 special ids, among them the end of the document. Before training it knows nothing, and its
# entropy is not far below the largest that 260 outcomes can have, which is when all are equally likely:
# $-\sum_{k=1}^{260} \frac{1}{260} \ln \frac{1}{260} = \ln 260$.

# %%
architecture = EntropyModelConfig(dim=64, num_layers=2, num_heads=4, ffn_dim=192, window=16)
untrained = EntropyModel(architecture, seed=0)
untrained_nats = next(untrained.score([TEXT]))

print(f"{untrained.num_parameters:,} weights")
print(f"mean entropy before training   {untrained_nats.mean():.3f} nats")
print(f"the maximum, ln {VOCAB_SIZE}            {MAX_ENTROPY_NATS:.3f} nats = {MAX_ENTROPY_NATS / np.log(2):.3f} bits")

# %% [markdown]
# Now it learns from the language reference that comes with Python, some 400 kB. A model this small, trained for seconds,
# guesses badly, but well enough to tell the inside of a word from its beginning. Bits per byte are what a byte costs in
# documents that it was not trained on; 8 would be the cost without a model.

# %%
topics = "python-docs#limit=80"
fractions = SplitFractions(train=0.8, validation=0.2, test=0.0)
train, validation = (open_corpus(topics, split, fractions=fractions) for split in ("train", "validation"))
training = TrainingConfig(
    steps=700, batch_rows=8, row_tokens=64, learning_rate=5e-3, warmup_steps=30, evaluate_every=100, precision="float32", seed=0
)
reporter = Reporter(evaluated=lambda metrics: print(f"step {metrics['step']:4}   {metrics['bits_per_byte']:.2f} bits per byte"))

with tempfile.TemporaryDirectory() as folder:
    pretrain(train, validation, architecture, training, Path(folder), device="cpu", reporter=reporter)
    model = EntropyModel.load(folder)

# %% [markdown]
# After `make quickstart` there is a better one: `model = EntropyModel.load("../runs/quickstart/entropy-model")`. Everything
# below works with either.
#
# ## 3. Entropies
#
# `model.score` gives `n + 1` numbers for a document of `n` bytes. Number `i` is the entropy of the guess about byte `i`, made
# from the bytes before it; the last is about the end of the document. It is the cost that the model *expects*, so it is known
# before the byte is. Divided by ln 2, nats become bits.

# %%
entropy_nats = next(model.score([TEXT]))
assert entropy_nats.shape == (len(TEXT) + 1,)
assert entropy_nats.min() >= 0
assert entropy_nats.max() <= MAX_ENTROPY_NATS


def shown(byte: int) -> str:
    """A byte as one character to stand under a curve."""
    signs = {ord(" "): "\N{OPEN BOX}", ord("\n"): "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"}
    return signs.get(byte, chr(byte) if 0x20 < byte < 0x7F else "\N{MIDDLE DOT}")


def plot_entropies(data: bytes, entropy_nats: np.ndarray, rule: PatchRule, width: int = 64) -> None:
    """Draw the entropies of a document above its bytes, wrapped into lines, and mark where patches start."""
    labels = [*map(shown, data), "END"]
    starts = rule.starts(data, entropy_nats)
    num_lines = -(-len(labels) // width)
    figure, grid = plt.subplots(num_lines, 1, figsize=(10, 1.7 * num_lines + 0.5), sharey=True, squeeze=False, layout="constrained")
    for line, axes in enumerate(grid[:, 0]):
        positions = np.arange(line * width, min((line + 1) * width, len(labels)))
        here = starts[(starts >= positions[0]) & (starts <= positions[-1])]
        axes.plot(positions, entropy_nats[positions], color=BLUE, marker=".", markersize=4, linewidth=1.2, label="entropy")
        axes.vlines(here, 0, entropy_nats[here], color=ORANGE, linewidth=2.5, alpha=0.75, label="a patch starts")
        axes.axhline(rule.threshold, color=ORANGE, linestyle="--", linewidth=1, label=f"threshold, {rule.threshold:.2f} nats")
        axes.axhline(MAX_ENTROPY_NATS, color=GREY, linestyle=":", linewidth=1, label=f"ln {VOCAB_SIZE}")
        axes.set_xlim(line * width - 0.7, (line + 1) * width - 0.3)
        axes.set_ylim(0, 1.05 * MAX_ENTROPY_NATS)
        axes.set_xticks(positions, [labels[position] for position in positions], family="monospace")
        axes.tick_params(axis="x", length=0)
        for label, position in zip(axes.get_xticklabels(), positions, strict=True):
            label.set_color(ORANGE if position in here else GREY)
            label.set_horizontalalignment("left" if position == len(data) else "center")
        axes.set_ylabel("nats")
        axes.secondary_yaxis("right", functions=(lambda nats: nats / np.log(2), lambda bits: bits * np.log(2))).set_ylabel("bits")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    plt.show()


plot_entropies(TEXT, entropy_nats, PatchRule(threshold=2.0))

# %% [markdown]
# The curve is high where a word begins and falls while it goes on: the more of it is known, the fewer ways are left to
# continue.
#
# ## 4. Patches
#
# The rule is one line: a patch starts at `i` where `entropy_nats[i] > threshold`, and at byte 0. Here are the patches, the
# stronger the colour the higher the entropy of a patch's first byte. Move the pointer over one for its numbers.

# %%
patch(TEXT, entropy_nats, PatchRule(threshold=2.0))

# %% [markdown]
# The lengths add up to `n + 1`, since the end of the document is a position too: it is something to predict. It is never
# forced to start a patch; that would tell the model that the end is coming.

# %%
patches = patch(TEXT, entropy_nats, PatchRule(threshold=2.0))
print("lengths", patches.lengths.tolist())
print("starts ", patches.starts[:12].tolist(), "...")
assert patches.lengths.sum() == len(TEXT) + 1
assert b"".join(patches) == TEXT

# %% [markdown]
# Any bytes will do. The model has never seen a sound, so it is unsure nearly everywhere and patches are short. That is what
# they should be: no effort is saved where nothing is known.

# %%
patch(SOUND, next(model.score([SOUND])), PatchRule(threshold=2.0))

# %% [markdown]
# ## 5. The threshold
#
# A higher threshold makes fewer and longer patches, hence a cheaper model, since the large transformer in a BLT runs once per
# patch. Which threshold gives which mean depends on the entropy model, so it is the mean length that one chooses: `calibrate`
# finds the threshold. The entropies are computed once; trying another rule costs next to nothing.

# %%
documents = [document.data for document in validation]
scored = list(zip(documents, model.score(documents), strict=True))
calibration = calibrate(scored, PatchRule(), 4.5)
rule = calibration.rule
print(f"{calibration.num_bytes:,} bytes in {calibration.num_documents} documents make {calibration.num_patches:,} patches")
print(f"threshold {calibration.threshold:.3f} nats, mean patch length {calibration.mean_patch_length:.3f} bytes")


def lengths_under(rule: PatchRule) -> np.ndarray:
    """The patch lengths of all scored documents."""
    return np.concatenate([rule.lengths(data, nats) for data, nats in scored])


thresholds = np.linspace(0, 3.5, 71)
means = [lengths_under(PatchRule(threshold=threshold)).mean() for threshold in thresholds]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(thresholds, means, color=BLUE)
left.plot(rule.threshold, calibration.mean_patch_length, "o", color=ORANGE, label=f"{calibration.mean_patch_length:.2f} bytes")
left.set(title="A higher threshold makes longer patches", xlabel="threshold, nats", ylabel="mean patch length, bytes", yscale="log")
left.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
left.minorticks_off()
left.legend()
lengths = lengths_under(rule)
right.hist(lengths, bins=np.arange(1, 32) - 0.5, weights=np.full(len(lengths), 100 / len(lengths)), color=BLUE)
right.axvline(lengths.mean(), color=ORANGE, linestyle="--", label=f"mean {lengths.mean():.2f} bytes")
right.set(title="A mean of 4.5 is a mixture", xlabel="patch length, bytes", ylabel="patches, %")
right.legend(title=f"{np.mean(lengths > 30):.1%} are longer than 30")
plt.show()

# %%
plot_entropies(TEXT, entropy_nats, rule)

# %%
patch(TEXT, entropy_nats, rule)

# %% [markdown]
# ## 6. No boundary sees what comes after it
#
# Whether a patch starts at `i` is decided before byte `i` is known. In training this keeps boundaries from telling the model
# what it is to predict; in generation there is no other way. So if byte `i` changes, entropies and boundaries up to and
# including `i` must stay as they are, to the bit. Here one letter becomes a quotation mark:

# %%
place = TEXT.index(b"code")
CHANGED = TEXT[:place] + b'"' + TEXT[place + 1 :]
changed_nats = next(model.score([CHANGED]))
difference = changed_nats - entropy_nats
starts, changed_starts = rule.starts(TEXT, entropy_nats), rule.starts(CHANGED, changed_nats)
assert not difference[: place + 1].any()
assert np.array_equal(starts[starts <= place], changed_starts[changed_starts <= place])
assert difference[place + 1] != 0

figure, axes = plt.subplots(figsize=(10, 2.8), layout="constrained")
window = np.arange(place - 20, place + 44)
axes.axvspan(window[0] - 1, place + 0.5, color=GREY, alpha=0.15, linewidth=0, label="up to and including the changed byte")
axes.bar(window, difference[window], color=BLUE)
moves = {"a new start": ("^", np.setdiff1d(changed_starts, starts)), "a start gone": ("x", np.setdiff1d(starts, changed_starts))}
for label, (marker, moved) in moves.items():
    inside = np.intersect1d(moved, window)
    axes.plot(inside, np.zeros(len(inside)), marker, color=ORANGE, markeredgewidth=1.6, label=label)
axes.set_xticks(window, [shown(CHANGED[position]) for position in window], family="monospace")
axes.get_xticklabels()[20].set(color=ORANGE, fontweight="bold")
axes.tick_params(axis="x", length=0)
axes.set(xlim=(window[0] - 1, window[-1] + 1), ylabel="change, nats")
axes.set_title("Entropies of the changed text less those of the text", pad=24)
axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3)
plt.show()

# %%
patch(CHANGED, changed_nats, rule)

# %% [markdown]
# One example is no proof, so now every byte in turn.


# %%
def flipped(data: bytes, place: int) -> bytes:
    """The data with one byte changed."""
    return data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :]


num_moved = 0
for place, nats in enumerate(model.score(flipped(TEXT, place) for place in range(len(TEXT)))):
    starts_now = rule.starts(flipped(TEXT, place), nats)
    assert np.array_equal(starts_now[starts_now <= place], starts[starts <= place])
    assert not np.array_equal(nats, entropy_nats)
    num_moved += not np.array_equal(starts_now, starts)
print(f"{len(TEXT)} bytes changed, one at a time: {num_moved} of them moved boundaries, none a boundary before or at the byte.")

# %% [markdown]
# ## 7. Other rules
#
# A rule is a value: it can be compared, stored, and used on entropies computed long ago.
#
# - `relative_threshold` looks at the rise from one position to the next, not at the height. Here it is calibrated to the same
#   mean on the same documents.
# - `fixed` and `space` need no entropies. `space` starts a patch behind the byte that ends a word.
# - `min_length` and `max_length` limit the lengths, and `reset_at_newline` starts a patch with every line.

# %%
rules = {
    "threshold": rule,
    "relative": calibrate(scored, PatchRule(relative_threshold=0.0), 4.5).rule,
    "fixed": PatchRule(scheme="fixed", stride=4),
    "space": PatchRule(scheme="space"),
    "at most 8": PatchRule(threshold=rule.threshold, max_length=8),
    "by line": PatchRule(threshold=rule.threshold, reset_at_newline=True),
}
for name, each in rules.items():
    cut = patch(TEXT, entropy_nats, each)
    pieces = " | ".join(piece.decode() for piece in cut if piece)
    print(f"{name:10} {len(cut):3} patches, {cut.mean_length:.2f} bytes:  {pieces[:84]!r}")

# %% [markdown]
# Next: `bltdata train-entropy-model`, `bltdata build-shards` and `bltdata entropy-stats` do the same for a whole corpus, and
# `make quickstart` trains a BLT on the result.
