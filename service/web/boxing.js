/** A box on a picture: drawn with the mouse or a finger, and moved and sized by these or by keys. */

import { element } from "./dom.js";
import { toast } from "./toasts.js";
import { boxing as words } from "./words.js";

const STEP = 0.02; // of a key, as a share of the picture's side
const LEAST = 0.01; // of a side, that is a box and no click
const ROUNDING = 1e-6; // pixels
const CORNERS = { nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1] };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A box x, y, width, height as the API's forms have it. */
export const textOf = (box) => (box === null ? "" : box.join(","));

/** The other way round; null for the whole. */
export function boxOf(text) {
  const numbers = text.split(",").map(Number);
  return text !== "" && numbers.length === 4 && numbers.every(Number.isFinite) ? numbers : null;
}

/**
 * Put an element where a box lies in a picture of a size, over which it is.
 * @param {HTMLElement} over
 * @param {number[]} box
 * @param {number} width
 * @param {number} height
 */
export function place(over, [x, y, w, h], width, height) {
  over.style.cssText = `left:${(100 * x) / width}%;top:${(100 * y) / height}%;width:${(100 * w) / width}%;height:${(100 * h) / height}%`;
  return over;
}

/**
 * What a box of a picture shows, as a picture of its own.
 * @param {string} url
 * @param {number[]} box
 * @returns {Promise<Blob>}
 */
export async function cropOf(url, [x, y, width, height]) {
  const image = /** @type {any} */ (element("img", { src: url }));
  await image.decode();
  const drawn = /** @type {any} */ (element("canvas", { width: String(Math.max(1, Math.round(width))), height: String(Math.max(1, Math.round(height))) }));
  drawn.getContext("2d").drawImage(image, x, y, width, height, 0, 0, drawn.width, drawn.height);
  return new Promise((resolve) => drawn.toBlob(resolve));
}

/** Lies over a picture, beside which it is put, while a box is drawn on it. */
export class BoxLayer {
  /**
   * @param {any} image
   * @param {number[][]} others boxes that are there already, to be seen
   * @param {{changed: (box: ?number[]) => void, done: () => void, cancel: () => void}} told `done` by Enter, `cancel` by Escape
   */
  constructor(image, others, told) {
    this.image = image;
    this.others = others;
    this.told = told;
    this.shares = null; // left, top, right, bottom of the box, in shares of the picture
    this.hold = null; // what a finger does: from where it draws, or what it moves
    this.drawn = element("div", { class: "box drawn", hidden: true }, ...Object.keys(CORNERS).map((name) => element("i", { class: name, "data-corner": name })));
    this.said = element("p", { class: "unseen", role: "status" });
    this.layer = element("div", { class: "boxing", role: "application", tabindex: "0", "aria-label": words.layer }, this.drawn, this.said);
    const heard = { pointerdown: this.down, pointermove: this.move, pointerup: this.up, pointercancel: this.up, keydown: this.press };
    for (const [type, hear] of Object.entries(heard)) this.layer.addEventListener(type, (event) => hear.call(this, event));
    // Else a browser takes the end of a swipe for a fling, and the next tap for what stops it, which clicks on nothing.
    this.layer.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(image);
    this.fit = this.fit.bind(this);
    image.addEventListener("load", this.fit);
    image.after(this.layer);
    this.fit();
    this.layer.focus();
  }

  /** Take it away. */
  remove() {
    this.observer.disconnect();
    this.image.removeEventListener("load", this.fit);
    this.layer.remove();
  }

  /** The box in whole pixels of the picture; null where none is drawn. */
  box() {
    if (this.shares === null) return null;
    const [left, top, right, bottom] = this.shares;
    const { naturalWidth: width, naturalHeight: height } = this.image;
    const [x, y] = [Math.floor(left * width + ROUNDING), Math.floor(top * height + ROUNDING)];
    const [beyond, below] = [Math.ceil(right * width - ROUNDING), Math.ceil(bottom * height - ROUNDING)];
    return [x, y, Math.max(1, beyond - x), Math.max(1, below - y)];
  }

  /** Lie over what is seen of the picture, which may be smaller than its element. */
  fit() {
    const { naturalWidth: width, naturalHeight: height, clientWidth: wide, clientHeight: high, offsetLeft, offsetTop } = this.image;
    if (!width) return; // it is not there yet
    const scale = Math.min(wide / width, high / height);
    const [left, top] = [offsetLeft + (wide - scale * width) / 2, offsetTop + (high - scale * height) / 2];
    this.layer.style.cssText = `left:${left}px;top:${top}px;width:${scale * width}px;height:${scale * height}px`;
    const seen = this.layer.querySelectorAll(".other");
    if (seen.length < this.others.length) {
      this.layer.prepend(...this.others.map((box) => place(element("div", { class: "box other" }), box, width, height)));
    }
  }

