/** Photos as a grid of which only what is on the screen is in the page, so that it may have a hundred thousand. */

import { thumbnailSizes, thumbnailUrl } from "./api.js";
import { element } from "./dom.js";
import { fileName, time } from "./format.js";
import { changes, isRemoved } from "./items.js";
import { RubberBand } from "./rubber_band.js";
import { grid as words } from "./words.js";

const LEAST_WIDTH = 152; // of a card, in pixels
const GAP = 12;
const ROWS_BEYOND = 2; // drawn above and below the screen
const SCREENS_AHEAD = 2; // of photos that are asked for before they are reached

/** A long list of items, of which some are selected. One Tab reaches it, and arrow keys move in it. */
export class Grid {
  /**
   * @param {any} list an element
   * @param {(grid: Grid, item: any) => void} open what to do with a card that is clicked
   * @param {() => void} more asked for when the end of what is there comes near
   * @param {() => void} selected called when other items are selected
   */
  constructor(list, open, more, selected) {
    this.list = list;
    this.open = open;
    this.more = more;
    this.selected = selected;
    this.items = [];
    this.there = []; // those that are not deleted
    this.height = 1; // of a row, as far as it is known
    this.frame = null; // in which it is drawn anew
    this.settling = false;
    this.selection = new Set(); // of items
    this.drawn = new Map(); // what is in the page, by item
    this.current = null; // the item that Tab reaches
    this.anchor = null; // where a range of selected items begins
    this.kept = new Set(); // what is selected beside that range
    list.addEventListener("keydown", (event) => this.press(event));
    addEventListener("scroll", () => this.redrawSoon(), { passive: true });
    new ResizeObserver(() => this.redrawSoon()).observe(list.parentElement);
    changes.addEventListener("edited", ({ detail }) => this.edit(detail));
    changes.addEventListener("added", ({ detail }) => detail && this.insert(detail));
    new RubberBand(this);
    for (const type of ["removed", "restored"]) changes.addEventListener(type, () => this.settleSoon());
  }

  /** Show these and no others, none of them selected. */
  show(items) {
    this.items = [];
    this.there = [];
    this.current = this.anchor = null;
    this.select([]);
    this.append(items);
  }

  /** Show these too, at the end. */
  append(items) {
    this.items.push(...items);
    this.settle();
  }

  /** Show one more, beside those of the same photo. */
  insert(item) {
    const place = this.items.findLastIndex((other) => other.media === item.media);
    if (place < 0) return;
    this.items.splice(place + 1, 0, item);
    this.settle();
  }

  /** The items that are not deleted, in order. */
  present() {
    return this.there;
  }

  /** Select these and no others. */
  select(items) {
    this.selection = new Set(items);
    for (const [item, card] of this.drawn) mark(card, this.selection.has(item));
    this.selected();
  }

  /** Put the focus on the card of an item, if it is there. */
  focus(item) {
    const place = this.present().indexOf(item);
    if (place < 0) return;
    this.current = item;
    const { columns, height } = this.measure();
    const top = this.list.getBoundingClientRect().top + Math.floor(place / columns) * height;
    if (top < 0 || top + height > innerHeight) scrollBy(0, top - (innerHeight - height) / 2);
    this.redraw();
    this.drawn.get(item)?.querySelector(".card").focus({ preventScroll: true });
  }

  /** Once for all that are deleted together. */
  settleSoon() {
    if (this.settling) return;
    this.settling = true;
    queueMicrotask(() => {
      this.settling = false;
      this.settle();
    });
  }

  settle() {
    this.there = this.items.filter((item) => !isRemoved(item.item_id));
    const there = new Set(this.there);
    if ([...this.selection].some((item) => !there.has(item))) {
      this.select([...this.selection].filter((item) => there.has(item)));
    }
    this.redraw();
  }

  redrawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.redraw();
    });
  }

  columns() {
    return Math.max(1, Math.floor((this.list.clientWidth + GAP) / (LEAST_WIDTH + GAP)));
  }

  measure() {
    const drawn = this.list.firstElementChild;
    this.height = drawn ? drawn.getBoundingClientRect().height + GAP : this.height;
    return { columns: this.columns(), height: this.height };
  }

  /** Draw the rows on the screen and a few around it; room is left for the others. */
  redraw() {
    if (this.list.offsetParent === null) return; // the view is hidden
    const items = this.present();
    this.list.style.setProperty("--columns", String(this.columns()));
    if (this.drawn.size === 0) this.put(items.slice(0, 1), 0, items.length); // to be measured
    const { columns, height } = this.measure();
    const top = -this.list.getBoundingClientRect().top;
    const rows = Math.ceil(items.length / columns);
    const first = Math.min(Math.max(0, Math.floor(top / height) - ROWS_BEYOND), Math.max(0, rows - 1));
    const last = Math.min(rows, Math.max(first + 1, Math.ceil((top + innerHeight) / height) + ROWS_BEYOND));
    const wanted = items.slice(first * columns, last * columns);
    this.list.style.paddingTop = `${first * height}px`;
    this.list.style.paddingBottom = `${Math.max(0, rows - last) * height}px`;
    this.put(wanted, first * columns, items.length);
    if ((rows * height - top) < (1 + SCREENS_AHEAD) * innerHeight) this.more();
  }

  put(wanted, start, count) {
    const there = new Map();
    for (const item of wanted) there.set(item, this.drawn.get(item) ?? this.card(item));
    for (const [item, card] of this.drawn) if (!there.has(item)) card.remove();
    let before = null; // moved only where they are not in their place: the focus stays
    for (const card of there.values()) {
      const place = before ? before.nextSibling : this.list.firstChild;
      if (card !== place) this.list.insertBefore(card, place);
      before = card;
    }
    for (const [place, card] of [...there.values()].entries()) {
      card.setAttribute("aria-posinset", String(start + place + 1));
      card.setAttribute("aria-setsize", String(count));
    }
    this.drawn = there;
    const reached = there.has(this.current) ? this.current : wanted[0];
    for (const [item, card] of there) card.querySelector(".card").tabIndex = item === reached ? 0 : -1;
  }

  card(item) {
    const button = element("button", { type: "button", class: "card" }, ...content(item));
    button.addEventListener("click", (event) => this.click(event, item));
    button.addEventListener("focus", () => {
      this.current = item;
    });
    const box = element("input", { type: "checkbox", tabindex: "-1", "aria-label": words.select(fileName(item.source) || item.label) });
    box.addEventListener("click", (event) => this.toggle(item, event.shiftKey));
    const card = element("li", { "data-item": item.item_id }, button, box);
    mark(card, this.selection.has(item));
    return card;
  }

  click(event, item) {
    if (event.shiftKey || event.ctrlKey || event.metaKey) this.toggle(item, event.shiftKey);
    else this.open(this, item);
  }

  /** Select an item or not, and with `range` all from the last one on. */
  toggle(item, range = false) {
    if (range && this.present().includes(this.anchor)) {
      this.extend(item);
      return;
    }
    const chosen = new Set(this.selection);
    if (!chosen.delete(item)) chosen.add(item);
    this.anchor = item;
    this.kept = new Set(chosen);
    this.select(chosen);
  }

  /** Have the range that begins at the anchor end at an item. */
  extend(item) {
    const items = this.present();
    const [from, to] = [items.indexOf(this.anchor), items.indexOf(item)];
    this.select([...this.kept, ...items.slice(Math.min(from, to), Math.max(from, to) + 1)]);
  }

  /** Draw some items anew, of which something else is said now. */
  refresh(items) {
    for (const item of items) this.drawn.get(item)?.querySelector(".card").replaceChildren(...content(item));
  }

  edit(edited) {
    const item = this.items.find((one) => one.item_id === edited.item_id);
    if (!item) return;
    for (const name of ["label", "camera", "site", "captured_at"]) item[name] = edited[name];
    this.refresh([item]);
  }

  /** The items whose cards a rectangle touches, in pixels of the list; also of those that are not drawn. */
  within(left, top, right, bottom) {
    const { columns, height } = this.measure();
    const width = (this.list.clientWidth + GAP) / columns;
    const [first, last] = [Math.max(0, Math.floor((left + GAP) / width)), Math.min(columns - 1, Math.floor(right / width))];
    const [above, below] = [Math.max(0, Math.floor((top + GAP) / height)), Math.floor(bottom / height)];
    return this.present().slice(above * columns, (below + 1) * columns).filter((_, place) => first <= place % columns && place % columns <= last);
  }

  press(event) {
    const items = this.present();
    const place = items.indexOf(this.current);
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns } = this.measure();
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -place, End: items.length - 1 - place };
    if (event.key in steps) {
      const next = items[place + steps[event.key]];
      if (next && event.shiftKey) {
        if (!this.selection.has(this.current)) this.toggle(this.current);
        this.toggle(next, true);
      }
      if (next) this.focus(next);
    } else if (event.key === "x") this.toggle(this.current);
    else return;
    event.preventDefault();
  }
}

function mark(card, chosen) {
  card.classList.toggle("selected", chosen);
  card.querySelector("input").checked = chosen;
}

function content(item) {
  // A browser keeps the last thousand pictures decoded, so that each has no more pixels than the screen shows.
  const urls = { srcset: thumbnailSizes(item.item_id), sizes: `${LEAST_WIDTH}px`, src: thumbnailUrl(item.item_id) };
  const photo = element("img", { ...urls, alt: "", decoding: "async", draggable: "false" });
  return [
    element("span", { class: "frame" }, photo),
    element("span", { class: item.label ? "label" : "label none" }, item.label ?? words.noLabel),
    element("span", { class: item.camera ? "camera" : "none" }, item.camera ?? words.noCamera),
    item.captured_at
      ? element("time", { datetime: item.captured_at }, time(item.captured_at))
      : element("span", { class: "none" }, words.noTime),
    element("span", { class: "file", title: fileName(item.source) }, fileName(item.source) || "\u00a0"),
  ];
}
