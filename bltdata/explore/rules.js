// The patch rules of bltdata.patching, decision for decision: a test runs both on the same documents and compares.
//
// A document is {data: Uint8Array [n], entropies: Float32Array [n + 1], stored: Uint8Array or null}: its bytes, its entropies in nats
// (float16 values, widened), and the starts that its dataset holds, a bit for each position. A rule has the fields of PatchRule, null
// where a field is None, and one more scheme, "stored". Comparisons are strict and in float32, which is what Math.fround is for.

const NEWLINE = 0x0a;

/** A patch length that nothing has; a small whole number, with which loops are several times as fast as with Infinity. */
const NO_LIMIT = 2 ** 30 - 1;

/** float16 codes as float32 values; entropies are never negative, infinite or NaN: whoever wrote the page has checked. */
function widen(codes) {
  const values = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) {
    const exponent = codes[i] >> 10, fraction = codes[i] & 0x3ff;
    values[i] = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  }
  return values;
}

/** Which byte values continue a word: ASCII letters, digits, and from 0x80 up the first so many. */
function plainBytes(numHigh) {
  const plain = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const letter = (byte | 0x20) - 0x61, digit = byte - 0x30, high = byte - 0x80;
    plain[byte] = (letter >= 0 && letter < 26) || (digit >= 0 && digit < 10) || (high >= 0 && high < numHigh) ? 1 : 0;
  }
  return plain;
}

const PLAIN = plainBytes(0x40), PLAIN_CHARACTERS = plainBytes(0x80);

/** Where a patch may start: a flag for each position, of which the first means nothing. Not for `quantile`. */
function flagsOf(doc, rule, flags) {
  const {data, entropies} = doc, count = entropies.length;
  flags.fill(0, 0, count);
  if (rule.scheme === "entropy") {
    const hasThreshold = rule.threshold !== null, hasRise = rule.relative_threshold !== null;
    const threshold = Math.fround(rule.threshold), rise = Math.fround(rule.relative_threshold);
    for (let i = 1; i < count; i++) {
      const passes = !hasThreshold || entropies[i] > threshold;
      flags[i] = passes && (!hasRise || Math.fround(entropies[i] - entropies[i - 1]) > rise) ? 1 : 0;
    }
  } else if (rule.scheme === "space") {
    const plain = rule.characters ? PLAIN_CHARACTERS : PLAIN;
    // Before byte 0 stands BOS, which is space-like, so position 1 never ends a word.
    for (let i = 2; i < count; i++) flags[i] = plain[data[i - 2]] & (1 - plain[data[i - 1]]);
  } else if (rule.scheme === "byte") {
    flags.fill(1, 0, count);
  } else if (rule.scheme === "stored") {
    for (let i = 1; i < count; i++) flags[i] = (doc.stored[i >> 3] >> (i & 7)) & 1;
  }
  return flags;
}

/**
 * Where patches start. Writes the positions to `starts` (room for one each position) and returns how many there are; `trace`, if not
 * null, gets the running threshold of `quantile` at each position.
 */
function writeStarts(doc, rule, constants, flags, starts, trace) {
  if (rule.scheme === "quantile") return writeQuantileStarts(doc, rule, constants, starts, trace);
  flagsOf(doc, rule, flags);
  const {data, entropies} = doc, count = entropies.length;
  const isStored = rule.scheme === "stored", isFixed = rule.scheme === "fixed";
  const shortest = Math.min(isStored ? 1 : rule.min_length, NO_LIMIT);
  const longest = Math.min((isFixed ? rule.stride : isStored ? null : rule.max_length) ?? NO_LIMIT, NO_LIMIT);
  const resets = rule.reset_at_newline && rule.scheme === "entropy";
  let last = 0, number = 1;
  starts[0] = 0;
  for (let i = 1; i < count; i++) {
    const length = i - last;
    if ((flags[i] && length >= shortest) || length === longest || (resets && data[i - 1] === NEWLINE)) {
      starts[number++] = i;
      last = i;
    }
  }
  return number;
}

/** The running quantile, in float64 as in Python: the order of the operations is part of the rule. */
function writeQuantileStarts(doc, rule, constants, starts, trace) {
  const entropies = doc.entropies, step = constants.quantile_step_nats, highest = constants.max_stored_entropy_nats;
  const shortest = Math.min(rule.min_length, NO_LIMIT), longest = Math.min(rule.max_length ?? NO_LIMIT, NO_LIMIT);
  const fall = step / rule.target_length;
  let threshold = rule.threshold ?? constants.first_quantile_nats;
  let length = 0, number = 0;
  for (let i = 0; i < entropies.length; i++) {
    if (trace) trace[i] = threshold;
    const begins = i === 0 || length === longest || (length >= shortest && entropies[i] > threshold);
    if (begins) {
      starts[number++] = i;
      length = 0;
    }
    length++;
    let moved = threshold - fall;
    if (begins) moved += step;
    threshold = Math.min(Math.max(moved, -step), highest + step);
  }
  return number;
}

/** Why Python would refuse a rule, as a sentence, or null. Fields that the scheme doesn't read are not looked at. */
function mistakeIn(rule, constants) {
  const isCount = (value) => Number.isSafeInteger(value) && value >= 1;
  const reads = READS[rule.scheme];
  if (reads.includes("threshold") && rule.threshold !== null) {
    const top = Math.fround(constants.max_entropy_nats);
    if (!(rule.threshold >= 0 && Math.fround(rule.threshold) <= top)) return `The threshold must lie between 0 and ${top.toFixed(4)} nats.`;
  }
  if (reads.includes("relative_threshold") && rule.relative_threshold !== null && !Number.isFinite(Math.fround(rule.relative_threshold)))
    return "The rise must be a number of nats.";
  if (reads.includes("target_length") && !(Number.isFinite(rule.target_length) && rule.target_length >= 1))
    return "The target length must be a number of bytes, at least 1.";
  if (reads.includes("stride") && !isCount(rule.stride)) return "The stride must be a whole number of bytes, at least 1.";
  if (reads.includes("min_length")) {
    if (!isCount(rule.min_length)) return "The minimum length must be a whole number of bytes, at least 1.";
    if (rule.max_length !== null && !isCount(rule.max_length))
      return "The maximum length must be a whole number of bytes, at least 1, or empty for no limit.";
    if (rule.max_length !== null && rule.min_length > rule.max_length) return "The minimum length must not be above the maximum length.";
    if (rule.max_length !== null && rule.scheme === "space" && rule.characters)
      return "With whole characters there is no maximum length: a patch that is full could end inside a character.";
  }
  return null;
}

/** The fields that mean something to a scheme, as in bltdata.patching.schemes. */
const READS = {
  entropy: ["threshold", "relative_threshold", "min_length", "max_length", "reset_at_newline"],
  quantile: ["threshold", "target_length", "min_length", "max_length"],
  space: ["min_length", "max_length", "characters"],
  fixed: ["stride"],
  byte: [],
  stored: [],
};
