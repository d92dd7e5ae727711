// The page: its data, its controls, and what they say. Whatever a document holds gets into the page by textContent alone.

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("explorer-data").textContent);
const CONSTANTS = DATA.constants, SIGNS = DATA.signs;

/** The rules to choose from: a name, and the fields that are theirs. */
const CHOICES = {
  global: {scheme: "entropy", fields: ["threshold", "min_length", "max_length", "reset_at_newline"]},
  relative: {scheme: "entropy", fields: ["relative_threshold", "min_length", "max_length", "reset_at_newline"]},
  both: {scheme: "entropy", fields: ["threshold", "relative_threshold", "min_length", "max_length", "reset_at_newline"]},
  quantile: {scheme: "quantile", fields: ["threshold", "target_length", "min_length", "max_length"]},
  fixed: {scheme: "fixed", fields: ["stride"]},
  space: {scheme: "space", fields: ["min_length", "max_length", "characters"]},
  byte: {scheme: "byte", fields: []},
  stored: {scheme: "stored", fields: []},
};
const NUMBERS = ["threshold", "relative_threshold", "target_length", "stride", "min_length", "max_length"];
const SWITCHES = ["reset_at_newline", "characters"];

/** Sliders move in steps that stored entropies have too; the number beside one takes any value. */
const STEPS = {threshold: 256, relative_threshold: 256, target_length: 10};
const CURVES = {global: ["threshold", 0, 5.5], both: ["threshold", 0, 5.5], relative: ["relative_threshold", -2, 5.5]};

