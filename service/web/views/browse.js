/** All enrolled photos: filtered, by date, and many of them changed at once. */

import * as api from "../api.js";
import { collect } from "../collecting.js";
import { byId } from "../dom.js";
import { Grid } from "../grid.js";
import { changes, removeItems, undoable } from "../items.js";
import { refreshNames } from "../names.js";
import { address, go, here, rename } from "../router.js";
import { may } from "../session.js";
import { toast } from "../toasts.js";
import { html, render } from "../vendor/preact.js";
import { view } from "../viewer.js";
import { browse as words } from "../words.js";
import { IMPORT } from "../filters.js";
import { BulkBar } from "./browse_bulk.js";
import { FilterBar, Months } from "./browse_filters.js";

const PAGE = 200;
const SECONDS_UNSURE = 20; // for which it is said what is not known
const FIELDS = ["labels", "cameras", "named", "order", "from", "to", "media", IMPORT];

/** @type {URLSearchParams} */
let fields = new URLSearchParams(); // those of the address
let grid;
let cursor = null; // of the next page; null where there is none
let asking = null; // how to give up the page that is on its way
let stale = true;
let everything = null; // how many pass the filters, where all of them are selected

/** @type {import("../router.js").View} */
export const browse = { name: "browse", title: words.title, section: "photos", start, show };

function start(container) {
  const open = (among, item) => view(/** @type {any} */ (among), item);
  grid = new Grid(byId("enrolled"), open, showMore, () => {
    everything = null;
    drawBulk();
  });
  for (const type of ["added", "edited"]) {
    changes.addEventListener(type, ({ detail }) => {
      stale ||= type === "added" && !grid.items.includes(detail);
      drawMonthsSoon();
    });
  }
  container.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && grid.selection.size > 0) grid.select([]);
  });
}

/** Show what the address asks for, unless that is shown. */
async function show({ fields: asked }) {
  const wanted = new URLSearchParams([...asked].filter(([name]) => FIELDS.includes(name)));
  if (!stale && wanted.toString() === fields.toString()) {
    grid.redraw();
    return;
  }
  fields = wanted;
  await reload();
}

/** Ask for other photos, and have the address say so. */
function change(name, values) {
  fields.delete(name);
  for (const value of values) fields.append(name, value);
  rename(address("browse", [], fields));
  reload();
}

async function reload() {
  stale = false;
  asking?.abort();
  asking = null;
  cursor = null; // until the list is empty, or it would ask for more at its end
  grid.show([]);
  scrollTo(0, 0);
  cursor = 0;
  const photos = showMore();
  drawFilters();
  await photos;
  await drawMonths(); // which counts all photos, and these have not to wait for that
}

async function showMore() {
  if (asking || cursor === null) return;
  asking = new AbortController();
  const { signal } = asking;
  try {
    const page = await api.listItems(query({ limit: PAGE, cursor }), signal);
    asking = null;
    cursor = page.next_cursor;
    grid.append(page.items);
    byId("browse-facts").textContent = grid.items.length > 0 ? "" : fields.size > 0 ? words.noneFit : words.empty;
  } catch (error) {
    if (error.name === "AbortError") return;
    asking = null;
    stale = true;
    byId("browse-facts").textContent = error.message;
  }
}

/** What a request asks for, as the address does. */
function query(more) {
  const asked = new URLSearchParams(fields);
  if (!asked.has("order")) asked.set("order", "newest");
  for (const [name, value] of Object.entries(more)) asked.set(name, String(value));
  return asked;
}

function drawFilters() {
  render(html`<${FilterBar} fields=${fields} change=${change} />`, byId("browse-filters"));
}

let waiting;
function drawMonthsSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(drawMonths, 500);
}

async function drawMonths() {
  const others = new URLSearchParams([...fields].filter(([name]) => !["from", "to", "order"].includes(name)));
  try {
    others.delete("media");
    const days = fields.has("media") ? [] : await api.days(others);
    if (others.toString() !== without(fields, ["from", "to", "order", "media"]).toString()) return; // another is on its way
    render(html`<${Months} days=${days} fields=${fields} change=${changeTimes} />`, byId("browse-months"));
  } catch (error) {
    toast(error.message);
  }
}

function without(some, names) {
  return new URLSearchParams([...some].filter(([name]) => !names.includes(name)));
}

