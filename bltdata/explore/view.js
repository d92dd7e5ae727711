// The document in its patches: only the rows that can be seen are in the page, whatever the size of the document.

const ROW_HEIGHT = 50, STRIP_TOP = 24, STRIP_HEIGHT = 22, OVERSCAN_ROWS = 4;
const SVG = "http://www.w3.org/2000/svg";

function colourOf(entropyNats, constants) {
  const strength = Math.min(Math.max(entropyNats, 0) / constants.full_colour_nats, 1);
  return `rgba(235, 110, 20, ${(0.65 * strength).toFixed(3)})`;
}

class Viewer {
  /**
   * @param elements {scroller, canvas, cursor}: the box that scrolls, what it scrolls, and the frame around the chosen byte.
   * @param onInspect called with a position, and whether it was chosen (or only pointed at).
   */
  constructor(elements, constants, signs, onInspect) {
    Object.assign(this, elements, {constants, signs, onInspect});
    this.rowElements = new Map();
    this.position = 0;
    this.isPending = false;
    this.scroller.addEventListener("scroll", () => this.requestRender(), {passive: true});
    this.scroller.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") this.inspectAt(event, false);
    });
    this.canvas.addEventListener("pointerleave", () => this.onInspect(this.position, false));
    this.canvas.addEventListener("click", (event) => this.inspectAt(event, true));
    new ResizeObserver(() => this.layOut()).observe(this.scroller);
  }

  setDocument(doc) {
    this.doc = doc;
    this.pieces = piecesOf(doc, this.signs);
    this.rows = null;
    this.position = 0;
    this.scroller.scrollTop = 0;
    this.layOut();
  }

  /** New patches: starts[0 ... count - 1]; `line` says what each row's strip compares entropies with. */
  setPatches(starts, count, line) {
    Object.assign(this, {starts, numPatches: count, line});
    this.clear();
  }

  /** Cut the text into rows that fit; the position that was looked at stays in sight. */
  layOut() {
    if (!this.doc) return;
    const probe = document.createElement("span");
    probe.className = "probe";
    probe.textContent = "0".repeat(100);
    this.canvas.append(probe);
    this.cell = probe.getBoundingClientRect().width / 100;
    probe.remove();
    const columns = Math.max(10, Math.floor((this.scroller.clientWidth - 2 * this.padding()) / this.cell));
    if (this.rows && columns === this.columns) return;
    const isFirst = this.rows === null;
    this.columns = columns;
    this.rows = rowsOf(this.doc, this.pieces, columns);
    this.canvas.style.height = `${(this.rows.length - 1) * ROW_HEIGHT}px`;
    if (!isFirst) this.reveal(this.position);
    this.clear();
  }

  padding() {
    return parseFloat(getComputedStyle(this.canvas).marginLeft);
  }

  clear() {
    for (const element of this.rowElements.values()) element.remove();
    this.rowElements.clear();
    this.requestRender();
  }

  requestRender() {
    if (this.isPending) return;
    this.isPending = true;
    requestAnimationFrame(() => {
      this.isPending = false;
      this.render();
    });
  }

  render() {
    if (!this.rows || !this.starts) return;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_HEIGHT) - OVERSCAN_ROWS);
    const last = Math.min(
      this.rows.length - 1, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / ROW_HEIGHT) + OVERSCAN_ROWS);
    for (const [row, element] of this.rowElements) {
      if (row >= first && row < last) continue;
      element.remove();
      this.rowElements.delete(row);
    }
    const made = document.createDocumentFragment();
    for (let row = first; row < last; row++) {
      if (this.rowElements.has(row)) continue;
      const element = this.makeRow(row);
      this.rowElements.set(row, element);
      made.append(element);
    }
    this.canvas.append(made);
    this.placeCursor();
  }

  // ------------------------------------------------------------------------------------------------------------- one row

  makeRow(row) {
    const element = document.createElement("div");
    element.className = "row";
    element.style.top = `${row * ROW_HEIGHT}px`;
    const text = document.createElement("div");
    text.className = "text";
    const {starts: begins} = this.pieces;
    let piece = this.rows[row];
    const end = this.rows[row + 1];
    let patch = lastAtMost(this.starts, this.numPatches, begins[piece]);
    while (piece < end) {
      while (patch + 1 < this.numPatches && this.starts[patch + 1] <= begins[piece]) patch++;
      const patchEnd = patch + 1 < this.numPatches ? this.starts[patch + 1] : this.doc.entropies.length;
      const isCut = begins[piece + 1] > patchEnd;
      let next = piece + 1;
      if (!isCut) while (next < end && begins[next + 1] <= patchEnd) next++;
      text.append(isCut ? this.makeCutPiece(piece, patch) : this.makePatchPart(piece, next, patch));
      piece = next;
    }
    element.append(text, this.makeStrip(row));
    return element;
  }

  makePatchPart(piece, end, patch) {
    const span = document.createElement("span");
    const start = this.starts[patch];
    span.className = start === this.pieces.starts[piece] ? "patch start" : "patch";
    span.dataset.patch = patch;
    span.style.backgroundColor = colourOf(this.doc.entropies[start], this.constants);
    let run = "";
    for (; piece < end; piece++) {
      const text = pieceText(this.doc, this.pieces.starts[piece], this.signs);
      // A monospaced font is sure to have what is ASCII at one width; what it borrows from another font is put into cells.
      if (/^[ -~]*$/.test(text)) {
        run += text;
        continue;
      }
      if (run) span.append(run);
      run = "";
      span.append(this.makeCell(text, this.pieces.cells[piece]));
    }
    if (run) span.append(run);
    return span;
  }

  makeCell(text, cells) {
    const cell = document.createElement("span");
    cell.className = "cell";
    cell.style.width = `${cells * this.cell}px`;
    cell.textContent = text;
    return cell;
  }

  /** A character in several patches: its cell is divided among its bytes, and a dashed line stands where a patch starts inside it. */
  makeCutPiece(piece, patch) {
    const begin = this.pieces.starts[piece], end = this.pieces.starts[piece + 1], cells = this.pieces.cells[piece];
    const element = this.makeCell(pieceText(this.doc, begin, this.signs), cells);
    element.classList.add("patch", "cut");
    element.classList.toggle("start", this.starts[patch] === begin);
    element.dataset.patch = patch;
    const stops = [];
    for (let position = begin; position < end; position++) {
      if (this.starts[patch + 1] === position) {
        patch++;
        const line = document.createElement("i");
        line.style.left = `${(100 * (position - begin)) / (end - begin)}%`;
        element.append(line);
      }
      const colour = colourOf(this.doc.entropies[this.starts[patch]], this.constants);
      stops.push(`${colour} ${(100 * (position - begin)) / (end - begin)}% ${(100 * (position + 1 - begin)) / (end - begin)}%`);
    }
    element.style.backgroundImage = `linear-gradient(90deg, ${stops.join(", ")})`;
    return element;
  }

  /** The entropies under a row, a step for each byte, and what the rule compares them with. */
  makeStrip(row) {
    const {starts: begins, cells} = this.pieces, {entropies} = this.doc;
    const height = (nats) => (STRIP_HEIGHT - (STRIP_HEIGHT - 1) * Math.min(nats / this.constants.max_stored_entropy_nats, 1)).toFixed(1);
    let x = 0, curve = `M0 ${STRIP_HEIGHT}`, line = "";
    for (let piece = this.rows[row]; piece < this.rows[row + 1]; piece++) {
      const begin = begins[piece], numBytes = begins[piece + 1] - begin, width = (cells[piece] * this.cell) / numBytes;
      for (let i = begin; i < begin + numBytes; i++) {
        curve += `V${height(entropies[i])}H${(x + width).toFixed(1)}`;
        if (this.line.trace) line += `${line ? "V" : "M0 "}${height(Math.max(this.line.trace[i], 0))}H${(x + width).toFixed(1)}`;
        x += width;
      }
    }
    if (this.line.level !== null) line = `M0 ${height(this.line.level)}H${x.toFixed(1)}`;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "strip");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("width", x.toFixed(1));
    svg.setAttribute("height", STRIP_HEIGHT);
    for (const [name, path] of [["curve", `${curve}V${STRIP_HEIGHT}Z`], ["level", line]]) {
      if (!path) continue;
      const element = document.createElementNS(SVG, "path");
      element.setAttribute("class", name);
      element.setAttribute("d", path);
      svg.append(element);
    }
    return svg;
  }

  // ------------------------------------------------------------------------------------------- where things are, and back

  /** Row, left edge and width in pixels of the byte at a position. */
  placeOf(position) {
    const piece = lastAtMost(this.pieces.starts, this.pieces.count, position);
    const row = lastAtMost(this.rows, this.rows.length - 1, piece);
    let cells = 0;
    for (let other = this.rows[row]; other < piece; other++) cells += this.pieces.cells[other];
    const begin = this.pieces.starts[piece], width = (this.pieces.cells[piece] * this.cell) / (this.pieces.starts[piece + 1] - begin);
    return {row, left: cells * this.cell + (position - begin) * width, width};
  }

  /** The position at a point of the canvas, or the nearest in its row. */
  positionAt(x, y) {
    const row = Math.min(Math.max(Math.floor(y / ROW_HEIGHT), 0), this.rows.length - 2);
    let piece = this.rows[row], left = 0;
    while (piece + 1 < this.rows[row + 1] && left + this.pieces.cells[piece] * this.cell <= x) left += this.pieces.cells[piece++] * this.cell;
    const begin = this.pieces.starts[piece], numBytes = this.pieces.starts[piece + 1] - begin;
    const part = Math.floor(((x - left) / (this.pieces.cells[piece] * this.cell)) * numBytes);
    return begin + Math.min(Math.max(part, 0), numBytes - 1);
  }

  inspectAt(event, isChosen) {
    const box = this.canvas.getBoundingClientRect();
    const position = this.positionAt(event.clientX - box.left, event.clientY - box.top);
    if (isChosen) this.choose(position);
    else this.onInspect(position, false);
  }

  patchAt(position) {
    return lastAtMost(this.starts, this.numPatches, position);
  }

  choose(position) {
    this.position = Math.min(Math.max(position, 0), this.doc.entropies.length - 1);
    this.reveal(this.position);
    this.placeCursor();
    this.onInspect(this.position, true);
  }

  reveal(position) {
    const top = this.placeOf(position).row * ROW_HEIGHT, box = this.scroller;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW_HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_HEIGHT - box.clientHeight;
  }

  placeCursor() {
    const {row, left, width} = this.placeOf(this.position);
    Object.assign(this.cursor.style, {top: `${row * ROW_HEIGHT}px`, left: `${left}px`, width: `${width}px`});
    const patch = String(this.patchAt(this.position));
    for (const span of this.canvas.querySelectorAll(".patch")) span.classList.toggle("current", span.dataset.patch === patch);
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const patch = this.patchAt(this.position), start = (number) => this.starts[Math.min(Math.max(number, 0), this.numPatches - 1)];
    const {row, left, width} = this.placeOf(this.position);
    const inRow = (other) => this.positionAt(left + width / 2, (other + 0.5) * ROW_HEIGHT);
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_HEIGHT) - 1);
    const target = {
      j: () => start(patch + 1),
      k: () => start(this.position > start(patch) ? patch : patch - 1),
      ArrowRight: () => (event.shiftKey ? this.position + 1 : start(patch + 1)),
      ArrowLeft: () => (event.shiftKey ? this.position - 1 : start(this.position > start(patch) ? patch : patch - 1)),
      ArrowDown: () => inRow(row + 1),
      ArrowUp: () => inRow(row - 1),
      PageDown: () => inRow(row + page),
      PageUp: () => inRow(row - page),
      Home: () => 0,
      End: () => start(this.numPatches - 1),
    }[event.key];
    if (!target) return;
    event.preventDefault();
    this.choose(target());
  }
}
