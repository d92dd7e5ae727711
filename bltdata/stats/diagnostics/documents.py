"""Are entropies the same wherever they stand, do sources pay alike, and are splits apart?"""

import math

from bltdata.stats.diagnostics.diagnosis import Case, Diagnosis, Verdict, above

DRIFT_WARNING, DRIFT_ERROR = 0.25, 1.0
"""By how much, as a part of it, the mean entropy may change from the first tenth of long documents to the last."""
MIN_LONG_DOCUMENTS = 20

SEAM_WARNING, SEAM_ERROR = 0.1, 0.5
"""By how much, as a part of it, the mean entropy may rise from just before a multiple of a window to just after it."""
SEAM_SIGMAS = 6.0
"""A rise of fewer standard errors may be chance; there are seven windows to find one in."""

SOURCE_WARNING, SOURCE_ERROR = 1.5, 3.0
"""How many times the patches per byte of the rest of the dataset a source may pay."""
MIN_SOURCE_BYTES = 10_000


def drift(case: Case) -> Diagnosis:
    """Late in a document a model should know no less than early on, once it has warmed up."""
    name, positions = "no drift inside documents", case.overall.positions
    parts = positions.parts()
    first, last = parts[0], parts[-1]
    if positions.num_parted < MIN_LONG_DOCUMENTS or not first or last is None:
        return Diagnosis(
            name=name,
            verdict=Verdict.NOT_CHECKED,
            evidence=f"{positions.num_parted} documents are long enough to compare their tenths; at least {MIN_LONG_DOCUMENTS} are needed.",
        )
    change = last / first - 1
    # What falls is less of a worry than what rises: context helps.
    verdict = above(change, DRIFT_WARNING, DRIFT_ERROR) if change > 0 else above(-change, 2 * DRIFT_WARNING, DRIFT_ERROR)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"From the first to the last tenth of {positions.num_parted:,} long documents the mean entropy goes from {first:.3f} to "
        f"{last:.3f} nats ({change:+.1%}).",
        numbers={"parts_nats": parts, "change": change, "documents": positions.num_parted},
        advice=""
        if verdict is Verdict.OK
        else "Check that the entropy model is used at positions and with a context that it was trained for; a quantile rule holds patches "
        "to one length all the same.",
    )


def seams(case: Case) -> Diagnosis:
    """A model that loses its context every so many bytes is surprised just after each multiple of them."""
    name = "no seams of windows"
    found = case.overall.positions.seams()
    std = case.overall.entropy.summary().std or 0.0
    rises = {}
    for each in found:
        before, after = each["before_nats"], each["after_nats"]
        error = std * math.sqrt(1 / each["positions"] + 1 / each["positions_before"])
        sigmas = (after - before) / error if error else 0.0
        if before and sigmas > SEAM_SIGMAS:
            rises[each["window"]] = after / before - 1
    if not found:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence="No document is longer than 512 bytes.")
    if not rises:
        return Diagnosis(
            name=name,
            verdict=Verdict.OK,
            evidence=f"Entropies just after multiples of {found[0]['window']} to {found[-1]['window']} positions are as those before them.",
            numbers={"seams": found},
        )
    # The multiples of a window are some of those of a shorter one, so the shortest of those that show most is the one.
    window = min(window for window, rise in rises.items() if rise >= 0.8 * max(rises.values()))
    verdict = above(rises[window], SEAM_WARNING, SEAM_ERROR)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"Just after each multiple of {window:,} positions the mean entropy is {rises[window]:+.1%} above that just before it.",
        numbers={"window": window, "rise": rises[window], "seams": found},
        advice=""
        if verdict is Verdict.OK
        else "Score with context that reaches over the seams (build-shards does), unless the documents have records of this size.",
    )


def sources(case: Case) -> Diagnosis:
    """One threshold may cut one language or domain far finer than the others."""
    name = "sources pay alike"
    overall = case.overall
    by_source = {source: each for source, each in sorted(case.statistics.by_source.items()) if each.num_bytes >= MIN_SOURCE_BYTES}
    if len(by_source) < 2:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence=f"Fewer than two sources have {MIN_SOURCE_BYTES:,} bytes.")
    ratios = {}
    for source, each in by_source.items():
        rest_patches, rest_bytes = overall.num_patches - each.num_patches, overall.num_bytes - each.num_bytes
        ratios[source] = (each.num_patches / each.num_bytes) / (rest_patches / rest_bytes)
    source = max(ratios, key=ratios.__getitem__)
    verdict = above(ratios[source], SOURCE_WARNING, SOURCE_ERROR)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"Source {source!r} pays most: {ratios[source]:.2f} times the patches per byte of the rest.",
        numbers={"patches_per_byte_over_rest": ratios},
        advice="" if verdict is Verdict.OK else "Give each source its threshold: bltdata repatch --by source with a target length.",
    )


def shared_documents(case: Case) -> Diagnosis:
    """A split must not hold documents of another."""
    name = "splits are apart"
    if not case.overlaps:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence="No other dataset to compare with was given (--against).")
    shared = {each.other: each.num_shared for each in case.overlaps}
    verdict = Verdict.ERROR if any(shared.values()) else Verdict.OK
    counts = "; ".join(f"{each.num_shared:,} of {each.num_documents:,} documents are in {each.other!r} too" for each in case.overlaps)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"{counts}.",
        numbers={"shared": shared},
        advice="" if verdict is Verdict.OK else "Build both with one --corpus and another --split each: splits go by content.",
    )
