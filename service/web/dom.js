/** Finding and making elements. */

import { notePath } from "./files.js";

/** The element of an id that index.html has; what kind it is is said there. @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Make an element. Strings among the children become text nodes, so nothing that was sent is ever read as HTML.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Object<string, *>} attributes `onclick` and the like are listeners; false, null and undefined are left out
 * @param {...(Node|string|null)} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Make the pairs of a description list, without those whose value is null or empty. */
export function pairs(entries) {
  return entries
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

/** Whether an element takes the keys that are typed. */
export function isTyping(target) {
  return target.matches("textarea, select, input:not([type=checkbox], [type=file])");
}

/** What was written into a field of a form, without blanks around it. */
export function written(form, field) {
  return String(new FormData(form).get(field) ?? "").trim();
}

/** Turn a button with `aria-pressed` on or off. */
export function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

/** Whether a button with `aria-pressed` is on. */
export function isPressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/** The files of a drop or paste; folders are looked through. Reads the event before it waits for anything. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    notePath(file, entry.fullPath);
    return [file];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader gives a hundred entries at a time, and none at the end.
    const portion = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (portion.length === 0) return (await Promise.all(found.map(filesIn))).flat();
    found.push(...portion);
  }
}
