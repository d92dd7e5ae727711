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
# # Rules side by side
#
# A *patch rule* says where patches start. Some rules look at how hard the next byte is to guess, some at the bytes, some at
# nothing but a counter. This notebook applies them to one text, and then to the same thoughts in ten languages: a threshold
# that suits one language doesn't suit another, and a threshold for each helps, at a price.
#
# It needs nothing but this project and what Python ships, and takes about a minute. What entropies and patches are is in
# `01_patch_boundaries`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from bltdata import EntropyModel, Patches, PatchRule, open_corpus, patch
from bltdata.corpus import SplitFractions
from bltdata.entropy import EntropyModelConfig
from bltdata.entropy.pretraining import pretrain
from bltdata.nn import one_thread
from bltdata.patching import calibrate
from bltdata.training.config import TrainingConfig
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
# ## 1. A model, and documents to calibrate on
#
# The model is that of `01_patch_boundaries`: very small, and trained for seconds on the English of Python's language
# reference. Documents of the same kind that it was not trained on are for choosing thresholds.

# %%
topics = "python-docs#limit=80"
fractions = SplitFractions(train=0.8, validation=0.2, test=0.0)
train, validation = (open_corpus(topics, split, fractions=fractions) for split in ("train", "validation"))
architecture = EntropyModelConfig(dim=64, num_layers=2, num_heads=4, ffn_dim=192, window=32)
training = TrainingConfig(
    steps=1000, batch_rows=8, row_tokens=64, learning_rate=5e-3, warmup_steps=30, evaluate_every=500, precision="float32", seed=0
)
reporter = Reporter(evaluated=lambda metrics: print(f"step {metrics['step']:4}   {metrics['bits_per_byte']:.2f} bits per byte"))

with tempfile.TemporaryDirectory() as folder, one_thread():
    pretrain(train, validation, architecture, training, Path(folder), device="cpu", reporter=reporter)
    model = EntropyModel.load(folder)

documents = [document.data for document in validation]
scored = list(zip(documents, model.score(documents), strict=True))
print(f"{len(documents)} documents to calibrate on, {sum(map(len, documents)):,} bytes")

# %% [markdown]
# ## 2. Nine rules
#
# `H[i]` is the entropy at position `i`, the uncertainty about what stands there given the bytes before it.
#
# | rule | a patch starts at `i` |
# |---|---|
# | `global` | where `H[i]` is above a threshold |
# | `relative` | where `H[i] - H[i-1]` is above a threshold: where it gets harder, however hard it is |
# | `both` | where both are so |
# | `min 3`, `max 6` | `global`, but no patch is shorter, or longer, than that |
# | `by line` | `global`, and with every line |
# | `fixed` | every 4 bytes |
# | `space` | after the first of a run of space-like bytes |
# | `byte` | everywhere |
#
# None of them looks at byte `i` or at what follows. The first five have a threshold, and `calibrate` chooses it so that
# patches have 4.5 bytes on average on the calibration documents. With the same mean they cost the same; what differs is
# where the patches are. The others are what they are.

# %%
TARGET = 4.5
forms = {
    "global": PatchRule(),
    "relative": PatchRule(relative_threshold=0.0),
    "both": PatchRule(threshold=0.0, relative_threshold=0.25),
    "min 3": PatchRule(min_length=3),
    "max 6": PatchRule(max_length=6),
}
calibrations = {name: calibrate(scored, form, TARGET) for name, form in forms.items()}
rules = {name: found.rule for name, found in calibrations.items()}
rules["by line"] = PatchRule(threshold=rules["global"].threshold, reset_at_newline=True)
rules |= {"fixed": PatchRule(scheme="fixed", stride=4), "space": PatchRule(scheme="space"), "byte": PatchRule(scheme="byte")}

for name, found in calibrations.items():
    print(f"{name:9} {found.field:18} {found.threshold:6.3f} nats   mean {found.mean_patch_length:.3f} bytes")
    assert abs(found.mean_patch_length / TARGET - 1) < 0.005

# %% [markdown]
# ## 3. One text

