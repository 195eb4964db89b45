/** The photos that are searched for: one enrolled item, or photos of one subject that the service keeps. */

import * as api from "./api.js";
import { filesOfSubject, keepSubject } from "./api/subjects.js";
import { adopt, isEnrolled } from "./adopting.js";
import { boxButtons, boxOf, place as placeOver, textOf } from "./boxing.js";
import { byId, element, isPressed, pairs, press } from "./dom.js";
import { count, percent } from "./format.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";
import { boxing as boxWords, search as words } from "./words.js";

const CLASSES_SHOWN = 3;

/**
 * Either an enrolled item, or what `POST /v1/subjects` answered; `boxes` are the parts of its photos that are meant, as
 * forms have them, if not all of each.
 * @typedef {{item?: any, kept?: any, boxes?: string[]}} Subject
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
export async function filesOf({ item, kept }) {
  if (item) return [await api.fileOfItem(item.item_id)];
  if (!sent.has(kept.subject_id)) sent.set(kept.subject_id, await filesOfSubject(kept));
  return sent.get(kept.subject_id);
}

/** Where the first photo of a subject is; null where there is none. */
export function urlOf(subject) {
  return subject.item ? api.imageUrl(subject.item.item_id, Boolean(subject.boxes)) : (subject.kept.photos[0]?.image_url ?? null);
}

/** Draws a subject, with a button on each of several photos that leaves it out. */
export class SubjectView {
  /**
   * @param {(place: number) => void} leaveOut
   * @param {(message: string) => void} complain
   * @param {(boxes: string[]) => void} searchBoxes
   */
  constructor(leaveOut, complain, searchBoxes) {
    this.searchBoxes = searchBoxes;
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
    list.replaceChildren(...(subject?.item ? [this.itemPhoto(subject.item)] : kept.map((one) => this.keptPhoto(one, kept.length > 1))));
    byId("left-out").hidden = leftOut.length === 0;
    byId("left-out").replaceChildren(
      ...leftOut.map(({ name, reason }) => element("li", {}, element("b", {}, name), " ", element("span", {}, reason))),
    );
    byId("subject-tools").hidden = subject === null;
    byId("more-photos").hidden = kept.length === 0;
    form.hidden = subject === null || isEnrolled(subject) || !may("write");
    byId("adopt-name").value = "";
    byId("subject-drop").classList.toggle("compact", subject !== null);
    byId("choose-photos").textContent = subject === null ? "Choose photos" : "Search with other photos";
    this.showAttention();
    this.showClasses();
  }

  keptPhoto({ index, filename, image_url: url }, several) {
    return this.photo({ url, name: filename, place: index, leaveOut: several ? () => this.leaveOut(index) : null });
  }

  itemPhoto(item) {
    const isBoxed = Boolean(this.subject.boxes);
    const name = item.label ?? item.camera ?? "an enrolled photo";
    return this.photo({ url: api.imageUrl(item.item_id, isBoxed), whole: api.imageUrl(item.item_id, true), name });
  }

  /** A photo of the subject, on which a box can be drawn; `whole` is where all of it is, if not at `url`. */
  photo({ url, name, place = 0, leaveOut = null, whole = url }) {
    const box = boxOf(this.subject.boxes?.[place] ?? "");
    const image = element("img", { src: url, alt: `Searched with: ${name}` });
    const overlay = element("img", { class: "overlay", alt: "Where the model looked", hidden: true });
    const stack = element("div", { class: "stack" }, image, overlay);
    const drawing = boxButtons(image, {
      draw: box ? boxWords.another : boxWords.draw,
      take: boxWords.search,
      begin: async () => {
        stack.classList.add("drawing");
        overlay.hidden = true;
        if (image.getAttribute("src") !== whole) image.src = whole;
        await image.decode().catch(() => {}); // which the buttons tell
        return box ? [box] : [];
      },
      taken: (drawn) => this.searchBox(place, textOf(drawn)),
      ended: () => stack.classList.remove("drawing"),
    });
    if (box) {
      const shown = element("div", { class: "box" });
      stack.append(shown);
      image.addEventListener("load", () => placeOver(shown, box, image.naturalWidth, image.naturalHeight));
      drawing.all.prepend(element("button", { type: "button", onclick: () => this.searchBox(place, "") }, boxWords.whole));
    }
    const attributes = { type: "button", class: "leave-out", "aria-label": `Leave out ${name}`, onclick: leaveOut };
    return element(
      "li",
      {},
      stack,
      element("span", { class: "name", title: name }, name),
      drawing.all,
      element("dl", { class: "classes", "aria-label": "Most probable classes" }),
      leaveOut && element("button", attributes, "×"),
    );
  }

  /** Search with a box of a photo, or with nothing for the whole of it; other photos stay as they are. */
  searchBox(place, box) {
    const boxes = (this.subject.boxes ?? (this.subject.kept?.photos ?? [null]).map(() => "")).map((other, number) => (number === place ? box : other));
    this.searchBoxes(boxes);
  }

  /** Enrol the photos, under a name or none. */
  async adopt(name) {
    try {
      const items = await adopt(this.subject, { label: name });
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
      const boxes = shown.boxes ?? [];
      const maps = isEnrolled(shown)
        ? [api.itemAttention(shown.item.item_id)]
        : (await filesOf(shown)).map((file, place) => api.photoAttention(file, boxes[place]));
      const blobs = await Promise.all(maps);
      if (this.subject !== shown || !isPressed(attention)) return;
      list.querySelectorAll(".overlay").forEach((overlay, place) => {
        overlay.src = URL.createObjectURL(blobs[place]);
        const [box, { naturalWidth: width, naturalHeight: height }] = [boxOf(boxes[place] ?? ""), overlay.previousSibling];
        if (box) placeOver(overlay, box, width, height);
        this.urls.push(overlay.src);
        overlay.hidden = false;
      });
    } catch (error) {
      press(attention, false);
      this.complain(error.message);
    }
  }
}
