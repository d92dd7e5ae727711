"""Are the entropies possible, and is the model behind them any good, or too good?"""

from bltdata.stats.diagnostics.diagnosis import Case, Diagnosis, Verdict, above
from bltdata.vocab import MAX_ENTROPY_NATS

MIN_SAMPLE_BYTES = 64_000
"""A compressor has not got going on less."""

LEAK_WARNING, LEAK_ERROR = 1 / 3, 1 / 6
"""Bits per byte, as a part of what xz needs. The best language models reach 0.35 of it or so on text; a model that sees what it
predicts a tenth or less."""

EXPECTATION_WARNING, EXPECTATION_ERROR = 1.3, 2.0
"""Factor between what documents cost and what their entropies said, in either direction."""


def entropy_range(case: Case) -> Diagnosis:
    """Entropies over 260 symbols lie in 0 ... ln 260 nats, and differ."""
    histogram = case.overall.entropy
    summary, impossible = histogram.summary(), histogram.num_impossible
    if not summary.total and not impossible:
        return Diagnosis(name="entropy range", verdict=Verdict.NOT_CHECKED, evidence="There are no documents.")
    numbers = {"impossible": impossible, "min_nats": summary.minimum, "max_nats": summary.maximum, "std_nats": summary.std}
    total = int(histogram.counts.sum())
    lowest, highest = summary.minimum or 0.0, summary.maximum or 0.0
    if impossible:
        return Diagnosis(
            name="entropy range",
            verdict=Verdict.ERROR,
            evidence=f"{impossible:,} of {total:,} entropies can't be: they lie between {lowest:.4g} and {highest:.4g} nats, where "
            f"0 to ln 260 = {MAX_ENTROPY_NATS:.4f} is possible.",
            numbers=numbers,
            advice="Check that the entropy is summed over the 260 symbols (the last axis of the probabilities), of probabilities and not "
            "of logits, and is in nats; then build the shards again.",
        )
    is_constant = summary.std == 0 and total > 100
    return Diagnosis(
        name="entropy range",
        verdict=Verdict.ERROR if is_constant else Verdict.OK,
        evidence=f"All {total:,} entropies are {highest:.4g} nats."
        if is_constant
        else f"All {total:,} entropies lie between {lowest:.4g} and {highest:.4g} nats; 0 to {MAX_ENTROPY_NATS:.4f} is possible.",
        numbers=numbers,
        advice="Check that the entropy model's trained weights were loaded: it says the same of every byte." if is_constant else "",
    )


def context_model(case: Case) -> Diagnosis:
    """The entropy model should beat a model that knows two bytes and learns as it goes."""
    name, sample = "better than two bytes of context", case.sample
    ours, second, none = sample.model_bits_per_byte, sample.order_2_bits_per_byte, sample.order_0_bits_per_byte
    if ours is None or second is None or none is None or sample.num_bytes < MIN_SAMPLE_BYTES:
        return _unknown(name, case)
    verdict = Verdict.ERROR if ours >= none else Verdict.WARNING if ours >= second else Verdict.OK
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"On a sample of {sample.num_bytes:,} bytes the entropy model needs {ours:.3f} bits per byte; a model of the last two "
        f"bytes that learns as it goes {second:.3f}, one without any context {none:.3f}.",
        numbers={"model_bits_per_byte": ours, "order_2_bits_per_byte": second, "order_0_bits_per_byte": none},
        advice="" if verdict is Verdict.OK else "Train the entropy model for longer or on documents like these; check its weights.",
    )


def leak(case: Case) -> Diagnosis:
    """A model that needs a small part of what a strong compressor does sees the bytes that it predicts, or learned them by heart."""
    name, sample = "not too good to be true", case.sample
    ours, theirs = sample.model_bits_per_byte, sample.compressor_bits_per_byte
    if ours is None or not theirs or sample.num_bytes < MIN_SAMPLE_BYTES:
        return _unknown(name, case)
    ratio = ours / theirs
    verdict = above(-ratio, -LEAK_WARNING, -LEAK_ERROR)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"On a sample of {sample.num_bytes:,} bytes the entropy model needs {ours:.3f} bits per byte, {ratio:.2f} times what xz "
        f"needs ({theirs:.3f}); below {LEAK_WARNING:.2f} is suspicious and below {LEAK_ERROR:.2f} not to be believed.",
        numbers={"model_bits_per_byte": ours, "compressor_bits_per_byte": theirs, "ratio": ratio},
        advice=""
        if verdict is Verdict.OK
        else "Check the entropy model's mask and the shift between bytes and predictions, and whether it was trained on these documents.",
    )


def expectation(case: Case) -> Diagnosis:
    """What documents cost should be what their entropies said on average."""
    name, ratio = "entropies can be believed", case.overall.expectation.ratio
    if ratio is None:
        return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence="No document's likelihood is known.")
    factor = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
    verdict = above(factor, EXPECTATION_WARNING, EXPECTATION_ERROR)
    return Diagnosis(
        name=name,
        verdict=verdict,
        evidence=f"Documents cost {ratio:.3f} times what their entropies promised.",
        numbers={"cost_over_promise": ratio},
        advice=""
        if verdict is Verdict.OK
        else "Either the entropies or the likelihoods are wrong, or the model doesn't know such documents: see evaluate-entropy-model.",
    )


def _unknown(name: str, case: Case) -> Diagnosis:
    sample = case.sample
    why = (
        f"The sample has {sample.num_bytes:,} bytes; at least {MIN_SAMPLE_BYTES:,} are needed."
        if sample.num_bytes < MIN_SAMPLE_BYTES
        else "The likelihood of a sampled document is unknown."
    )
    return Diagnosis(name=name, verdict=Verdict.NOT_CHECKED, evidence=why)