  /** Where a finger is, in shares of the picture. */
  share({ clientX, clientY }) {
    const { left, top, width, height } = this.layer.getBoundingClientRect();
    return [within((clientX - left) / width), within((clientY - top) / height)];
  }

  down(event) {
    if (event.button !== 0 || this.hold !== null) return;
    event.preventDefault();
    this.layer.focus();
    this.layer.setPointerCapture(event.pointerId);
    const at = this.share(event);
    const corner = CORNERS[event.target.dataset.corner];
    if (corner && this.shares) {
      const [left, top, right, bottom] = this.shares;
      this.hold = { from: [corner[0] ? left : right, corner[1] ? top : bottom] };
    } else if (this.shares && event.target === this.drawn) this.hold = { last: at };
    else this.hold = { from: at };
  }

  move(event) {
    if (this.hold === null) return;
    const at = this.share(event);
    if (this.hold.from) {
      const { from } = this.hold;
      this.take([Math.min(from[0], at[0]), Math.min(from[1], at[1]), Math.max(from[0], at[0]), Math.max(from[1], at[1])]);
    } else {
      this.shift([at[0] - this.hold.last[0], at[1] - this.hold.last[1]]);
      this.hold.last = at;
    }
  }

  up() {
    if (this.hold === null) return;
    this.hold = null;
    const [left, top, right, bottom] = this.shares ?? [0, 0, 0, 0];
    this.take(right - left < LEAST || bottom - top < LEAST ? null : this.shares);
    this.tell();
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      if (this.shares === null) this.take([0.25, 0.25, 0.75, 0.75]);
      else if (event.shiftKey) this.resize(arrow.map((way) => way * STEP));
      else this.shift(arrow.map((way) => way * STEP));
      this.tell();
    } else if (event.key === "Enter") this.told.done();
    else if (event.key === "Escape") this.told.cancel();
    else return;
    event.preventDefault();
    event.stopPropagation(); // the view below has uses of its own for these keys
  }

  shift([x, y]) {
    const [left, top, right, bottom] = this.shares;
    const [across, down] = [Math.min(Math.max(x, -left), 1 - right), Math.min(Math.max(y, -top), 1 - bottom)];
    this.take([left + across, top + down, right + across, bottom + down]);
  }

  resize([x, y]) {
    const [left, top, right, bottom] = this.shares;
    this.take([left, top, Math.max(within(right + x), left + STEP), Math.max(within(bottom + y), top + STEP)]);
  }

  take(shares) {
    this.shares = shares;
    this.drawn.hidden = shares === null;
    if (shares !== null) {
      const [left, top, right, bottom] = shares;
      place(this.drawn, [left, top, right - left, bottom - top], 1, 1);
    }
    this.told.changed(this.box());
  }

  /** Say where the box is, once it rests, to those who do not see it. */
  tell() {
    const box = this.box();
    this.said.textContent = box === null ? "" : words.at(box);
  }
}

function within(share) {
  return Math.min(Math.max(share, 0), 1);
}

/**
 * Buttons by which a box is drawn on a picture: one that begins, then one that takes the box and one that gives up.
 * @param {any} image
 * @param {{
 *   draw: string, take: string, begin: () => Promise<number[][]> | number[][],
 *   taken: (box: number[]) => void, ended: () => void,
 * }} how what the buttons say; `begin` has the whole picture shown and gives boxes to be seen, `ended` is called after it
 */
export function boxButtons(image, { draw, take, begin, taken, ended }) {
  let layer = null;
  const button = (text, onclick, kind = null) => element("button", { type: "button", class: kind, onclick }, text);
  const starts = button(draw, start, "draws");
  const takes = button(take, finish, "primary");
  const stops = button(words.cancel, stop);
  const hint = element("p", { class: "note" }, words.hint);
  const all = element("div", { class: "row box-buttons" }, starts, takes, stops, hint);
  show(false);

  function show(drawing) {
    starts.hidden = drawing;
    for (const one of [takes, stops, hint]) one.hidden = !drawing;
    takes.disabled = true;
  }

  async function start() {
    show(true);
    const others = await begin();
    if (takes.hidden) return; // given up meanwhile
    if (!image.naturalWidth) {
      stop();
      toast(words.noPhoto);
      return;
    }
    layer = new BoxLayer(image, others, {
      changed: (box) => {
        takes.disabled = box === null;
      },
      done: finish,
      cancel: stop,
    });
  }

  function end() {
    layer?.remove();
    layer = null;
    show(false);
    ended();
  }

  function stop() {
    end();
    starts.focus();
  }

  function finish() {
    const box = layer?.box() ?? null;
    if (box === null) return;
    end();
    starts.focus();
    taken(box);
  }

  return { all, end: () => !takes.hidden && end() };
}
