/** The large view of a photo: all that is known of it, and what can be done with it. */

import * as api from "./api.js";
import { say } from "./adopting.js";
import { collect } from "./collecting.js";
import { byId, element, isPressed, isTyping, pairs, press } from "./dom.js";
import { fileName, percent, timeInFull } from "./format.js";
import { editItem, removeItem, undoable } from "./items.js";
import { refreshNames } from "./names.js";
import { addressOfComparison } from "./views/compare.js";
import { go } from "./router.js";
import { may } from "./session.js";
import { viewer as words } from "./words.js";

const dialog = byId("viewer");
const overlay = byId("viewer-overlay");
const state = byId("viewer-state");
const FIELDS = Object.keys(words.fields); // that can be edited, each in an input `viewer-FIELD`
const attention = byId("viewer-attention");

let cards; // the list that the photo was opened from
let item;
let compared; // what was searched with, where the photo is a match

/** Start the dialog; `search` is called with the item to search from. */
export function startViewer(search) {
  byId("viewer-close").addEventListener("click", () => dialog.close());
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  byId("viewer-delete").addEventListener("click", remove);
  byId("label-form").addEventListener("submit", save);
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
    cards.focus(item);
    if (history.state?.viewer) history.back();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside its content
  });
  dialog.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Delete: remove };
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
  if (compared !== null) byId("viewer-subject").src = compared.url;
  byId("label-form").hidden = !may("write");
  byId("viewer-delete").hidden = !may("write");
  byId("viewer-collect").hidden = !may("write");
  show(opened);
  if (!dialog.open) {
    history.pushState({ ...history.state, viewer: true }, "", location.hash); // Back closes it, and no more
    dialog.showModal();
  }
  byId("viewer-next").focus();
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

function show(next) {
  item = next;
  const items = cards.present();
  const place = items.indexOf(item);
  const title = item.rank ? `Match ${item.rank}` : `Photo ${place + 1}`;
  byId("viewer-title").textContent = title;
  byId("viewer-caption").textContent = item.label ?? title;
  byId("viewer-previous").disabled = place <= 0;
  byId("viewer-next").disabled = place === items.length - 1;
  byId("viewer-different").hidden = !may("write") || !compared?.subject.item; // only of enrolled photos is it kept
  const image = byId("viewer-image");
  image.src = api.imageUrl(item.item_id);
  image.alt = `Photo of ${item.label ?? "a subject without label"}`;
  fill(item, true);
  state.textContent = "";
  describe(item);
  showAttention();
  complete(item);
}

/** Say in the form what is known, but where somebody is typing unless the photo is another one. */
function fill(known, another = false) {
  for (const field of FIELDS) {
    const input = byId(`viewer-${field}`);
    if (another || input !== document.activeElement) input.value = known[field] ?? "";
  }
}

/** Ask for what a match does not say. */
async function complete(shown) {
  try {
    const whole = await api.getItem(shown.item_id);
    if (item !== shown) return;
    Object.assign(shown, { ...whole, ...shown });
    describe(shown);
    fill(shown);
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
  const next = items[items.indexOf(item) + distance];
  if (next) show(next);
}

/** Save what was changed in the form, and offer to take that back. */
async function save(event) {
  event.preventDefault();
  const shown = item;
  const wanted = {};
  const before = {};
  for (const field of FIELDS) {
    const value = byId(`viewer-${field}`).value.trim() || null;
    if (value === (shown[field] ?? null)) continue;
    wanted[field] = value;
    before[field] = shown[field] ?? null;
  }
  const changed = Object.keys(wanted);
  if (changed.length === 0) {
    state.textContent = words.unchanged;
    return;
  }
  const only = changed.length === 1 && changed[0] === "label";
  const told = only ? words.labelled(wanted.label) : words.saved(changed.map((field) => words.fields[field]));
  if (await edit(shown, wanted, told)) undoable(told, () => edit(shown, before, words.taken));
}

/** Change what is said of an item, and show it where it is still open; whether that went well. */
async function edit(shown, wanted, told) {
  try {
    const saved = await editItem(shown.item_id, wanted);
    Object.assign(shown, saved);
    if (item === shown) {
      byId("viewer-caption").textContent = shown.label ?? "";
      describe(shown);
      fill(shown);
      state.textContent = told;
    }
    await refreshNames();
    return true;
  } catch (error) {
    if (item === shown) state.textContent = error.message;
    return false;
  }
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
  const place = items.indexOf(item);
  removeItem(item);
  item = items[place + 1] ?? items[place - 1]; // the card that gets the focus
  dialog.close();
}
