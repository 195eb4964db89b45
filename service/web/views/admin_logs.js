/** Who changed what, and who asked for what. */

import * as api from "../api.js";
import { timeInFull, toApiTime } from "../format.js";
import { toast } from "../toasts.js";
import { html, useState } from "../vendor/preact.js";
import { admin as words } from "../words.js";

const ENTRIES = "100";

/** The newest entries of a log that pass what the form asks. */
export function Logs() {
  const [entries, found] = useState(null);
  const ask = async (event) => {
    event.preventDefault();
    const { log, actor, from } = event.target.elements;
    const fields = new URLSearchParams({ limit: ENTRIES });
    if (actor.value.trim()) fields.set("actor", actor.value.trim());
    if (from.value) fields.set("from", toApiTime(from.value));
    try {
      found(await (log.value === "queries" ? searches(fields) : api.operations(fields)));
    } catch (error) {
      toast(error.message);
    }
  };
  return html`
    <section aria-labelledby="admin-logs">
      <h3 id="admin-logs">${words.logs}</h3>
      <form class="filters" onSubmit=${ask}>
        <label>${words.what}
          <select name="log">
            ${Object.entries(words.log).map(([name, told]) => html`<option value=${name}>${told}</option>`)}
          </select>
        </label>
        <label>${words.by} <input name="actor" maxlength="200" autocomplete="off" /></label>
        <label>${words.since} <input type="datetime-local" name="from" /></label>
        <button type="submit">${words.show}</button>
      </form>
      <p role="status">${entries && words.found(entries.length)}</p>
      ${entries?.length > 0 ? html`<${Table} entries=${entries} />` : null}
    </section>
  `;
}

/** Logged searches in the fields of changes. */
async function searches(fields) {
  const logged = await api.loggedQueries(fields);
  return logged.map((one) => ({ ...one, kind: "query", target: one.item_id ?? one.images.join(" ") }));
}

function Table({ entries }) {
  return html`
    <div class="wide" tabindex="0" role="region" aria-label=${words.tableOf(words.logs)}>
      <table>
        <thead><tr>${Object.values(words.entry).map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>
          ${entries.map(({ seq, time, actor, kind, target }) => html`
            <tr key=${seq}><td>${timeInFull(time)}</td><td>${actor}</td><td>${kind}</td><td><code>${target}</code></td></tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}
