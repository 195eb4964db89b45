/** Photos that people put together, in an order, with notes, to look at again, to print and to pass on. */

import * as api from "../api.js";
import { count, time } from "../format.js";
import { address, go, here } from "../router.js";
import { may } from "../session.js";
import { toast } from "../toasts.js";
import { html, render } from "../vendor/preact.js";
import { shortlists as words } from "../words.js";

let place;
let lists = [];
let shown = null; // the one of the address, with its entries
let changing = Promise.resolve();

/** @type {import("../router.js").View} */
export const shortlists = { name: "shortlists", title: words.title, section: "photos", start, show };

function start(container) {
  place = container;
}

async function show({ parts }) {
  try {
    lists = await api.shortlists();
    shown = parts[0] ? await api.shortlist(parts[0]) : null;
    draw();
  } catch (error) {
    toast(error.message);
    if (parts[0]) go(address("shortlists"));
  }
}

function draw() {
  render(shown ? html`<${One} key=${shown.shortlist_id} list=${shown} />` : html`<${All} />`, place);
}

/** Do something, say what went wrong, and show what is there by now. */
async function act(work) {
  try {
    await work();
  } catch (error) {
    toast(error.message);
  }
  if (here().view === "shortlists") await show(here());
}

/** Change the list that is shown, once what was changed before is answered: `make` is given the list as it is then. */
function change(make) {
  changing = changing.then(async () => {
    try {
      shown = await api.editShortlist(shown.shortlist_id, make(shown));
      draw();
    } catch (error) {
      toast(error.message);
      await show(here());
    }
  });
}

function say(notes) {
  change(() => ({ notes }));
}

function put(make) {
  change((now) => ({ entries: make(now.entries).map(({ item, note }) => ({ item_id: item.item_id, note })) }));
}

function All() {
  const create = (event) => {
    event.preventDefault();
    const { name } = event.target.elements;
    act(async () => {
      await api.createShortlist({ name: name.value.trim() });
      event.target.reset();
    });
  };
  return html`
    <h2>${words.title}</h2>
    ${may("write") && html`
      <form class="row" onSubmit=${create}>
        <label class="row">${words.name} <input name="name" required maxlength="200" autocomplete="off" /></label>
        <button type="submit" class="primary">${words.create}</button>
      </form>
    `}
    ${lists.length === 0 ? html`<p>${words.none}</p>` : null}
    <ul class="files">
      ${lists.map((list) => html`
        <li key=${list.shortlist_id}>
          <a href=${address("shortlists", [list.shortlist_id])}>${list.name}</a>
          ${" "}<span>${count(list.items, "photo")}, ${time(list.changed_at)}</span>
        </li>
      `)}
    </ul>
  `;
}

function One({ list }) {
  const id = list.shortlist_id;
  const remove = async () => {
    if (!confirm(words.sure(list.name))) return;
    try {
      await api.deleteShortlist(id);
      go(address("shortlists"));
    } catch (error) {
      toast(error.message);
    }
  };
  return html`
    <p class="unprinted"><a href=${address("shortlists")}>${words.all}</a></p>
    <h2>${list.name}</h2>
    <div class="row unprinted">
      <button type="button" onClick=${() => print()}>${words.print}</button>
      <a href=${api.shortlistUrl(id, "report")} download>${words.report}</a>
      <a href=${api.shortlistUrl(id, "table")} download>${words.table}</a>
      ${may("write") && html`<button type="button" class="danger" onClick=${remove}>${words.delete}</button>`}
    </div>
    ${may("write")
      ? html`<label class="notes">${words.notes}
          <textarea rows="3" maxlength="10000" value=${list.notes} onChange=${(event) => say(event.target.value)}></textarea>
        </label>`
      : html`<p>${list.notes}</p>`}
    ${list.entries.length === 0 ? html`<p>${words.empty}</p>` : null}
    <ol class="listed" aria-label=${words.photos}>
      ${list.entries.map((entry, number) => html`
        <${Entry} key=${entry.item.item_id} entry=${entry} number=${number} last=${number === list.entries.length - 1} />
      `)}
    </ol>
  `;
}

function Entry({ entry: { item, note }, number, last }) {
  const name = item.label ?? item.source;
  const place = (entries) => entries.findIndex((one) => one.item.item_id === item.item_id);
  const drop = () => put((entries) => entries.toSpliced(place(entries), 1));
  const move = (by) => put((entries) => {
    const from = place(entries);
    return entries.toSpliced(from, 1).toSpliced(from + by, 0, entries[from]);
  });
  const annotate = (text) => put((entries) => entries.with(place(entries), { item, note: text }));
  return html`
    <li>
      <img src=${api.thumbnailUrl(item.item_id)} alt=${words.photoOf(name)} loading="lazy" />
      <div>
        <p><b>${number + 1}. ${name}</b></p>
        <p>${[item.camera, item.site, item.captured_at && time(item.captured_at)].filter((part) => part).join(", ")}</p>
        ${may("write")
          ? html`<label class="notes">${words.note}
              <input value=${note} maxlength="10000" autocomplete="off" onChange=${(event) => annotate(event.target.value)} />
            </label>
            <div class="row unprinted">
              <button type="button" disabled=${number === 0} onClick=${() => move(-1)}>${words.up}</button>
              <button type="button" disabled=${last} onClick=${() => move(1)}>${words.down}</button>
              <button type="button" onClick=${drop}>${words.drop}</button>
            </div>`
          : html`<p>${note}</p>`}
      </div>
    </li>
  `;
}
