// From threshold to mean patch length, over all documents of the page: a few points at a time, so that nothing ever waits for it.

const CURVE_POINTS = 65, FRAME_MS = 6, TOP_LENGTH = 64;
const PLOT = {width: 300, height: 150, left: 30, right: 292, top: 8, bottom: 128};

class Curve {
  /** @param meanLength from a rule to the mean patch length over all documents. */
  constructor(svg, meanLength) {
    Object.assign(this, {svg, meanLength});
    this.key = "";
    this.points = [];
    svg.setAttribute("viewBox", `0 0 ${PLOT.width} ${PLOT.height}`);
  }

  /**
   * Draw the curve of a rule over the field [low, high], and mark where the rule is. It is computed again only where something beside
   * the field has changed.
   */
  show(rule, field, low, high, mean) {
    Object.assign(this, {rule, field, low, high, mean});
    const key = JSON.stringify([{...rule, [field]: null}, field, low, high]);
    if (key !== this.key) {
      this.key = key;
      this.points = [];
      this.compute(key);
    }
    this.draw();
  }

  compute(key) {
    const step = () => {
      if (key !== this.key) return;
      const until = performance.now() + FRAME_MS;
      do {
        const value = this.low + ((this.high - this.low) * this.points.length) / (CURVE_POINTS - 1);
        this.points.push([value, this.meanLength({...this.rule, [this.field]: value})]);
      } while (this.points.length < CURVE_POINTS && performance.now() < until);
      this.draw();
      if (this.points.length < CURVE_POINTS) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  x(value) {
    const share = Math.min(Math.max((value - this.low) / (this.high - this.low), 0), 1);
    return PLOT.left + share * (PLOT.right - PLOT.left);
  }

  y(length) {
    return PLOT.bottom - (Math.log2(Math.min(length, TOP_LENGTH)) / Math.log2(TOP_LENGTH)) * (PLOT.bottom - PLOT.top);
  }

  draw() {
    const parts = [];
    for (let length = 1; length <= TOP_LENGTH; length *= 4) {
      parts.push(this.make("path", {class: "grid", d: `M${PLOT.left} ${this.y(length)}H${PLOT.right}`}));
      parts.push(this.make("text", {x: PLOT.left - 5, y: this.y(length) + 4, "text-anchor": "end"}, String(length)));
    }
    for (let value = Math.ceil(this.low); value <= this.high; value++)
      parts.push(this.make("text", {x: this.x(value), y: PLOT.bottom + 15, "text-anchor": "middle"}, String(value).replace("-", "\u2212")));
    const path = this.points.map(([value, length], i) => `${i ? "L" : "M"}${this.x(value).toFixed(1)} ${this.y(length).toFixed(1)}`).join("");
    if (path) parts.push(this.make("path", {class: "mean", d: path}));
    const x = this.x(this.rule[this.field]), y = this.y(this.mean);
    parts.push(this.make("path", {class: "here", d: `M${x} ${PLOT.top}V${PLOT.bottom}`}), this.make("circle", {class: "here", cx: x, cy: y, r: 4}));
    this.svg.replaceChildren(...parts);
  }

  make(name, attributes, text = "") {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  }
}
