/** Photos as a grid of cards, moved through by arrow keys. */

import { thumbnailUrl } from "./api.js";
import { element } from "./dom.js";
import { digitsFor, percent, time } from "./format.js";
import { changes, isRemoved, removeItem } from "./items.js";
import { may } from "./session.js";

/** A list of matches or items. It follows edits and deletes, and one Tab reaches it. */
export class Cards {
  /**
   * @param {any} list an element
   * @param {(cards: Cards, item: any) => void} open what to do with a card that is clicked
   */
  constructor(list, open) {
    this.list = list;
    this.open = open;
    this.items = [];
    this.digits = 0;
    list.addEventListener("keydown", (event) => this.press(event));
    list.addEventListener("focusin", (event) => this.enter(event.target));
    changes.addEventListener("edited", ({ detail }) => this.edit(detail));
    changes.addEventListener("removed", ({ detail }) => this.hide(detail));
    changes.addEventListener("restored", ({ detail }) => this.unhide(detail));
  }

  /** Show these and no others. */
  show(items) {
    this.items = [];
    this.list.replaceChildren();
    this.digits = digitsFor(items.map((item) => item.score ?? 0));
    this.append(items);
  }

  /** Show these too. */
  append(items) {
    this.items.push(...items);
    this.list.append(...items.map((item) => this.card(item)));
    this.enter(this.shown()[0]);
  }

  /** The items that are not deleted, in order. */
  present() {
    return this.items.filter((item) => !isRemoved(item.item_id));
  }

  /** Put the focus on the card of an item, if it is there. */
  focus(item) {
    const button = this.list.children[this.items.indexOf(item)]?.firstChild;
    if (button?.parentElement.hidden === false) button.focus();
  }

  card(item) {
    const button = element("button", { type: "button", class: "card", tabindex: -1 }, ...this.content(item));
    button.addEventListener("click", () => this.open(this, item));
    return element("li", { hidden: isRemoved(item.item_id) }, button);
  }

  content(item) {
    const photo = element("img", { src: thumbnailUrl(item.item_id), alt: "", loading: "lazy", decoding: "async" });
    const score = item.score?.toFixed(this.digits);
    const chance = item.probability ?? null;
    return [
      element("span", { class: "frame" }, photo),
      item.rank
        ? element(
            "span",
            { class: "line" },
            element("b", {}, element("span", { class: "unseen" }, "Rank "), String(item.rank)),
            element("span", { class: "score", title: `score ${score}` }, chance === null ? score : percent(chance)),
          )
        : null,
      element("span", { class: item.label ? "label" : "label none" }, item.label ?? "no label"),
      item.camera ? element("span", { class: "camera" }, item.camera) : null,
      item.captured_at ? element("time", { datetime: item.captured_at }, time(item.captured_at)) : null,
    ].filter((part) => part !== null);
  }

  edit(edited) {
    for (const [place, item] of this.items.entries()) {
      if (item.item_id !== edited.item_id) continue;
      for (const name of ["label", "camera", "captured_at"]) item[name] = edited[name];
      this.list.children[place].firstChild.replaceChildren(...this.content(item));
    }
  }

  hide(itemId) {
    const place = this.items.findIndex((item) => item.item_id === itemId);
    if (place < 0) return;
    const gone = this.list.children[place];
    const focused = gone.contains(document.activeElement);
    gone.hidden = true;
    const isAfter = (button) => gone.compareDocumentPosition(button) & Node.DOCUMENT_POSITION_FOLLOWING;
    const neighbour = this.shown().find(isAfter) ?? this.shown().at(-1);
    this.enter(neighbour);
    if (focused) neighbour?.focus();
  }

  unhide(itemId) {
    const place = this.items.findIndex((item) => item.item_id === itemId);
    if (place < 0) return;
    const card = this.list.children[place];
    card.hidden = false;
    this.enter(card.firstChild);
    if (document.activeElement === document.body) card.firstChild.focus(); // the button to undo has gone
  }

  shown() {
    return [...this.list.querySelectorAll("li:not([hidden]) > button")];
  }

  /** Make a card the one that Tab reaches. */
  enter(button) {
    if (!button?.matches(".card")) return;
    this.list.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
  }

  press(event) {
    const buttons = this.shown();
    const place = buttons.indexOf(document.activeElement);
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const top = (button) => button.getBoundingClientRect().top;
    const columns = buttons.filter((button) => Math.abs(top(button) - top(buttons[0])) < 2).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const ends = { Home: 0, End: buttons.length - 1 };
    if (event.key in steps) buttons[place + steps[event.key]]?.focus();
    else if (event.key in ends) buttons[ends[event.key]].focus();
    else if (event.key === "Delete" && may("write")) this.delete(event.target);
    else return;
    event.preventDefault();
  }

  delete(button) {
    removeItem(this.items[[...this.list.children].indexOf(button.parentElement)]);
  }
}