# %%
TEXT = b"""A generator is a function which returns an iterator.

def count(limit):
    for number in range(limit):
        yield number
"""
entropy_nats = next(model.score([TEXT]))
cuts = {name: patch(TEXT, entropy_nats, rule) for name, rule in rules.items()}
for name, cut in cuts.items():
    assert b"".join(cut) == TEXT
    assert cut.lengths.sum() == len(TEXT) + 1
    print(f"--- {name}: {cut!r}")
    print(cut.to_text().rstrip())

# %% [markdown]
# `global` starts patches at the beginnings of words, where the model is unsure, and keeps predictable stretches together.
# `relative` finds the beginnings too, and some more inside of words where a second part begins; where entropy stays high it is
# content with one start. A minimum moves starts away from where they belong, a maximum adds some where nothing happens.
# `space` is a guess at where words end, without any model.
#
# In colours, the stronger the higher the entropy at a patch's first byte; the pointer shows the numbers:

# %%
cuts["global"]

# %%
cuts["space"]

# %% [markdown]
# `space` is right about many words and wrong about some, and it cannot be told to make longer patches. The lengths show
# what a rule promises:

# %%
lengths_of = {name: np.concatenate([rule.lengths(data, nats) for data, nats in scored]) for name, rule in rules.items()}
assert lengths_of["byte"].max() == 1
assert lengths_of["fixed"].max() == 4
assert lengths_of["max 6"].max() == 6
# Only the end of a document may cut a patch of `min 3` short.
assert sum(int((rules["min 3"].lengths(data, nats)[:-1] < 3).sum()) for data, nats in scored) == 0

