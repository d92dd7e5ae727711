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
# # From shards to a tiny BLT
#
# The last step of the way: shards of bytes, entropies and patches go in, and out comes a Byte Latent Transformer that says how
# probable each next byte is. This notebook trains a very small one, measures it on documents that it has not seen, beside an
# entropy model and compressors, looks at where its cost is, and has it write.
#
# It needs nothing but this project and what Python ships, and takes less than a minute; so don't expect prose.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from bltdata import EntropyModel, EntropyModelConfig, PatchRule, TrainingConfig, open_corpus, open_shards, patch, pretrain
from bltdata.build import BuildConfig, build_shards
from bltdata.corpus import SplitFractions
from bltdata.nn import one_thread
from bltdata.stats import collect_statistics
from bltdata.training.loop import Reporter
from bltdata.vocab import BYTE_OFFSET, EOS_ID
from bltmodel import BLT, BLTConfig
from bltmodel.evaluation import evaluate
from bltmodel.sampling_config import SamplingConfig
from bltmodel.training import train_blt
from bltmodel.training_data import open_training_data

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
workspace = tempfile.TemporaryDirectory()
folder = Path(workspace.name)

# %% [markdown]
# ## 1. Shards of two splits
#
# As in the lessons before: an entropy model learns from the English of Python's language reference, and shards are built with
# it. The threshold is calibrated on the training documents, to patches of 4.5 bytes. The validation documents get the same rule:
# the BLT will be judged on patches as it knows them.

# %%
fractions = SplitFractions(train=0.8, validation=0.2, test=0.0)
train, validation = (open_corpus("python-docs#limit=50", split, fractions=fractions) for split in ("train", "validation"))
entropy_architecture = EntropyModelConfig(dim=64, num_layers=2, num_heads=4, ffn_dim=192, window=32)
entropy_training = TrainingConfig(
    steps=350, batch_rows=8, row_tokens=64, learning_rate=5e-3, warmup_steps=30, evaluate_every=175, validation_bytes=20_000,
    precision="float32", seed=0,
)  # fmt: skip
with one_thread():
    pretrain(train, validation, entropy_architecture, entropy_training, folder / "entropy-model", device="cpu")

config = BuildConfig(rule=PatchRule(), target_patch_length=4.5)
manifest = build_shards(train, folder / "entropy-model", config, folder / "shards" / "train")
rule = PatchRule(**manifest.patch_rule)
build_shards(validation, folder / "entropy-model", BuildConfig(rule=rule), folder / "shards" / "validation")
for split in ("train", "validation"):
    totals = open_shards(folder / "shards" / split).manifest.totals
    print(f"{split:10} {totals.num_documents:3} documents, {totals.num_bytes:7,} bytes, {totals.mean_patch_length:.2f} bytes per patch")

# %% [markdown]
# A row of a shard is one document. What the BLT reads of it are its bytes and the lengths of its patches; they sum to one
# more than the bytes, because the end of the document is predicted too.

# %%
row = next(iter(open_shards(folder / "shards" / "validation")))
print(row.num_bytes, "bytes,", row.num_patches, "patches of", row.patch_lengths[:12], "...")
assert row.patch_lengths.sum() == row.num_bytes + 1
patch(row.data, row.entropy_nats, rule).head(160)

# %% [markdown]
# ## 2. The model
#
# Three transformers. The *local encoder* is small and runs over bytes; at the end of it each patch becomes one vector. The
# *latent transformer* is the large one, and runs once for each patch. The *local decoder* is small again, and gives each byte the
# last patch that is complete, to say what comes next. Hashed n-grams tell the encoder which bytes stand before each.

# %%
architecture = BLTConfig(
    local_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    local_heads=4,
    local_ffn_dim=128,
    window=64,
    latent_dim=128,
    latent_layers=2,
    latent_heads=4,
    latent_ffn_dim=256,
    ngram_sizes=(3, 4, 5),
    hash_rows=4096,
)
parts = BLT(architecture, seed=0).num_parameters()
for part, count in parts.items():
    print(f"{part:20} {count:9,} weights")

# %% [markdown]
# ## 3. Training
#
# Documents are packed into rows of 192 tokens, and what a byte costs goes down. 8 bits per byte would be the cost without a
# model, and a model that has learned nothing pays a little more, as it also has to tell bytes from the end of a document. On the way
# it is judged on a part of the validation documents, to save time. Where there are few documents, many small steps, here of two rows,
# teach more than a few large ones.

# %%
metrics = []
reporter = Reporter(evaluated=metrics.append)
training = TrainingConfig(
    optimiser="muon", steps=315, row_tokens=192, batch_rows=2, learning_rate=6e-3, warmup_steps=30, evaluate_every=45,
    validation_bytes=15_000, precision="float32", seed=0,
)  # fmt: skip
with one_thread():
    best = train_blt(architecture, training, open_training_data(folder / "shards"), folder / "blt", device="cpu", reporter=reporter)
