/** The form of the large view: what is said of a photo. What was typed is saved when the photo is left, or kept. */

import { byId } from "./dom.js";
import { editItem, undoable } from "./items.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";
import { viewer as words } from "./words.js";

const FIELDS = Object.keys(words.fields); // each in an input `viewer-FIELD`

/**
 * What was typed and is not saved, by the ids of items, and how to take the message of it away.
 * @type {Map<string, {wanted: Object<string, ?string>, hide: () => void}>}
 */
const unsaved = new Map();

/** Edits the item that is open; `changed` is called with a sentence after each change of it, or with why not. */
export class Edits {
  /** @param {(told: string) => void} changed */
  constructor(changed) {
    this.item = null;
    this.changed = changed;
    this.underWay = null; // what is being saved
    byId("label-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  /** Say in the form what is known, but where somebody is typing unless the photo is another one. */
  fill(item, another = false) {
    this.item = item;
    const kept = unsaved.get(item.item_id)?.wanted ?? {};
    for (const field of FIELDS) {
      const input = byId(`viewer-${field}`);
      if (another || input !== document.activeElement) input.value = kept[field] ?? (field in kept ? "" : (item[field] ?? ""));
    }
    if (another && unsaved.has(item.item_id)) this.changed(words.notSaved);
  }

  /** What was typed and is not saved: the new values, and those before. */
  typed() {
    const { item } = this;
    const [wanted, before] = [{}, {}];
    for (const field of FIELDS) {
      const value = byId(`viewer-${field}`).value.trim() || null;
      if (value === (item[field] ?? null)) continue;
      wanted[field] = value;
      before[field] = item[field] ?? null;
    }
    return { wanted, before };
  }

  /** Save what was typed, and offer to take that back. */
  async save() {
    const { item } = this;
    const { wanted, before } = this.typed();
    if (Object.keys(wanted).length === 0) {
      this.changed(words.unchanged);
      return;
    }
    try {
      await this.store(item, wanted, before);
    } catch (error) {
      if (this.item === item) this.changed(error.status === 0 ? words.unsure(error.message) : error.message);
      else this.keep(item, wanted, before, error);
    }
  }

  /** Save what was typed of the photo that is open, which is left; what is refused is kept, and told. */
  leave() {
    const { item } = this;
    if (item === null || !may("write")) return;
    const { wanted, before } = this.typed();
    this.item = null;
    settle(item);
    // What Enter is saving already is not saved again.
    if (Object.keys(wanted).length > 0 && this.underWay !== keyOf(item, wanted)) this.storeLater(item, wanted, before);
  }

  /** Forget the photo that is open, as one that is deleted. */
  forget() {
    this.item = null;
  }

  async storeLater(item, wanted, before) {
    const waiting = { wanted, hide: () => {} };
    unsaved.set(item.item_id, waiting); // also for who comes back meanwhile
    try {
      await this.store(item, wanted, before);
    } catch (error) {
      if (unsaved.get(item.item_id) === waiting) this.keep(item, wanted, before, error); // else something newer was typed
    }
  }

  keep(item, wanted, before, error) {
    const again = () => {
      settle(item);
      this.storeLater(item, wanted, before);
    };
    const name = wanted.label ?? item.label ?? words.photo;
    const hide = toast(words.kept(name, error.message), { name: words.again, run: again }, null);
    unsaved.set(item.item_id, { wanted, hide });
  }

  async store(item, wanted, before) {
    const changed = Object.keys(wanted);
    const only = changed.length === 1 && changed[0] === "label";
    const told = only ? words.labelled(wanted.label) : words.saved(changed.map((field) => words.fields[field]));
    const key = keyOf(item, wanted);
    this.underWay = key; // what Enter saves is not saved again by Next
    try {
      await this.edit(item, wanted, told);
    } finally {
      if (this.underWay === key) this.underWay = null;
    }
    settle(item);
    undoable(told, () => this.edit(item, before, words.taken).catch((error) => toast(error.message)));
  }

  /** Change what is said of an item, and show it where it is still open. */
  async edit(item, wanted, told) {
    Object.assign(item, await editItem(item.item_id, wanted));
    if (this.item !== item) return;
    this.fill(item);
    this.changed(told);
  }
}

const keyOf = (item, wanted) => JSON.stringify([item.item_id, wanted]);

function settle(item) {
  unsaved.get(item.item_id)?.hide();
  unsaved.delete(item.item_id);
}

addEventListener("beforeunload", (event) => {
  if (unsaved.size > 0) event.preventDefault(); // the browser asks
});
