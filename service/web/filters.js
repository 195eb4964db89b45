/** The form of filters, its place in the address, and the fields of a query that it stands for. */

import { byId } from "./dom.js";
import { toApiTime, toInputTime, ZONE } from "./format.js";
import { NameChoice } from "./names.js";
import { search as words } from "./words.js";

/** The field of a filter that leaves what one import added. */
export const IMPORT = "attributes.import";

const DEFAULT_TOP_K = "20";
const DEFAULT_ORDER = "score";
const TYPING_MS = 300;
const form = byId("filters");

let choices;

/** Start the form; `changed` is called after each change by hand. */
export function startFilters(changed) {
  const told = () => {
    showCount();
    if (timesAreInOrder()) changed();
  };
  choices = {
    cameras: new NameChoice("cameras", "cameras", told),
    exclude_cameras: new NameChoice("cameras", "exclude-cameras", told),
    labels: new NameChoice("labels", "labels", told),
    sites: new NameChoice("sites", "sites", told),
  };
  let typing;
  form.addEventListener("input", (event) => {
    if (!event.target.name) return;
    clearTimeout(typing);
    typing = setTimeout(told, event.target.type === "number" ? TYPING_MS : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // it would put back what the browser remembers
    clearFilters();
    changed();
  });
  for (const zone of document.querySelectorAll(".zone")) zone.textContent = `(${ZONE})`;
  byId("filter-fold").open = matchMedia("(min-width: 56rem)").matches;
}

/** The filters as fields of an address, by the names of those of a query; defaults are left out. */
export function filterFields() {
  const { from, to, min_score: score, top_k: count, group_by: grouped, order } = form.elements;
  const fields = new URLSearchParams();
  for (const [kind, { chosen }] of Object.entries(choices)) {
    for (const name of chosen) fields.append(kind, name);
  }
  if (from.value) fields.set("from", toApiTime(from.value));
  if (to.value) fields.set("to", toApiTime(to.value));
  if (score.value !== "") fields.set("min_score", score.value);
  if (grouped.checked) fields.set("group_by", "label");
  if (count.value !== DEFAULT_TOP_K) fields.set("top_k", count.value);
  if (order.value !== DEFAULT_ORDER) fields.set("order", order.value);
  return fields;
}

/** The same for a request. */
export function queryForm() {
  const body = new FormData();
  for (const [name, value] of filterFields()) body.append(name, value);
  if (!body.has("top_k")) body.set("top_k", DEFAULT_TOP_K);
  body.delete("order"); // which is the page's own
  return body;
}

/** In what order matches are wanted. */
export function orderOf() {
  return form.elements.order.value;
}

/** Fill the form from the fields of an address. */
export function readFilters(fields) {
  const { from, to, min_score: score, top_k: count, group_by: grouped, order } = form.elements;
  for (const [kind, choice] of Object.entries(choices)) choice.choose(fields.getAll(kind));
  from.value = inputTime(fields.get("from"));
  to.value = inputTime(fields.get("to"));
  score.value = fields.get("min_score") ?? "";
  grouped.checked = fields.get("group_by") === "label";
  count.value = fields.get("top_k") ?? DEFAULT_TOP_K;
  if (count.selectedIndex < 0) count.value = DEFAULT_TOP_K;
  order.value = fields.get("order") ?? DEFAULT_ORDER;
  if (order.selectedIndex < 0) order.value = DEFAULT_ORDER;
  timesAreInOrder();
  showCount();
}

/** Take every filter away. */
export function clearFilters() {
  readFilters(new URLSearchParams());
}

/** Whether From is before Before; says so where it is not. */
function timesAreInOrder() {
  const { from, to } = form.elements;
  const swapped = from.value !== "" && to.value !== "" && from.value >= to.value;
  byId("times-problem").textContent = swapped ? words.timesSwapped : "";
  return !swapped;
}

function inputTime(text) {
  return text && !Number.isNaN(Date.parse(text)) ? toInputTime(text) : "";
}

function showCount() {
  const fields = filterFields();
  for (const name of ["top_k", "order"]) fields.delete(name);
  const count = new Set(fields.keys()).size;
  byId("filter-count").textContent = count === 0 ? "" : `${count} in use`;
}
