// Bytes as something to read: characters, escapes, and rows of them.
//
// A piece is what is never split: a character of one to four bytes, a byte that is no UTF-8, or the end of the document. It is as many
// cells wide as its text, two for a wide character. Pieces and rows don't depend on the patches, so moving a slider moves no text.

const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const UNPRINTABLE = /[\p{C}\p{Z}]/u;
const COMBINING = /[\p{Mn}\p{Me}]/u;

/** The code point of the character that begins at a byte, or -1 where there is none. */
function codePointAt(data, i) {
  const lead = data[i];
  if (lead < 0x80) return lead;
  const more = lead >= 0xc2 && lead <= 0xdf ? 1 : (lead & 0xf0) === 0xe0 ? 2 : lead >= 0xf0 && lead <= 0xf4 ? 3 : 0;
  if (more === 0 || i + more >= data.length) return -1;
  let code = lead & (0x3f >> more);
  for (let k = 1; k <= more; k++) {
    if ((data[i + k] & 0xc0) !== 0x80) return -1;
    code = (code << 6) | (data[i + k] & 0x3f);
  }
  const isTooLong = more === 2 ? code < 0x800 : more === 3 && code < 0x10000;
  return isTooLong || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? -1 : code;
}

function numBytesOf(code) {
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

/** What is shown of a character, or of a byte that is none (code -1): never anything that a browser would act on or hide. */
function shownText(code, byte, signs) {
  if (code < 0) return "\\x" + byte.toString(16).padStart(2, "0");
  if (code > 0x20 && code < 0x7f) return String.fromCharCode(code);
  if (code === 0x20) return " ";
  if (code === NEWLINE) return signs.newline;
  const text = String.fromCodePoint(code);
  if (!UNPRINTABLE.test(text)) return COMBINING.test(text) ? "\u25cc" + text : text;
  if (code === 0x09) return "\\t";
  if (code === 0x0d) return "\\r";
  const digits = code.toString(16);
  return code < 0x80 ? "\\x" + digits.padStart(2, "0") : code < 0x10000 ? "\\u" + digits.padStart(4, "0") : "\\U" + digits.padStart(8, "0");
}

function cellsOf(text) {
  const first = text.codePointAt(0);
  if (first < 0x80) return text.length;
  return first >= 0x1100 && WIDE.test(text) ? 2 : 1;
}

/** The pieces of a document of n bytes: where each begins (and n + 1 after the last) and how wide it is. */
function piecesOf(doc, signs) {
  const data = doc.data, starts = new Uint32Array(data.length + 2), cells = new Uint8Array(data.length + 1);
  const asciiCells = new Uint8Array(128);
  for (let code = 0; code < 128; code++) asciiCells[code] = cellsOf(shownText(code, code, signs));
  let number = 0;
  for (let i = 0; i < data.length; number++) {
    const code = codePointAt(data, i);
    starts[number] = i;
    cells[number] = code < 0 ? 4 : code < 128 ? asciiCells[code] : cellsOf(shownText(code, data[i], signs));
    i += code < 0 ? 1 : numBytesOf(code);
  }
  starts[number] = data.length;
  cells[number] = (doc.numLeftOut ? signs.rest : signs.end).length;
  starts[number + 1] = data.length + 1;
  return {count: number + 1, starts: starts.subarray(0, number + 2), cells: cells.subarray(0, number + 1)};
}

function pieceText(doc, begin, signs) {
  if (begin === doc.data.length) return doc.numLeftOut ? signs.rest : signs.end;
  return shownText(codePointAt(doc.data, begin), doc.data[begin], signs);
}

/** More rows than this and a browser can't scroll to them: then newlines don't end rows. */
const MAX_ROWS = 200_000;

/** The first piece of each row, and the number of pieces after the last. A row ends where it is full, or after a newline. */
function rowsOf(doc, pieces, columns) {
  const {data} = doc, {starts, cells, count} = pieces;
  for (const breaksAtNewlines of [true, false]) {
    const rows = [0];
    let used = 0;
    for (let piece = 0; piece < count; piece++) {
      if (used && used + cells[piece] > columns) {
        rows.push(piece);
        used = 0;
      }
      used += cells[piece];
      if (breaksAtNewlines && data[starts[piece]] === NEWLINE && piece + 1 < count) {
        rows.push(piece + 1);
        used = 0;
        if (rows.length > MAX_ROWS) break;
      }
    }
    if (breaksAtNewlines && rows.length > MAX_ROWS) continue;
    rows.push(count);
    return Uint32Array.from(rows);
  }
}

/** The last index whose value isn't above `value`, in ascending values that begin at or below it. */
function lastAtMost(values, length, value) {
  let low = 0, high = length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
