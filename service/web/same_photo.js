/** What else a photo shows: the items of one photo, seen together, and one more by a box drawn on it. */

import * as api from "./api.js";
import { boxButtons } from "./boxing.js";
import { byId, element } from "./dom.js";
import { tellAdded, tellDeleted, undoable } from "./items.js";
import { address, go } from "./router.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";
import { boxing as words, viewer as viewerWords } from "./words.js";

const place = byId("viewer-photo");

/** Below the picture of the large view; `open` is called with an item of the photo, `leave` with an address. */
export class SamePhoto {
  /**
   * @param {{open: (item: any) => void, leave: (go: () => void) => void, whole: (on: boolean) => void}} view `whole` has the whole photo shown, or
   * what the item shows
   */
  constructor(view) {
    this.view = view;
    this.items = [];
    this.buttons = boxButtons(byId("viewer-image"), {
      draw: words.draw,
      take: words.add,
      begin: async () => {
        this.view.whole(true);
        await byId("viewer-image").decode().catch(() => {}); // which the buttons tell
        return this.items.map((item) => item.box).filter((box) => box);
      },
      taken: (box) => this.add(box),
      ended: () => this.view.whole(false),
    });
  }

  /** Show what else there is of the photo of an item. */
  show(item) {
    this.buttons.end();
    this.item = item;
    this.items = [];
    this.draw();
    if (item.media) this.read(); // of a match it is on the way
  }

  /** Ask for the items of the photo. */
  async read() {
    const { item } = this;
    try {
      const { items } = await api.listItems(new URLSearchParams({ media: item.media }));
      if (this.item !== item) return;
      this.items = items;
      this.draw();
    } catch {
      // An outage, which is told where something was asked for.
    }
  }

  draw() {
    const { item, items } = this;
    const others = items.length < 2 ? [] : [
      element("p", {}, viewerWords.together(items.length)),
      element("ul", { class: "thumbnails", "aria-label": viewerWords.samePhoto }, ...items.map((one, number) => element("li", {}, this.button(one, number)))),
      element("button", { type: "button", onclick: () => this.view.leave(() => go(address("browse", [], new URLSearchParams({ media: item.media })))) }, viewerWords.inBrowse),
    ];
    place.replaceChildren(...others, ...(may("write") ? [this.buttons.all] : []));
  }

  button(one, number) {
    const isOpen = one.item_id === this.item.item_id;
    const name = viewerWords.part(number + 1, one.label);
    const image = element("img", { src: api.thumbnailUrl(one.item_id), alt: name });
    return element("button", { type: "button", "aria-pressed": String(isOpen), onclick: () => isOpen || this.view.open(one) }, image);
  }

  /** Enrol what a box shows, and open it. */
  async add(box) {
    const { item } = this;
    try {
      const [result] = await api.enrolBoxes(item.item_id, [{ box }]);
      if (result.error) throw new Error(result.error.detail);
      const made = result.item;
      if (result.result === "created") {
        tellAdded(made);
        undoable(words.added, () => this.takeBack(made, item));
      } else toast(words.existing);
      if (this.item !== item) return;
      this.view.open(made);
      byId("viewer-label").focus();
    } catch (error) {
      toast(error.message);
    }
  }

  async takeBack(made, item) {
    try {
      await api.deleteItem(made.item_id);
      tellDeleted(made.item_id);
      toast(words.removed);
      if (this.item.item_id === made.item_id) this.view.open(item);
      else if (this.item.media === made.media) this.read();
    } catch (error) {
      toast(error.message);
    }
  }
}
