/** The form of filters, its place in the address, and the fields of a query that it stands for. */

import { byId } from "./dom.js";
import { toApiTime, toInputTime, ZONE } from "./format.js";
import { NameChoice } from "./names.js";

const DEFAULT_TOP_K = "20";
const TYPING_MS = 300;
const form = byId("filters");

let cameras;
let labels;

/** Start the form; `changed` is called after each change by hand. */
export function startFilters(changed) {
  const told = () => {
    showCount();
    changed();
  };
  cameras = new NameChoice("cameras", told);
  labels = new NameChoice("labels", told);
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

/** The filters as fields of a query, which are also those of the address; defaults are left out. */
export function filterFields() {
  const { from, to, min_score: score, top_k: count, group_by: grouped } = form.elements;
  const fields = new URLSearchParams();
  for (const name of cameras.chosen) fields.append("cameras", name);
  for (const name of labels.chosen) fields.append("labels", name);
  if (from.value) fields.set("from", toApiTime(from.value));
  if (to.value) fields.set("to", toApiTime(to.value));
  if (score.value !== "") fields.set("min_score", score.value);
  if (grouped.checked) fields.set("group_by", "label");
  if (count.value !== DEFAULT_TOP_K) fields.set("top_k", count.value);
  return fields;
}

/** The same for a request. */
export function queryForm() {
  const body = new FormData();
  for (const [name, value] of filterFields()) body.append(name, value);
  if (!body.has("top_k")) body.set("top_k", DEFAULT_TOP_K);
  return body;
}

/** Fill the form from the fields of an address. */
export function readFilters(fields) {
  const { from, to, min_score: score, top_k: count, group_by: grouped } = form.elements;
  cameras.choose(fields.getAll("cameras"));
  labels.choose(fields.getAll("labels"));
  from.value = inputTime(fields.get("from"));
  to.value = inputTime(fields.get("to"));
  score.value = fields.get("min_score") ?? "";
  grouped.checked = fields.get("group_by") === "label";
  count.value = fields.get("top_k") ?? DEFAULT_TOP_K;
  if (count.selectedIndex < 0) count.value = DEFAULT_TOP_K;
  showCount();
}

/** Take every filter away. */
export function clearFilters() {
  readFilters(new URLSearchParams());
}

function inputTime(text) {
  return text && !Number.isNaN(Date.parse(text)) ? toInputTime(text) : "";
}

function showCount() {
  const fields = filterFields();
  fields.delete("top_k");
  const count = new Set(fields.keys()).size;
  byId("filter-count").textContent = count === 0 ? "" : `${count} in use`;
}