figure, grid = plt.subplots(2, 4, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
shown_rules = ["global", "relative", "both", "by line", "min 3", "max 6", "fixed", "space"]
for axes, name in zip(grid.flat, shown_rules, strict=True):
    lengths = lengths_of[name]
    axes.hist(lengths, bins=np.arange(1, 22) - 0.5, weights=np.full(len(lengths), 100 / len(lengths)), color=BLUE)
    axes.axvline(lengths.mean(), color=ORANGE, linestyle="--")
    axes.set_title(f"{name}, mean {lengths.mean():.2f}", fontsize=10)
    axes.set_ylim(0, 72)
grid[1, 2].text(5.5, 62, "nearly all", fontsize=9)
figure.supxlabel("patch length, bytes", color=GREY, fontsize=10)
figure.supylabel("patches, %", color=GREY, fontsize=10)
plt.show()

# %% [markdown]
# ## 4. Ten languages
#
# Here is one short text in ten languages, in the manner of a preamble. In UTF-8 a letter has one byte in English, mostly two
# in Russian, Greek and Arabic, and three in Hindi and Chinese.

# %%
# Letters of other scripts that look like Latin ones are no mistake here.
# ruff: noqa: RUF001
LANGUAGES = {
    "English": "Every person is born with the same worth, and no one may take it away. Whoever rules must protect the weak, hear both "
    "sides, and answer for what they do. Where people can speak, learn and work without fear, there is peace; where they cannot, no wall "
    "is high enough. We therefore promise to treat each other as neighbours, today and tomorrow.",
    "German": "Jeder Mensch wird mit demselben Wert geboren, und niemand darf ihm diesen nehmen. Wer regiert, muss die Schwachen "
    "schützen, beide Seiten anhören und für das einstehen, was er tut. Wo Menschen ohne Angst sprechen, lernen und arbeiten können, "
    "herrscht Frieden; wo sie es nicht können, ist keine Mauer hoch genug. Darum versprechen wir, einander als Nachbarn zu behandeln, "
    "heute und morgen.",
    "Spanish": "Toda persona nace con el mismo valor, y nadie puede quitárselo. Quien gobierna debe proteger a los débiles, escuchar a "
    "ambas partes y responder de lo que hace. Donde la gente puede hablar, aprender y trabajar sin miedo, hay paz; donde no puede, "
    "ningún muro es lo bastante alto. Por eso prometemos tratarnos como vecinos, hoy y mañana.",
    "Finnish": "Jokainen ihminen syntyy yhtä arvokkaana, eikä kukaan saa viedä tätä arvoa pois. Sen, joka hallitsee, on suojeltava "
    "heikkoja, kuultava molempia osapuolia ja vastattava teoistaan. Missä ihmiset voivat puhua, oppia ja tehdä työtä ilman pelkoa, "
    "siellä on rauha; missä he eivät voi, mikään muuri ei ole tarpeeksi korkea. Siksi lupaamme kohdella toisiamme naapureina tänään "
    "ja huomenna.",
    "Turkish": "Her insan aynı değerle doğar ve bunu ondan kimse alamaz. Yöneten kişi zayıfları korumalı, iki tarafı da dinlemeli ve "
    "yaptıklarının hesabını vermelidir. İnsanların korkmadan konuşabildiği, öğrenebildiği ve çalışabildiği yerde barış vardır; bunları "
    "yapamadıkları yerde hiçbir duvar yeterince yüksek değildir. Bu yüzden bugün ve yarın birbirimize komşu gibi davranacağımıza söz "
    "veriyoruz.",
    "Russian": "Каждый человек рождается с одинаковым достоинством, и никто не вправе его отнять. Тот, кто правит, должен защищать "
    "слабых, выслушивать обе стороны и отвечать за свои поступки. Где люди могут говорить, учиться и работать без страха, там мир; где "
    "не могут, ни одна стена не будет достаточно высокой. Поэтому мы обещаем относиться друг к другу как соседи, сегодня и завтра.",
    "Greek": "Κάθε άνθρωπος γεννιέται με την ίδια αξία, και κανείς δεν μπορεί να του την πάρει. Όποιος κυβερνά πρέπει να προστατεύει "
    "τους αδύναμους, να ακούει και τις δύο πλευρές και να λογοδοτεί για τις πράξεις του. Όπου οι άνθρωποι μπορούν να μιλούν, να "
    "μαθαίνουν και να εργάζονται χωρίς φόβο, εκεί υπάρχει ειρήνη· όπου δεν μπορούν, κανένα τείχος δεν είναι αρκετά ψηλό. Γι' αυτό "
    "υποσχόμαστε να φερόμαστε ο ένας στον άλλον σαν γείτονες, σήμερα και αύριο.",
    "Arabic": "يولد كل إنسان بالقيمة نفسها، ولا يحق لأحد أن يسلبها منه. وعلى من يحكم أن يحمي الضعفاء، وأن يستمع إلى الطرفين، وأن يُسأل "
    "عما يفعل. حيث يستطيع الناس أن يتكلموا ويتعلموا ويعملوا بلا خوف يكون السلام، وحيث لا يستطيعون فلا جدار يعلو بما يكفي. لذلك نتعهد "
    "بأن نعامل بعضنا بعضا معاملة الجيران، اليوم وغدا.",
    "Hindi": "हर इंसान बराबर मूल्य के साथ जन्म लेता है, और कोई उसे उससे छीन नहीं सकता। जो शासन करता है, उसे कमज़ोरों की रक्षा करनी "
    "चाहिए, दोनों पक्षों को सुनना चाहिए और अपने कामों का जवाब देना चाहिए। जहाँ लोग बिना डर के बोल, सीख और काम कर सकते हैं, वहाँ "
    "शांति होती है; जहाँ नहीं कर सकते, वहाँ कोई दीवार काफ़ी ऊँची नहीं होती। इसलिए हम वादा करते हैं कि आज और कल एक-दूसरे से "
    "पड़ोसियों जैसा व्यवहार करेंगे।",
    "Chinese": "每个人生来都有同样的价值，谁也不能夺走。执政的人应当保护弱者，听取双方的话，并为自己所做的事负责。"
    "人们能够无所畏惧地说话、学习和工作的地方，就有和平；不能这样的地方，再高的墙也不够高。因此我们承诺，今天和明天都像邻居一样相待。",
}
texts = {name: text.encode() for name, text in LANGUAGES.items()}
nats_of = dict(zip(texts, model.score(texts.values()), strict=True))

for name, text in LANGUAGES.items():
    data = texts[name]
    sizes = f"{len(text):4} characters {len(data):5} bytes, {len(data) / len(text):.2f} a character"
    print(f"{name:8} {sizes}   mean entropy {nats_of[name].mean():.2f} nats")

# %% [markdown]
# The model has read nothing but English. That the others surprise it isn't wrong, for to *it* they are surprising; how much is
# somewhat arbitrary where it meets bytes that it has never seen. A model that has read all ten would be surprised less, but
# still not equally by all, for there is never as much of each.
#
# Mean patch lengths in bytes, with the thresholds from above (the texts are one line each, so `by line` is `global`):


# %%
def cut_by(rule: PatchRule) -> dict[str, Patches]:
    """Each language's text, cut by one rule."""
    return {language: patch(data, nats_of[language], rule) for language, data in texts.items()}


cuts_of = {name: cut_by(rule) for name, rule in rules.items() if name != "by line"}
means = {name: {language: cut.mean_length for language, cut in cuts.items()} for name, cuts in cuts_of.items()}
spread = {name: max(by_language.values()) / min(by_language.values()) for name, by_language in means.items()}

print(" " * 16 + "".join(f"{name:>9}" for name in means))
for language in texts:
    print(f"{language:16}" + "".join(f"{by_language[language]:9.2f}" for by_language in means.values()))
print(f"{'longest/shortest':16}" + "".join(f"{spread[name]:9.2f}" for name in means))

# %%
figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
rows = np.arange(len(texts))
markers = {"global": "o", "relative": "D", "both": "s", "min 3": ">", "max 6": "<", "fixed": "|", "space": "x", "byte": "."}
for name, marker in markers.items():
    color = {"global": ORANGE, "relative": BLUE}.get(name, GREY)
    axes.plot(list(means[name].values()), rows, marker, color=color, markersize=8 if color != GREY else 6, label=name)
axes.axvline(TARGET, color=GREY, linestyle=":", linewidth=1)
axes.set_yticks(rows, list(texts))
axes.invert_yaxis()
axes.set(xlabel="mean patch length, bytes", title="One setting for all languages", xlim=(0.8, None))
axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %% [markdown]
# `global` cuts what the model can't read into crumbs: where most entropies are above the threshold, most bytes start a
# patch. `relative` asks for a rise, and among high entropies there are about as many rises as among low ones, so its
# lengths depend on the language far less. `both` and a minimum length lie between. `fixed` and `byte` don't care. `space`
# takes the first byte of every character that isn't ASCII for a space, so there its patches are about a character long.
#
# The beginnings of some texts:

# %%
for language in ("English", "Russian", "Chinese"):
    for name in ("global", "relative", "space"):
        print(f"{language:8} {name:9} {cuts_of[name][language].to_text()[:76]}")

# %% [markdown]
# A circle stands for the first bytes of a character that the next patch completes. Patches are made of bytes, and nothing
# keeps them from starting inside a character; `space` always does so in Chinese. To the BLT this is no harm in itself, it
# reads the bytes on both sides.


# %%
def inside_characters(cut: Patches) -> float:
    """The part of the patches that start inside a UTF-8 character."""
    starts = cut.starts[cut.starts < len(cut.data)]
    return float(np.mean((np.frombuffer(cut.data, dtype=np.uint8)[starts] & 0xC0) == 0x80))


inside = {name: {language: inside_characters(cut) for language, cut in cuts.items()} for name, cuts in cuts_of.items()}
for language in ("English", "German", "Russian", "Hindi", "Chinese"):
    shares = "   ".join(f"{name} {inside[name][language]:4.0%}" for name in ("global", "relative", "fixed", "space"))
    print(f"patches that start inside a character, {language:8} {shares}")

# %% [markdown]
# ## 5. What one threshold does
#
# The mean length as the threshold rises, a curve for each language:

# %%
thresholds = np.linspace(0, 4, 81)
curves = {
    language: [patch(data, nats_of[language], PatchRule(threshold=threshold)).mean_length for threshold in thresholds]
    for language, data in texts.items()
}
one = rules["global"].threshold
own = {language: calibrate([(data, nats_of[language])], PatchRule(), TARGET) for language, data in texts.items()}

figure, axes = plt.subplots(figsize=(10, 4), layout="constrained")
colours = plt.get_cmap("plasma")(np.linspace(0.3, 0.85, len(texts)))
order = sorted(texts, key=lambda language: own[language].threshold)
for language, colour in zip(order, colours, strict=True):
    axes.plot(thresholds, curves[language], color=colour, linewidth=1.4, label=f"{language}, {own[language].threshold:.2f} nats")
    axes.plot(own[language].threshold, own[language].mean_patch_length, "o", color=colour, markersize=5)
axes.axvline(one, color=ORANGE, linestyle="--", linewidth=1.2)
axes.axhline(TARGET, color=GREY, linestyle=":", linewidth=1.2)
axes.text(one, 19, "the one threshold ", color=ORANGE, va="top", ha="right")
axes.text(0.02, TARGET, f"{TARGET} bytes", color=GREY, va="bottom")
axes.set(yscale="log", ylim=(0.95, 20), xlim=(0, 4), xlabel="threshold, nats", ylabel="mean patch length, bytes")
axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
axes.minorticks_off()
axes.set_title("Each language reaches the same length at a threshold of its own")
axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="own threshold")
plt.show()

