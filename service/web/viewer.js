/** The large view of a photo: all that is known of it, and what can be done with it. */

import * as api from "./api.js";
import { byId, element, isPressed, isTyping, pairs, press } from "./dom.js";
import { percent, timeInFull } from "./format.js";
import { editItem, removeItem } from "./items.js";
import { refreshNames } from "./names.js";
import { may } from "./session.js";

const dialog = byId("viewer");
const overlay = byId("viewer-overlay");
const state = byId("viewer-state");
const label = byId("viewer-label");
const attention = byId("viewer-attention");

let cards; // the list that the photo was opened from
let item;

/** Start the dialog; `search` is called with the item to search from. */
export function startViewer(search) {
  byId("viewer-close").addEventListener("click", () => dialog.close());
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  byId("viewer-delete").addEventListener("click", remove);
  byId("label-form").addEventListener("submit", saveLabel);
  byId("viewer-search").addEventListener("click", () => {
    dialog.close();
    search(item);
  });
  attention.addEventListener("click", () => {
    press(attention, !isPressed(attention));
    showAttention();
  });
  dialog.addEventListener("close", () => cards.focus(item));
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
 * @param {?string} subjectUrl where the photo is that it is to be compared with
 */
export function view(among, opened, subjectUrl = null) {
  cards = among;
  byId("viewer-compared").hidden = subjectUrl === null;
  if (subjectUrl !== null) byId("viewer-subject").src = subjectUrl;
  byId("label-form").hidden = !may("write");
  byId("viewer-delete").hidden = !may("write");
  show(opened);
  if (!dialog.open) dialog.showModal();
  byId("viewer-next").focus();
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
  const image = byId("viewer-image");
  image.src = api.imageUrl(item.item_id);
  image.alt = `Photo of ${item.label ?? "a subject without label"}`;
  label.value = item.label ?? "";
  state.textContent = "";
  describe(item);
  showAttention();
  complete(item);
}

/** Ask for what a match does not say. */
async function complete(shown) {
  try {
    const whole = await api.getItem(shown.item_id);
    if (item === shown) describe({ ...whole, ...shown });
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
      ["Time", known.captured_at && timeInFull(known.captured_at)],
      ["Key", known.key],
      ["File", known.source],
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

async function saveLabel(event) {
  event.preventDefault();
  const shown = item;
  const name = label.value.trim() || null;
  try {
    const saved = await editItem(shown.item_id, { label: name });
    if (item === shown) {
      byId("viewer-caption").textContent = name ?? "";
      describe({ ...saved, ...shown });
      state.textContent = name === null ? "Label taken away." : `Labelled ${name}.`;
    }
    await refreshNames();
  } catch (error) {
    if (item === shown) state.textContent = error.message;
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