function decodeBytes(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function decodeDocument(packed) {
  const codes = decodeBytes(packed.entropies), numbers = new Uint16Array(codes.length / 2);
  for (let i = 0; i < numbers.length; i++) numbers[i] = codes[2 * i] | (codes[2 * i + 1] << 8);
  // How many positions are as uncertain as a code or more: codes of entropies have the order of the entropies.
  const atLeast = new Uint32Array(1 << 15);
  for (const code of numbers) atLeast[code]++;
  for (let code = atLeast.length - 2; code >= 0; code--) atLeast[code] += atLeast[code + 1];
  return {
    codes: numbers,
    atLeast,
    name: packed.name,
    source: packed.source,
    numLeftOut: packed.num_left_out,
    data: decodeBytes(packed.data),
    entropies: widen(numbers),
    stored: packed.stored === null ? null : decodeBytes(packed.stored),
  };
}

const documents = DATA.documents.map(decodeDocument);
const numPositions = documents.reduce((sum, doc) => sum + doc.entropies.length, 0);
const longestDocument = documents.reduce((most, doc) => Math.max(most, doc.entropies.length), 0);
const scratch = {flags: new Uint8Array(longestDocument), starts: new Uint32Array(longestDocument)};
const state = {index: 0, choice: DATA.choice, values: {...DATA.values}, starts: new Uint32Array(longestDocument), count: 0, isPending: false};

/** Patch starts of any document by any rule; for whoever has the console open, and for the tests. */
function patchStarts(doc, rule) {
  const starts = new Uint32Array(doc.entropies.length);
  return starts.subarray(0, writeStarts(doc, rule, CONSTANTS, new Uint8Array(doc.entropies.length), starts, null));
}

function meanLength(rule) {
  let patches = 0;
  for (const doc of documents) patches += writeStarts(doc, rule, CONSTANTS, scratch.flags, scratch.starts, null);
  return numPositions / patches;
}

function currentRule() {
  const {scheme, fields} = CHOICES[state.choice], has = (field) => fields.includes(field), values = state.values;
  const rule = {scheme};
  for (const field of NUMBERS) rule[field] = has(field) ? values[field] : field === "min_length" ? 1 : null;
  for (const field of SWITCHES) rule[field] = has(field) && values[field];
  return rule;
}

function optionsOf(rule) {
  if (rule.scheme === "stored") return "";
  const words = ["--scheme", rule.scheme];
  for (const field of NUMBERS) {
    if (rule[field] === null || (field === "min_length" && rule[field] === 1)) continue;
    words.push(`--${field.replaceAll("_", "-")}${rule[field] < 0 ? "=" : " "}${rule[field]}`);
  }
  for (const field of SWITCHES) if (rule[field]) words.push(`--${field.replaceAll("_", "-")}`);
  return words.join(" ");
}

// ---------------------------------------------------------------------------------------------------------------- words

const count = (value) => value.toLocaleString("en-US");
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)} %`;

/** What stands at a position, in words: a list of [label, value]. */
function describe(position) {
  const doc = documents[state.index], {data, entropies} = doc, nats = entropies[position];
  const patch = viewer.patchAt(position), start = state.starts[patch];
  const end = patch + 1 < state.count ? state.starts[patch + 1] : entropies.length;
  return [
    ["Position", `${count(position)} of ${count(data.length)}`],
    ["Byte", byteInWords(doc, position)],
    ["Entropy", `${nats.toFixed(3)} nats = ${(nats / Math.LN2).toFixed(3)} bits, as of ${Math.exp(nats).toFixed(1)} equally likely bytes`],
    ["Start", `${position === start ? "yes" : "no"}; ${percent(doc.atLeast[doc.codes[position]] / entropies.length)} of positions are as uncertain or more`],
    ["Patch", `${count(patch + 1)} of ${count(state.count)}, from ${count(start)}, length ${count(end - start)}`],
  ];
}

function byteInWords(doc, position) {
  if (position === doc.data.length) return doc.numLeftOut ? `${count(doc.numLeftOut)} more bytes, left out here` : "the end of the document";
  const {pieces} = viewer, piece = lastAtMost(pieces.starts, pieces.count, position);
  const begin = pieces.starts[piece], numBytes = pieces.starts[piece + 1] - begin, code = codePointAt(doc.data, begin);
  const hex = `0x${doc.data[position].toString(16).padStart(2, "0").toUpperCase()}`;
  const text = pieceText(doc, begin, SIGNS);
  if (code < 0) return `${hex}, no UTF-8`;
  const name = code === 0x20 ? "space" : text;
  return numBytes === 1 ? `${hex} ${name}` : `${hex}, ${position - begin + 1} of ${numBytes} of ${name} (U+${code.toString(16).toUpperCase().padStart(4, "0")})`;
}

function fill(list, rows) {
  list.replaceChildren(
    ...rows.map(([label, value]) => {
      const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = label;
      text.textContent = value;
      row.append(term, text);
      return row;
    }),
  );
}

function inspect(position, isChosen) {
  if (!state.count) return;
  const rows = describe(position);
  fill(byId("details"), rows);
  if (isChosen) byId("spoken").textContent = rows.map(([label, value]) => `${label} ${value}.`).join(" ");
}

// ------------------------------------------------------------------------------------------------------------- updating

const viewer = new Viewer(
  {scroller: byId("scroller"), canvas: byId("canvas"), cursor: byId("cursor")}, CONSTANTS, SIGNS, inspect);
const curve = new Curve(byId("curve"), meanLength);

function requestUpdate() {
  if (state.isPending) return;
  state.isPending = true;
  requestAnimationFrame(() => {
    state.isPending = false;
    update();
  });
}

function update() {
  const rule = currentRule(), mistake = mistakeIn(rule, CONSTANTS);
  byId("mistake").textContent = mistake ?? "";
  showControls();
  if (mistake) return;
  const doc = documents[state.index], trace = rule.scheme === "quantile" ? new Float64Array(doc.entropies.length) : null;
  let numPatches = 0;
  for (const other of documents) {
    const isShown = other === doc;
    const found = writeStarts(other, rule, CONSTANTS, scratch.flags, isShown ? state.starts : scratch.starts, isShown ? trace : null);
    if (isShown) state.count = found;
    numPatches += found;
  }
  const all = numPositions / numPatches;
  viewer.setPatches(state.starts, state.count, {level: rule.scheme === "entropy" ? rule.threshold : null, trace});
  showNumbers(doc, all);
  const options = optionsOf(rule);
  byId("options").textContent = options || "These patches are those of the dataset.";
  const [field, low, high] = CURVES[state.choice] ?? [null];
  byId("curve-box").hidden = field === null;
  if (field) {
    byId("curve-title").textContent = `Mean length by ${field === "threshold" ? "threshold" : "rise"} (nats)${documents.length > 1 ? ", all documents" : ""}`;
    curve.show(rule, field, low, high, all);
  }
  inspect(viewer.position, false);
}

function showNumbers(doc, all) {
  let longest = doc.entropies.length - state.starts[state.count - 1];
  for (let patch = 1; patch < state.count; patch++) longest = Math.max(longest, state.starts[patch] - state.starts[patch - 1]);
  const rows = [
    ["Mean length", (doc.entropies.length / state.count).toFixed(2)],
    ["Patches", count(state.count)],
    ["Longest", count(longest)],
    ["Bytes", count(doc.data.length)],
  ];
  if (documents.length > 1) rows.splice(1, 0, ["\u2026 all documents", all.toFixed(2)]);
  fill(byId("numbers"), rows);
}

function showControls() {
  const {fields} = CHOICES[state.choice];
  for (const field of [...NUMBERS, ...SWITCHES]) {
    byId(`${field}-box`).hidden = !fields.includes(field);
    const input = byId(field), value = state.values[field];
    if (SWITCHES.includes(field)) input.checked = value;
    // What somebody types is left as it is: "1." is on its way to 1.5.
    else if (document.activeElement !== input) input.value = value ?? "";
    if (field in STEPS && document.activeElement !== byId(`${field}-slider`)) byId(`${field}-slider`).value = Math.round(value * STEPS[field]);
  }
  byId("threshold-label").textContent = state.choice === "quantile" ? "First threshold (nats)" : "Threshold (nats)";
  byId("max_length").disabled = state.choice === "space" && state.values.characters;
}

function chooseDocument(index) {
  state.index = index;
  const doc = documents[index];
  const rest = doc.numLeftOut ? `; ${count(doc.numLeftOut)} more bytes are left out` : "";
  byId("about").textContent = `${doc.name}${doc.source === null ? "" : ` (${doc.source})`}${rest}`;
  byId("document").value = index;
  viewer.setDocument(doc);
  update();
}

// ------------------------------------------------------------------------------------------------------------- controls

function setUp() {
  for (const [nats, name] of DATA.levels) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = colourOf(nats, CONSTANTS);
    swatch.textContent = name;
    byId("legend").append(swatch);
  }
  documents.forEach((doc, index) => byId("document").add(new Option(`${doc.name} \u2014 ${count(doc.data.length)} bytes`, index)));
  byId("document-box").hidden = documents.length < 2;
  byId("document").addEventListener("change", (event) => chooseDocument(Number(event.target.value)));
  byId("rule").querySelector("[value=stored]").hidden = documents[0].stored === null;
  byId("rule").querySelector("[value=stored]").disabled = documents[0].stored === null;
  byId("rule").value = state.choice;
  byId("rule").addEventListener("change", (event) => {
    state.choice = event.target.value;
    requestUpdate();
  });
  for (const field of NUMBERS)
    byId(field).addEventListener("input", (event) => {
      const isNoLimit = field === "max_length" && event.target.value === "" && !event.target.validity.badInput;
      state.values[field] = isNoLimit ? null : event.target.valueAsNumber;
      requestUpdate();
    });
  for (const field of Object.keys(STEPS))
    byId(`${field}-slider`).addEventListener("input", (event) => {
      state.values[field] = event.target.valueAsNumber / STEPS[field];
      requestUpdate();
    });
  for (const field of SWITCHES)
    byId(field).addEventListener("change", (event) => {
      state.values[field] = event.target.checked;
      if (field === "characters" && event.target.checked) state.values.max_length = null;
      requestUpdate();
    });
  byId("reset").addEventListener("click", () => {
    Object.assign(state, {choice: DATA.choice, values: {...DATA.values}});
    byId("rule").value = state.choice;
    update();
  });
  // A sample may begin with a document of a few bytes.
  chooseDocument(documents.findIndex((doc) => doc.entropies.length === longestDocument));
}

setUp();
