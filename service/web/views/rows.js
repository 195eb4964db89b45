/** Several photos, each searched for by itself: a row each, with the best suggestion and what to do about it. */

import * as api from "../api.js";
import { decide } from "../api/review.js";
import { getSubject } from "../api/subjects.js";
import { adopt } from "../adopting.js";
import { count, percent, verdict } from "../format.js";
import { address, go, here, rename } from "../router.js";
import { may } from "../session.js";
import { keep } from "../subject.js";
import { html, render } from "../vendor/preact.js";
import { rows as words } from "../words.js";

/** @typedef {{name: string, kept?: any, answer?: any, problem?: string, done?: string, busy?: boolean}} Row */

let place;
/** @type {Row[]} */
let rows = [];
let pending = Date.now(); // as that of Search

/** @type {import("../router.js").View} */
export const rowsView = { name: "rows", title: words.title, section: null, start, show };

function start(container) {
  place = container;
}

/** Search for each of some files by itself. */
export async function searchRows(files) {
  pending += 1;
  const mine = files.map((file) => ({ name: file.name }));
  rows = mine;
  go(address("rows"), { pending });
  draw();
  for (const [number, row] of mine.entries()) {
    if (rows !== mine) return; // other photos came
    await fill(row, async () => {
      row.kept = await keep([files[number]], {});
      name();
    });
  }
}

/** Show the subjects that the address names. */
async function show({ fields, state }) {
  if (state?.pending === pending) {
    name(); // of those that were kept while another view was shown
    return;
  }
  pending += 1;
  const mine = fields.getAll("subject_id").map((id) => rows.find((row) => row.kept?.subject_id === id) ?? { name: id });
  rows = mine;
  draw();
  for (const row of mine.filter((one) => !one.kept)) {
    await fill(row, async () => {
      row.kept = await getSubject(row.name);
      row.name = row.kept.photos[0].filename;
    });
  }
}

function name() {
  if (here().view !== "rows") return;
  const fields = new URLSearchParams(rows.filter((row) => row.kept).map((row) => ["subject_id", row.kept.subject_id]));
  rename(address("rows", [], fields));
}

async function fill(row, prepare) {
  try {
    await prepare();
    const form = new FormData();
    form.set("subject_id", row.kept.subject_id);
    form.set("top_k", "1");
    row.answer = await api.query(form);
  } catch (error) {
    row.problem = error.message;
  }
  draw();
}

/** Do something about a row; what was done is told in its place. */
async function settle(row, work, told) {
  row.busy = true;
  draw();
  try {
    await work();
    row.done = told;
    row.problem = undefined;
  } catch (error) {
    row.problem = error.message;
  }
  row.busy = false;
  draw();
  focusNext(row);
}

const ACTIONS = {
  a: (row) => {
    const [best] = row.answer.matches;
    if (best) settle(row, () => accept(row, best), words.accepted(best.label));
  },
  n: (row) => settle(row, () => adopt({ kept: row.kept }, {}), words.isNew),
  s: (row) => settle(row, async () => {}, words.skipped),
};

async function accept(row, best) {
  const items = await adopt({ kept: row.kept }, {});
  if (items.length === 0) throw new Error(words.notAdded);
  await decide(items.map((item) => ({ a: item.item_id, b: best.item_id, answer: "same" })));
}

function focusNext(row) {
  const open = rows.filter((one) => isOpen(one));
  const next = open.find((one) => rows.indexOf(one) > rows.indexOf(row)) ?? open[0];
  place.querySelectorAll("[data-row]")[rows.indexOf(next)]?.focus();
}

function isOpen(row) {
  return Boolean(row.answer) && !row.done && !row.busy;
}

function press(event, row) {
  const all = [...place.querySelectorAll("[data-row]")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) all[all.indexOf(event.currentTarget) + step]?.focus();
  else if (event.key in ACTIONS && isOpen(row) && may("write") && !event.ctrlKey && !event.metaKey) ACTIONS[event.key](row);
  else return;
  event.preventDefault();
}

function draw() {
  render(html`<${Rows} />`, place);
}

function Rows() {
  const left = rows.filter((row) => !row.done && !row.problem).length;
  return html`
    <h2>${words.title}</h2>
    <p role="status">${rows.length === 0 ? words.nothing : words.left(count(rows.length, "photo"), left)}</p>
    ${may("write") ? html`<p class="note">${words.keys}</p>` : html`<p class="note">${words.readOnly}</p>`}
    <ol class="rows">
      ${rows.map((row) => html`<li key=${row.name} tabindex="0" data-row onKeyDown=${(event) => press(event, row)}><${One} row=${row} /></li>`)}
    </ol>
  `;
}

function One({ row }) {
  const best = row.answer?.matches[0];
  return html`
    <figure>${row.kept && html`<img src=${row.kept.photos[0].image_url} alt=${words.photo(row.name)} />`}
      <figcaption>${row.name}</figcaption></figure>
    <figure>${best && html`<img src=${api.thumbnailUrl(best.item_id)} alt=${words.suggested(best.label)} />`}
      <figcaption>${best ? (best.label ?? words.unnamed) : ""}</figcaption></figure>
    <div class="told">
      <p>${row.problem ?? row.done ?? (row.answer ? saying(row.answer) : words.waiting)}</p>
      ${isOpen(row) && may("write") && html`<div class="row">
        ${best && html`<button type="button" class="primary" onClick=${() => ACTIONS.a(row)}>${words.accept}</button>`}
        <button type="button" onClick=${() => ACTIONS.n(row)}>${words.new}</button>
        <button type="button" onClick=${() => ACTIONS.s(row)}>${words.skip}</button></div>`}
      ${row.kept && html`<a href=${address("search", [], new URLSearchParams({ subject_id: row.kept.subject_id }))}>${words.more}</a>`}
    </div>
  `;
}

function saying(answer) {
  const [best] = answer.matches;
  if (!best) return words.none;
  const chance = best.probability === null ? words.score(best.score.toFixed(3)) : percent(best.probability);
  return `${chance} ${verdict(answer)}`;
}
