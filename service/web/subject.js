/** The photos that are searched with: one enrolled item, or files of one subject. */

import * as api from "./api.js";
import { byId, element, isPressed, pairs, press } from "./dom.js";
import { percent } from "./format.js";
import { toast } from "./toasts.js";

const CLASSES_SHOWN = 3;

/**
 * @typedef {{files: File[], item: ?Object}} Subject
 */

const list = byId("subject");
const attention = byId("subject-attention");

/** Draws a subject, with a button on each of several photos that leaves it out. */
export class SubjectView {
  /**
   * @param {function(File): void} leaveOut
   * @param {function(string): void} complain
   */
  constructor(leaveOut, complain) {
    this.leaveOut = leaveOut;
    this.complain = complain;
    this.urls = [];
    attention.addEventListener("click", () => {
      press(attention, !isPressed(attention));
      this.showAttention();
    });
  }

  /** @param {?Subject} subject */
  show(subject) {
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
    this.subject = subject;
    const files = subject?.files ?? [];
    list.replaceChildren(...(subject?.item ? [this.itemPhoto(subject.item)] : files.map((file) => this.file(file))));
    byId("subject-tools").hidden = subject === null;
    byId("more-photos").hidden = Boolean(subject?.item);
    byId("subject-drop").classList.toggle("compact", subject !== null);
    byId("choose-photos").textContent = subject === null ? "Choose photos" : "Search with other photos";
    this.showAttention();
    this.showClasses();
  }

  /** Where the first photo is, while it is shown. */
  firstUrl() {
    return list.querySelector("img")?.src ?? null;
  }

  itemPhoto(item) {
    return photo(api.imageUrl(item.item_id), item.label ?? item.camera ?? "an enrolled photo", null);
  }

  file(file) {
    const several = this.subject.files.length > 1;
    return photo(this.url(file), file.name, several ? () => this.leaveOut(file) : null);
  }

  url(blob) {
    const url = URL.createObjectURL(blob);
    this.urls.push(url);
    return url;
  }

  /** Name the most probable classes below each file, where the service has a classifier. */
  async showClasses() {
    const shown = this.subject;
    if (!shown || shown.files.length === 0) return;
    const ready = await api.ready().catch(() => null); // the page says elsewhere what keeps it from being ready
    if (!ready?.classifier || this.subject !== shown) return;
    try {
      const results = await api.classify(shown.files, CLASSES_SHOWN);
      if (this.subject !== shown) return;
      list.querySelectorAll(".classes").forEach((place, number) => {
        const { predictions, error } = results[number];
        const entries = predictions.map((one) => [one.class, percent(one.probability)]);
        place.replaceChildren(...(error ? [] : pairs(entries))); // searching tells of a file that cannot be used
      });
    } catch (error) {
      toast(error.message); // matches stay
    }
  }

  /** Lay the attention over the photos, or take it away. */
  async showAttention() {
    const shown = this.subject;
    for (const overlay of list.querySelectorAll(".overlay")) overlay.hidden = true;
    if (!isPressed(attention) || !shown) return;
    const maps = shown.item ? [api.itemAttention(shown.item.item_id)] : shown.files.map(api.photoAttention);
    try {
      const blobs = await Promise.all(maps);
      if (this.subject !== shown || !isPressed(attention)) return;
      list.querySelectorAll(".overlay").forEach((overlay, place) => {
        overlay.src = this.url(blobs[place]);
        overlay.hidden = false;
      });
    } catch (error) {
      press(attention, false);
      this.complain(error.message);
    }
  }
}

function photo(url, name, leaveOut) {
  const attributes = { type: "button", class: "leave-out", "aria-label": `Leave out ${name}`, onclick: leaveOut };
  return element(
    "li",
    {},
    element(
      "div",
      { class: "stack" },
      element("img", { src: url, alt: `Searched with: ${name}` }),
      element("img", { class: "overlay", alt: "Where the model looked", hidden: true }),
    ),
    element("span", { class: "name", title: name }, name),
    element("dl", { class: "classes", "aria-label": "Most probable classes" }),
    leaveOut && element("button", attributes, "×"),
  );
}
