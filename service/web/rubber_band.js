/** A rectangle drawn with the mouse over a grid, which selects the photos that it touches. */

import { element } from "./dom.js";

const LEAST = 6; // pixels, below which it is a click
const EDGE = 48; // pixels from the edge of the screen, where it scrolls
const SPEED = 12; // pixels a frame

export class RubberBand {
  /** @param {import("./grid.js").Grid} grid */
  constructor(grid) {
    this.grid = grid;
    this.from = null; // where it begins, in pixels of the list
    this.last = null; // where the mouse is, in pixels of the screen
    this.band = element("div", { class: "band", "aria-hidden": "true" });
    grid.list.addEventListener("pointerdown", (event) => this.down(event));
    grid.list.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) grid.list.addEventListener(type, () => this.end());
    grid.list.addEventListener("click", (event) => this.drop(event), true);
  }

  down(event) {
    this.drawn = false;
    if (event.button !== 0 || event.pointerType === "touch" || event.target.matches("input")) return; // a finger scrolls
    this.from = this.inList(event);
    this.kept = event.shiftKey || event.ctrlKey || event.metaKey ? [...this.grid.selection] : [];
  }

  move(event) {
    if (this.from === null) return;
    this.last = event;
    const at = this.inList(event);
    if (!this.drawn) {
      if (Math.hypot(at.x - this.from.x, at.y - this.from.y) < LEAST) return;
      this.drawn = true;
      this.grid.list.setPointerCapture(event.pointerId);
      document.body.append(this.band);
      this.scroll();
    }
    this.draw();
  }

  draw() {
    const { list } = this.grid;
    const at = this.inList(this.last);
    const [left, right] = [Math.min(this.from.x, at.x), Math.max(this.from.x, at.x)];
    const [top, bottom] = [Math.min(this.from.y, at.y), Math.max(this.from.y, at.y)];
    const { left: listLeft, top: listTop } = list.getBoundingClientRect();
    this.band.style.cssText = `left:${left + listLeft}px;top:${top + listTop}px;width:${right - left}px;height:${bottom - top}px`;
    this.grid.select([...this.kept, ...this.grid.within(left, top, right, bottom)]);
    const moved = list.getBoundingClientRect().top - listTop; // by the bar of what can be done, which comes now
    if (moved !== 0) scrollBy(0, moved);
  }

  /** Go on beyond the screen while the mouse is at its edge. */
  scroll() {
    if (!this.drawn || this.from === null) return;
    const { clientY } = this.last;
    const by = clientY < EDGE ? -SPEED : clientY > innerHeight - EDGE ? SPEED : 0;
    if (by !== 0) {
      scrollBy(0, by);
      this.draw();
    }
    requestAnimationFrame(() => this.scroll());
  }

  end() {
    this.from = null;
    this.band.remove();
  }

  /** The click that ends it opens no photo. */
  drop(event) {
    if (!this.drawn) return;
    this.drawn = false;
    event.preventDefault();
    event.stopPropagation();
  }

  inList({ clientX, clientY }) {
    const { left, top } = this.grid.list.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }
}