print(f"best at step {best['step']}: {best['bits_per_byte']:.2f} bits per byte")

figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
axes.plot([each["step"] for each in metrics], [each["bits_per_byte"] for each in metrics], "o-", color=BLUE, markersize=4)
axes.set(title="What a validation byte costs", xlabel="step", ylabel="bits per byte", xlim=(0, None))
plt.show()
assert metrics[-1]["bits_per_byte"] < metrics[0]["bits_per_byte"] < 8.2

# %% [markdown]
# ## 4. What it is worth
#
# `evaluate` predicts every byte of the validation documents once. The compressors get the same documents; the entropy model's
# cost is in the shards already. All of them are in bits per raw byte, so they can be compared.

# %%
with one_thread():
    evaluation = evaluate(folder / "blt", folder / "shards" / "validation", device="cpu").report()["overall"]
entropy_bits = collect_statistics(open_shards(folder / "shards" / "validation")).overall().bits_per_byte
costs = {"BLT": evaluation["bits_per_byte"], "entropy model": entropy_bits, **evaluation["compressors_bits_per_byte"]}

figure, axes = plt.subplots(figsize=(10, 2.6), layout="constrained")
bars = axes.barh(list(costs), list(costs.values()), color=[ORANGE, BLUE] + [GREY] * (len(costs) - 2))
axes.bar_label(bars, fmt=" %.2f", color=GREY)
axes.invert_yaxis()
axes.set(title=f"{evaluation['bytes']:,} bytes that none of the models has seen", xlabel="bits per byte")
plt.show()
assert 1 < evaluation["bits_per_byte"] < 6

# %% [markdown]
# A compressor begins with nothing, learns from the documents that it compresses, and has all of them in view; the models have
# learned from others, for seconds, and the BLT sees a row of 192 tokens. More steps, more bytes and longer rows are what it needs:
# `make quickstart` gives it some minutes of them.
#
# ## 5. Where the cost is
#
# `blt.logits` gives a row for each position: row `i` predicts what stands at `i` from the bytes before. So one can look at
# what each byte cost, and where patches start.

# %%
blt, entropy_model = BLT.load(folder / "blt"), EntropyModel.load(folder / "entropy-model")
TEXT = b"The statement returns the value of the object."
cut = patch(TEXT, next(entropy_model.score([TEXT])), rule)
targets = torch.tensor([byte + BYTE_OFFSET for byte in TEXT] + [EOS_ID])
bits = torch.nn.functional.cross_entropy(blt.logits(TEXT, cut.lengths), targets, reduction="none").numpy() / np.log(2)

figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
places = np.arange(len(bits))
axes.bar(places, bits, width=0.85, color=[ORANGE if place in set(cut.starts.tolist()) else BLUE for place in places])
axes.set_xticks(places, [*TEXT.decode().replace(" ", "\u00b7"), "end"], fontfamily="monospace")
axes.set(title=f"{bits.sum() / len(TEXT):.2f} bits per byte; patches start at the orange ones", ylabel="bits", xlim=(-0.8, len(bits) - 0.2))
plt.show()

# %% [markdown]
# Patches start where the entropy model is unsure, and there the BLT mostly pays most as well. That a document ends after one sentence
# surprises it: those that it has read are longer. Does it see what it predicts? Let
# another byte stand at position 20: what it says of positions 0 to 20 must stay as it is, to the last bit, and it may change from 21 on.

# %%
changed = TEXT[:20] + b"#" + TEXT[21:]
before, after = (blt.logits(data, cut.lengths) for data in (TEXT, changed))
same = (before == after).all(dim=1).tolist()
print("the same up to position", same.index(False) - 1)
assert same[:21] == [True] * 21
assert not any(same[21:])

# %% [markdown]
# ## 6. It writes
#
# To generate, all three work together: the entropy model says how uncertain the next byte is, the rule whether a patch starts
# there, and the BLT what it is. The tests have it that patches made that way are those of the finished text.

# %%
PROMPT = b"The "
(new,) = blt.generate([PROMPT], entropy_model=entropy_model, rule=rule, max_new_bytes=160, sampling=SamplingConfig(temperature=0.6), seed=0)
text = PROMPT + new
patch(text, next(entropy_model.score([text])), rule)

# %% [markdown]
# Words, more or less, and little sense: it has read a hundred kilobytes or so, once.

# %%
assert len(new) > 20
workspace.cleanup()

# %% [markdown]
# Next: `make quickstart` does all of this at a larger size, from raw bytes to a sample, and `bltmodel.ShardReader` gives the same
# batches to a trainer of your own.
