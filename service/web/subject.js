/** The photos that are searched for: one enrolled item, or photos of one subject that the service keeps. */

import * as api from "./api.js";
import { filesOfSubject, keepSubject } from "./api/subjects.js";
import { adopt } from "./adopting.js";
import { byId, element, isPressed, pairs, press } from "./dom.js";
import { count, percent } from "./format.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";
import { search as words } from "./words.js";

const CLASSES_SHOWN = 3;

/**
 * Either an enrolled item, or what `POST /v1/subjects` answered.
 * @typedef {{item?: any, kept?: any}} Subject
 */

const list = byId("subject");
const attention = byId("subject-attention");
const form = byId("adopt");

/** The files of the photos that were kept and sent in this visit; they need not be fetched. */
const sent = new Map();

/** Have photos kept, and remember their files. */
export async function keep(files, options) {
  const kept = await keepSubject(files, options);
  for (const one of kept.refused) one.filename = files[one.index].name; // a browser sends a quote in a name as %22
  const refused = new Set(kept.refused.map(({ index }) => index));
  const good = files.filter((_, place) => !refused.has(place));
  for (const [place, one] of kept.photos.entries()) one.filename = good[place].name;
  sent.set(kept.subject_id, good);
  return kept;
}

/**
 * The photos of a kept subject as files.
 * @param {Subject} subject
 * @returns {Promise<File[]>}
 */
export async function filesOf({ kept }) {
  if (!sent.has(kept.subject_id)) sent.set(kept.subject_id, await filesOfSubject(kept));
  return sent.get(kept.subject_id);
}

/** Where the first photo of a subject is; null where there is none. */
export function urlOf(subject) {
  return subject.item ? api.imageUrl(subject.item.item_id) : (subject.kept.photos[0]?.image_url ?? null);
}

/** Draws a subject, with a button on each of several photos that leaves it out. */
export class SubjectView {
  /**
   * @param {(place: number) => void} leaveOut
   * @param {(message: string) => void} complain
   */
  constructor(leaveOut, complain) {
    this.leaveOut = leaveOut;
    this.complain = complain;
    this.urls = [];
    attention.addEventListener("click", () => {
      press(attention, !isPressed(attention));
      this.showAttention();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.adopt(byId("adopt-name").value.trim() || null);
    });
  }

  /**
   * @param {?Subject} subject
   * @param {{name: string, reason: string}[]} leftOut files that were chosen with it and cannot be used
   */
  show(subject, leftOut) {
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
    this.subject = subject;
    const kept = subject?.kept?.photos ?? [];
    list.replaceChildren(...(subject?.item ? [itemPhoto(subject.item)] : kept.map((one) => this.keptPhoto(one, kept.length > 1))));
    byId("left-out").hidden = leftOut.length === 0;
    byId("left-out").replaceChildren(
      ...leftOut.map(({ name, reason }) => element("li", {}, element("b", {}, name), " ", element("span", {}, reason))),
    );
    byId("subject-tools").hidden = subject === null;
    byId("more-photos").hidden = kept.length === 0;
    form.hidden = kept.length === 0 || !may("write");
    byId("adopt-name").value = "";
    byId("subject-drop").classList.toggle("compact", subject !== null);
    byId("choose-photos").textContent = subject === null ? "Choose photos" : "Search with other photos";
    this.showAttention();
    this.showClasses();
  }

  keptPhoto({ index, filename, image_url: url }, several) {
    return photo(url, filename, several ? () => this.leaveOut(index) : null);
  }

  /** Enrol the photos, under a name or none. */
  async adopt(name) {
    const { kept } = this.subject;
    try {
      const items = await adopt(kept, { label: name });
      if (items.length > 0) toast(words.added(count(items.length, "photo"), name));
    } catch (error) {
      toast(error.message);
    }
  }

  /** Name the most probable classes below each file, where the service has a classifier. */
  async showClasses() {
    const shown = this.subject;
    if (!shown?.kept || shown.kept.photos.length === 0) return;
    const ready = await api.ready().catch(() => null); // the page says elsewhere what keeps it from being ready
    if (!ready?.classifier || this.subject !== shown) return;
    try {
      const results = await api.classify(await filesOf(shown), CLASSES_SHOWN);
      if (this.subject !== shown) return;
      const known = words.classes(count(ready.classifier.classes, "class", "classes"));
      list.querySelectorAll(".classes").forEach((place, number) => {
        const { predictions, error } = results[number];
        if (error) return; // searching tells of a file that cannot be used
        place.replaceChildren(...pairs(predictions.map((one) => [one.class, percent(one.probability)])));
        place.after(element("p", { class: "note" }, known));
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
    try {
      const maps = shown.item ? [api.itemAttention(shown.item.item_id)] : (await filesOf(shown)).map(api.photoAttention);
      const blobs = await Promise.all(maps);
      if (this.subject !== shown || !isPressed(attention)) return;
      list.querySelectorAll(".overlay").forEach((overlay, place) => {
        overlay.src = URL.createObjectURL(blobs[place]);
        this.urls.push(overlay.src);
        overlay.hidden = false;
      });
    } catch (error) {
      press(attention, false);
      this.complain(error.message);
    }
  }
}

function itemPhoto(item) {
  return photo(api.imageUrl(item.item_id), item.label ?? item.camera ?? "an enrolled photo", null);
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