# %% [markdown]
# One threshold is a vertical line: it meets the curves at very different heights. One length is a horizontal line: it meets
# them at different thresholds, and these are what `calibrate` finds. On shards, `bltdata calibrate --by source` does it, with a
# source for each language.
#
# ## 6. A threshold for each

# %%
cuts_own = {language: patch(data, nats_of[language], own[language].rule) for language, data in texts.items()}
print(" " * 10 + "   one threshold        own threshold")
print(" " * 10 + "   bytes  patches       bytes  patches")
for language in texts:
    first, second = cuts_of["global"][language], cuts_own[language]
    print(f"{language:10}{first.mean_length:8.2f} {len(first):8} {second.mean_length:11.2f} {len(second):8}")
    assert abs(second.mean_length / TARGET - 1) < 0.05

figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
axes.barh(rows - 0.2, [len(cut) for cut in cuts_of["global"].values()], 0.38, color=ORANGE, label="one threshold")
axes.barh(rows + 0.2, [len(cut) for cut in cuts_own.values()], 0.38, color=BLUE, label="a threshold for each")
axes.set_yticks(rows, list(texts))
axes.invert_yaxis()
axes.set(xlabel="patches of the text", title="What the same text costs")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# The large transformer of a BLT runs once per patch, so patches are cost. Under one threshold the languages that the model
# knows least pay most, and get the most computation; whether that is unfair or just right is a question of what one wants. With
# a threshold for each, a byte costs the same everywhere. What is left is UTF-8: a text of more bytes has more patches. To
# make a *text* cost the same, the lengths would have to be in the proportion of the bytes, which is another target for each
# source.
#
# Two things to keep in mind. The threshold belongs to the source, so the source has to be known before the first byte, in
# generation too. And here each threshold was calibrated on the very text that it cuts; in earnest one calibrates on a
# sample and cuts the rest.
#
# What was claimed, in numbers:

