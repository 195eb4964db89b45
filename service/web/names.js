/** The cameras and labels of the gallery: suggestions for every input, and choices among them. */

import * as api from "./api.js";
import { byId, element } from "./dom.js";
import { integer } from "./format.js";

const MOST_CHIPS = 8;
const choices = { cameras: [], labels: [], sites: [] }; // what sites there are is not told

/** Read the names again, most frequent first, and offer them everywhere. */
export async function refreshNames() {
  const [cameras, labels] = await Promise.all([api.cameras(), api.labels()]);
  offer("cameras", "camera-names", cameras);
  offer("labels", "label-names", labels);
}

function offer(kind, listId, names) {
  byId(listId).replaceChildren(...names.map(({ name }) => element("option", { value: name })));
  for (const choice of choices[kind]) choice.offer(names);
}

/** Names of a kind to choose from: chips for the most frequent, and an input for any other. */
export class NameChoice {
  /**
   * @param {"cameras"|"labels"|"sites"} kind
   * @param {string} id of the fieldset
   * @param {() => void} changed called after each choice by hand
   */
  constructor(kind, id, changed) {
    this.names = [];
    this.offered = kind !== "sites";
    this.chosen = new Set();
    this.changed = changed;
    this.chips = byId(id).querySelector(".chips");
    this.input = byId(id).querySelector("input");
    this.input.addEventListener("change", () => this.take());
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.take();
    });
    choices[kind].push(this);
  }

  /** Replace what is chosen. */
  choose(names) {
    this.chosen = new Set(names);
    this.draw();
  }

  offer(names) {
    this.names = names;
    this.draw();
  }

  take() {
    const name = this.input.value.trim();
    this.input.value = "";
    if (name === "" || this.chosen.has(name)) return;
    this.chosen.add(name);
    this.draw();
    this.changed();
  }

  toggle(name) {
    if (!this.chosen.delete(name)) this.chosen.add(name);
    this.draw();
    [...this.chips.children].find((chip) => chip.value === name)?.focus();
    this.changed();
  }

  draw() {
    const frequent = this.names.slice(0, MOST_CHIPS);
    const others = [...this.chosen].filter((name) => !frequent.some((one) => one.name === name));
    const items = new Map(this.names.map((one) => [one.name, one.items]));
    this.chips.replaceChildren(
      ...[...frequent.map((one) => one.name), ...others].map((name) =>
        element(
          "button",
          {
            ...{ type: "button", value: name, "aria-pressed": String(this.chosen.has(name)) },
            onclick: () => this.toggle(name),
          },
          element("span", {}, name),
          items.has(name) ? element("small", {}, integer(items.get(name))) : null,
        ),
      ),
    );
    this.input.hidden = this.names.length <= MOST_CHIPS && this.offered;
  }
}
