/** The large view of a photo: all that is known of it, and what can be done with it. */

import * as api from "./api.js";
import { isEnrolled, say } from "./adopting.js";
import { boxOf, cropOf } from "./boxing.js";
import { collect } from "./collecting.js";
import { byId, element, isPressed, isTyping, pairs, press } from "./dom.js";
import { Edits } from "./edits.js";
import { fileName, percent, timeInFull } from "./format.js";
import { removeItem, undoLast } from "./items.js";
import { addressOfComparison } from "./views/compare.js";
import { go } from "./router.js";
import { SamePhoto } from "./same_photo.js";
import { may } from "./session.js";
import { viewer as words } from "./words.js";

const dialog = byId("viewer");
const overlay = byId("viewer-overlay");
const state = byId("viewer-state");
const attention = byId("viewer-attention");

let cards; // the list that the photo was opened from
let listed; // the one of them that is open, or of whose photo another item is
let item;
let edits;
let photo;
let compared; // what was searched with, where the photo is a match

/** Start the dialog; `search` is called with the item to search from. */
export function startViewer(search) {
  byId("viewer-close").addEventListener("click", () => dialog.close());
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  byId("viewer-delete").addEventListener("click", remove);
  edits = new Edits((told) => {
    state.textContent = told;
    byId("viewer-caption").textContent = item.label ?? "";
    describe(item);
  });
  photo = new SamePhoto({
    open: (other) => {
      const same = cards.present().find((one) => one.item_id === other.item_id);
      leaveTo(same ?? other, same ?? listed);
    },
    ...{ leave: leaveFor, whole: showWhole },
  });
  byId("viewer-collect").addEventListener("click", addToShortlist);
  byId("viewer-search").addEventListener("click", () => leaveFor(() => search(item)));
  byId("viewer-compare").addEventListener("click", () => leaveFor(() => go(addressOfComparison(compared.subject, cards.present(), item))));
  byId("viewer-same").addEventListener("click", () => sayIt("same"));
  byId("viewer-different").addEventListener("click", () => sayIt("different"));
  attention.addEventListener("click", () => {
    press(attention, !isPressed(attention));
    showAttention();
  });
  dialog.addEventListener("close", () => {
    edits.leave();
    cards.focus(listed);
    if (history.state?.viewer) history.back();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside its content
  });
  dialog.addEventListener("keydown", (event) => {
    const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Delete: remove, ...(isUndo && { z: undoLast }) };
    if (isTyping(event.target) || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
}

/**
 * Open the view of an item among the cards it is one of.
 * @param {import("./cards.js").Cards} among
 * @param {Object} opened
 * @param {?{url: string, subject: import("./subject.js").Subject}} searchedWith who it is to be compared with
 */
export function view(among, opened, searchedWith = null) {
  cards = among;
  compared = searchedWith;
  byId("viewer-compared").hidden = compared === null;
  byId("viewer-comparing").hidden = compared === null;
  byId("viewer-same").hidden = !may("write");
  if (compared !== null) showSubject();
  byId("label-form").hidden = !may("write");
  byId("viewer-delete").hidden = !may("write");
  byId("viewer-collect").hidden = !may("write");
  show(opened, opened);
  if (!dialog.open) {
    history.pushState({ ...history.state, viewer: true }, "", location.hash); // Back closes it, and no more
    dialog.showModal();
  }
  byId("viewer-next").focus();
}

/** Show what was searched with beside it: of a photo with a box, what that shows. */
async function showSubject() {
  const shown = compared;
  const image = byId("viewer-subject");
  const box = boxOf(shown.subject.boxes?.[0] ?? "");
  URL.revokeObjectURL(image.src);
  image.removeAttribute("src"); // that of another search
  const crop = box && (await cropOf(shown.url, box).catch(() => null)); // an outage, which the photo beside it tells
  if (compared === shown) image.src = crop ? URL.createObjectURL(crop) : shown.url;
}

/** Close it, as where Back led away from it. */
export function closeViewer() {
  if (dialog.open && !history.state?.viewer) dialog.close();
}

/** Close it for another place, whose Back leads to it being closed. */
function leaveFor(go) {
  history.replaceState({ ...history.state, viewer: undefined }, "", location.hash);
  dialog.close();
  go();
}

async function sayIt(answer) {
  const shown = item;
  try {
    await say(compared.subject, shown, answer);
  } catch (error) {
    if (item === shown) state.textContent = error.message;
  }
}

/** Save what was typed, and show another one. */
function leaveTo(next, among) {
  edits.leave();
  show(next, among);
}

/** Show an item of the photo of one of the list, mostly that itself. */
function show(next, among) {
  item = next;
  listed = among;
  const items = cards.present();
  const place = items.indexOf(listed);
  const title = item.item_id !== listed.item_id ? words.samePhoto : item.rank ? `Match ${item.rank}` : `Photo ${place + 1}`;
  byId("viewer-title").textContent = title;
  byId("viewer-caption").textContent = item.label ?? title;
  byId("viewer-previous").disabled = place <= 0;
  byId("viewer-next").disabled = place === items.length - 1;
  byId("viewer-different").hidden = !may("write") || !(compared && isEnrolled(compared.subject)); // only of enrolled photos is it kept
  byId("viewer-image").src = api.imageUrl(item.item_id);
  byId("viewer-image").alt = `Photo of ${item.label ?? "a subject without label"}`;
  state.textContent = "";
  describe(item);
  edits.fill(item, true);
  photo.show(item);
  showAttention();
  complete(item);
}

/** Show the whole photo, for a box to be drawn on it, or again what the item shows. */
function showWhole(on) {
  overlay.hidden = true;
  const url = api.imageUrl(item.item_id, on && Boolean(item.box));
  const image = byId("viewer-image");
  if (image.getAttribute("src") !== url) image.src = url;
  if (!on) showAttention();
}

/** Ask for what a match does not say. */
async function complete(shown) {
  try {
    const whole = await api.getItem(shown.item_id);
    if (item !== shown) return;
    const isKnown = Boolean(shown.media);
    Object.assign(shown, { ...whole, ...shown });
    describe(shown);
    if (!isKnown) photo.read();
  } catch (error) {
    if (item === shown) state.textContent = error.message;
  }
}

function describe(known) {
  const size = known.width ? `${known.width} × ${known.height} pixels` : null;
  const attributes = Object.entries(known.attributes ?? {});
  byId("viewer-details").replaceChildren(
    ...pairs([
      ["Probability", (known.probability ?? null) === null ? null : percent(known.probability)],
      ["Score (cosine)", known.score?.toFixed(6)],
      ["Label", known.label],
      ["Camera", known.camera],
      ["Site", known.site],
      ["Viewpoint", known.viewpoint],
      ["Time", known.captured_at && timeInFull(known.captured_at)],
      ["Key", known.key],
      ["File", fileName(known.source)],
      ["Size", size],
      ["Added", known.created_at && timeInFull(known.created_at)],
      ...attributes.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
      ["Item", element("code", {}, known.item_id)],
    ]),
  );
}

async function showAttention() {
  overlay.hidden = true;
  if (!isPressed(attention)) return;
  const shown = item;
  try {
    const blob = await api.itemAttention(shown.item_id);
    if (item !== shown || !isPressed(attention)) return;
    URL.revokeObjectURL(overlay.src);
    overlay.src = URL.createObjectURL(blob);
    overlay.hidden = false;
  } catch (error) {
    if (item === shown) state.textContent = error.message;
  }
}

function step(distance) {
  const items = cards.present();
  const next = items[items.indexOf(listed) + distance];
  if (next) leaveTo(next, next);
}

async function addToShortlist() {
  try {
    await collect([item], (to) => leaveFor(() => go(to)));
  } catch (error) {
    state.textContent = error.message;
  }
}

function remove() {
  if (!may("write")) return;
  const items = cards.present();
  const place = items.indexOf(listed);
  removeItem(item);
  if (item.item_id === listed.item_id) listed = items[place + 1] ?? items[place - 1]; // the card that gets the focus
  edits.forget();
  dialog.close();
}
