"""Are the patches what the rule says they are?"""

import numpy as np

from bltdata.stats.diagnostics.diagnosis import Case, Diagnosis, Verdict, above, worst

NEVER, ALWAYS = 1e-5, 0.98
"""Shares of positions above a threshold at which it decides next to nothing."""

CONSTANT_SHARE_WARNING, CONSTANT_SHARE_ERROR = 0.8, 0.95
"""Share of the patches, each document's last one left out, that may have one length. Entropies of text give the most common length
a third of the patches or so."""
MIN_PATCHES = 50
"""Fewer may well be alike by chance."""
CONSTANT_BOUNDARIES = 0.1
"""Documents whose numbers of boundaries differ by less than this, as a standard deviation, have been cut without regard to entropies."""
MIN_DOCUMENTS = 10
MIN_ENTROPY_STD_NATS = 0.05

SEPARATION_WARNING, SEPARATION_ERROR = 0.75, 0.6
"""Probability that a start has a higher entropy than a position inside a patch; 1 by a threshold alone, 1/2 by chance."""
MIN_STARTS = 200
CUT_AS_TOLD = "The rule makes these patches, but hardly where entropies are high: look at its thresholds and lengths, then repatch."
CUT_OTHERWISE = "The starts aren't explained by the stored entropies: run bltdata verify, and bltdata repatch to cut them by the rule."


def threshold(case: Case) -> Diagnosis:
    """A threshold that is above nearly all entropies never starts a patch, one below nearly all starts one everywhere."""
    verdict, evidence, numbers = Verdict.OK, [], {}
    for source, rule in case.rules.items():
        nats = rule.get("threshold")
        summary = case.statistics.by_source[source].entropy.summary()
        if nats is None or rule.get("scheme", "entropy") != "entropy" or not summary.total:
            continue
        share = float(summary.counts[summary.values > np.float32(nats)].sum() / summary.total)
        numbers[source] = share
        if share < NEVER or share > ALWAYS:
            # A threshold of 0 is how one asks for patches of single bytes.
            verdict = worst(verdict, Verdict.ERROR if share < NEVER or nats > 0 else Verdict.WARNING)
            evidence.append(f"in source {source!r} {share:.3%} of the entropies are above the threshold of {nats:.4g} nats")
    if not numbers:
        return Diagnosis(name="threshold", verdict=Verdict.NOT_CHECKED, evidence="There is no global threshold, or there are no documents.")
    if not evidence:
        low, high = (f"{each(numbers.values()):.1%}" for each in (min, max))
        return Diagnosis(
            name="threshold",
            verdict=Verdict.OK,
            evidence=f"{low if low == high else f'{low} to {high}'} of a source's entropies are above its threshold.",
            numbers={"share_above": numbers},
        )
    return Diagnosis(
        name="threshold",
        verdict=verdict,
        evidence=f"The threshold never fires, or always: {'; '.join(evidence)}.",
        numbers={"share_above": numbers},
        advice="Find one with bltdata calibrate, check that it is in nats and for this entropy model, and cut again with repatch.",
    )


def fixed_stride(case: Case) -> Diagnosis:
    """Patches that are said to follow entropies and all have one length, or equally many in every document."""
    name, overall = "fixed stride", case.overall
    if not case.cut_by_entropy:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence="The rule isn't said to follow entropies.")
    summary = overall.patch_lengths.summary()
    inner = overall.num_patches - overall.num_documents
    if inner < MIN_PATCHES or summary.most_common is None:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence=f"Only {inner} patches don't end a document.")
    length = int(summary.most_common)
    share = min((summary.share_of(length) or 0.0) * overall.num_patches / inner, 1.0)
    # Where every position starts a patch the threshold is to blame, and is found there.
    verdict = above(share, CONSTANT_SHARE_WARNING, CONSTANT_SHARE_ERROR) if length > 1 else Verdict.OK
    boundaries, entropy_std = overall.boundaries.summary(), overall.entropy.summary().std or 0.0
    mean, std = boundaries.mean or 0.0, boundaries.std or 0.0
    is_constant = overall.num_documents >= MIN_DOCUMENTS and mean >= 2 and std < CONSTANT_BOUNDARIES
    if is_constant and entropy_std > MIN_ENTROPY_STD_NATS and length > 1:
        verdict = Verdict.ERROR
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"{share:.1%} of the patches that don't end a document have the length {length}; documents have {mean:.6g} boundaries "
        f"on average with a standard deviation of {std:.4g}, while entropies have one of {entropy_std:.3g} nats.",
        numbers={"length": length, "share": share, "mean_boundaries": mean, "std_boundaries": std, "std_entropy_nats": entropy_std},
        advice=""
        if verdict is Verdict.OK
        else "The lengths are a stride, whatever the rule is called: look at its threshold, min_length and max_length, then repatch.",
    )


def starts_follow_entropies(case: Case) -> Diagnosis:
    """Starts should be where entropies are high, and exactly where the manifest's rule puts them."""
    name = "starts follow entropies"
    if not case.cut_by_entropy:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence="The rule isn't said to follow entropies.")
    sample, positions = case.sample, case.overall.positions
    separation = positions.start_separation
    num_starts = positions.kind_entropy(1).total
    verdict, evidence = Verdict.OK, []
    if sample.num_cut_otherwise is not None and sample.num_documents:
        evidence.append(
            f"{sample.num_cut_otherwise:,} of {sample.num_documents:,} sampled documents have other patches than the manifest's rule makes"
        )
        verdict = Verdict.ERROR if sample.num_cut_otherwise else Verdict.OK
    if separation is not None and num_starts >= MIN_STARTS:
        evidence.append(f"a start has a higher entropy than a position inside a patch with a probability of {separation:.3f}")
        verdict = worst(verdict, above(-separation, -SEPARATION_WARNING, -SEPARATION_ERROR))
    if not evidence:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence=f"Only {num_starts} starts, and no rule to cut with.")
    text = "; ".join(evidence)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"{text[0].upper()}{text[1:]}.",
        numbers={"separation": separation, "documents_cut_otherwise": sample.num_cut_otherwise, "starts": num_starts},
        advice="" if verdict is Verdict.OK else CUT_AS_TOLD if sample.num_cut_otherwise == 0 else CUT_OTHERWISE,
    )