function changeTimes(from, to) {
  fields.delete("from");
  fields.delete("to");
  if (from) fields.set("from", from);
  change("to", to ? [to] : []);
}

function drawBulk() {
  const props = { count: everything ?? grid.selection.size, all: everything !== null, few: fields.has("media"), mayWrite: may("write") };
  render(html`<${BulkBar} ...${props} act=${act} selectAll=${selectAll} clear=${clear} export_=${exportTable} />`, byId("browse-bulk"));
}

function clear() {
  grid.select([]);
}

/** What the selection is, as the API takes it. @returns {any} */
function chosen() {
  if (everything === null) return { item_ids: [...grid.selection].map((item) => item.item_id) };
  const filter = {};
  for (const name of ["labels", "cameras", IMPORT]) if (fields.has(name)) filter[name] = fields.getAll(name);
  for (const name of ["from", "to"]) if (fields.has(name)) filter[name] = fields.get(name);
  const named = fields.has("named") ? { named: fields.get("named") === "true" } : {};
  return { filter, ...named };
}

/** Select all that pass the filters, also those that were not scrolled to. */
async function selectAll() {
  grid.select(grid.present());
  everything = 0;
  try {
    everything = (await api.editItems({ ...chosen(), changes: { site: null } })).items; // a dry run, which counts
  } catch (error) {
    everything = null;
    toast(error.message);
  }
  drawBulk();
}

/** Do something to the selection: `changes` and `shift_seconds`, or `delete`. */
/** The last change of which no answer came, which may have been done: the same again has its key. */
let unanswered = { what: "", key: "" };

async function act(wanted) {
  const what = JSON.stringify([chosen(), wanted, everything]);
  if (unanswered.what !== what) unanswered = { what, key: api.newKey() };
  try {
    if (wanted.delete) return await removeChosen();
    if (wanted.shortlist) return await collect(await chosenItems());
    const done = await api.editAll(chosen(), wanted, everything, unanswered.key);
    unanswered = { what: "", key: "" };
    const items = everything === null && wanted.changes ? [...grid.selection] : null; // else all is asked for anew
    const before = items?.map((item) => ({ ...item }));
    const undo = () => takeBack(done.steps, items, before);
    undoable(words.changed(done.changed), undo);
    items?.forEach((item) => Object.assign(item, wanted.changes));
    await afterwards(items);
  } catch (error) {
    if (error.status === 0) toast(words.unsure(error.message), null, SECONDS_UNSURE);
    else toast(error.message);
  }
}

async function takeBack(steps, items, before) {
  try {
    for (const step of steps.toReversed()) await api.undoEdit(step);
    items?.forEach((item, place) => Object.assign(item, before[place]));
    await afterwards(items);
    toast(words.undone);
  } catch (error) {
    toast(error.message);
  }
}

async function removeChosen() {
  const meant = chosen();
  if (everything === null) {
    removeItems([...grid.selection]);
    return;
  }
  if (meant.named !== undefined) {
    toast(words.notByLabel);
    return;
  }
  if (!confirm(words.sure(everything))) return;
  const { items } = await api.deleteMatching({ filter: meant.filter, dry_run: false, expected: everything });
  toast(words.deleted(items));
  await afterwards();
}

async function chosenItems() {
  return everything === null ? [...grid.selection] : api.allItems(query({ limit: 1000 }));
}

/** Show what came of a change: of some items in their place, else by asking anew. */
async function afterwards(items = null) {
  if (items) {
    grid.refresh(items);
    drawMonthsSoon();
  } else if (here().view === "browse") await reload();
  else stale = true;
  await refreshNames();
}

async function exportTable() {
  try {
    save(words.tableName, table(await chosenItems()));
  } catch (error) {
    toast(error.message);
  }
}

const COLUMNS = ["item_id", "source", "label", "camera", "site", "captured_at", "viewpoint", "origin", "key", "media"];

function table(items) {
  const rows = items.map((item) => COLUMNS.map((name) => quoted(item[name] ?? "")).join(","));
  return [COLUMNS.join(","), ...rows, ""].join("\r\n");
}

function quoted(value) {
  // As `reid.data.cells` writes them, for a spreadsheet would compute some.
  const formula = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(value) && !/^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(value);
  const text = formula ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
