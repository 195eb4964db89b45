/** Individuals: all of them, and a page for each. */

import { List } from "../individuals/list.js";
import { One } from "../individuals/one.js";
import { address, here, rename } from "../router.js";
import { may } from "../session.js";
import { html, render } from "../vendor/preact.js";
import { individuals as words } from "../words.js";

let container;

/** @type {import("../router.js").View} */
export const individuals = { name: "individuals", title: words.title, section: "names", start, show, hide };

function start(made) {
  container = made;
}

function show({ parts, fields }) {
  const [identityId] = parts;
  const listed = html`<${List} q=${fields.get("q") ?? ""} sort=${fields.get("sort") ?? "name"} empty=${fields.has("empty")}
    may=${may("write")} change=${change} />`;
  const shown = identityId ? html`<${One} identityId=${identityId} may=${may("write")} />` : listed;
  render(html`<h2>${words.title}</h2>${shown}`, container);
}

/** Keep what is looked for in the address, without a new place for Back. */
function change(event) {
  const fields = new URLSearchParams(here().fields);
  const { name, type, checked, value } = event.target;
  if (type === "checkbox" ? checked : value) fields.set(name, value);
  else fields.delete(name);
  rename(address("individuals", [], fields));
  show(here());
}

function hide() {
  render(null, container);
}