# %%
ratio = {name: len(cut) / len(cuts["English"]) for cuts in (cuts_of["global"],) for name, cut in cuts.items()}
ratio_own = {name: len(cut) / len(cuts_own["English"]) for name, cut in cuts_own.items()}
ratio_bytes = {name: (len(data) + 1) / (len(texts["English"]) + 1) for name, data in texts.items()}
print(f"Hindi against English: {ratio['Hindi']:.1f} times the patches under one threshold, {ratio_own['Hindi']:.1f} with its own,")
print(f"and {ratio_bytes['Hindi']:.1f} times the bytes")
print(f"longest over shortest mean: global {spread['global']:.2f}, relative {spread['relative']:.2f}, own thresholds", end=" ")
print(f"{max(cut.mean_length for cut in cuts_own.values()) / min(cut.mean_length for cut in cuts_own.values()):.2f}")

assert spread["global"] > 2
assert max(spread["relative"], spread["both"], spread["min 3"]) < spread["global"]
assert spread["relative"] - 1 < 0.5 * (spread["global"] - 1)
assert means["byte"] == dict.fromkeys(texts, 1.0)
assert all(means["global"][language] < means["global"]["English"] for language in ("Russian", "Greek", "Arabic", "Hindi"))
assert ratio["Hindi"] > 1.5 * ratio_bytes["Hindi"]
assert all(abs(ratio_own[language] / ratio_bytes[language] - 1) < 0.12 for language in texts)
assert inside["space"]["Chinese"] > 0.9
assert inside["global"]["English"] == 0

# %% [markdown]
# Next: `bltdata show` colours any text like this in a terminal, `bltdata calibrate` finds thresholds from shards, and
# `bltdata repatch` cuts shards again without the model.
