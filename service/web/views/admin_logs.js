/** Who changed what, and who asked for what. */

import * as api from "../api.js";
import { written } from "../dom.js";
import { timeInFull, toApiTime } from "../format.js";
import { toast } from "../toasts.js";
import { html, useState } from "../vendor/preact.js";
import { admin as words } from "../words.js";

const ENTRIES = "100";

/** The newest entries of a log that pass what the form asks, and further ones. */
export function Logs() {
  const [found, show] = useState(null); // entries, what was asked, and where to go on
  const look = async (log, fields, before = []) => {
    try {
      const page = await (log === "queries" ? api.loggedQueries(fields) : api.operations(fields));
      show({ log, fields, entries: [...before, ...rows(log, page)], next: page.next_cursor });
    } catch (error) {
      toast(error.message);
    }
  };
  const ask = (event) => {
    event.preventDefault();
    const { log, fields } = wanted(event.target);
    look(log, fields);
  };
  const more = () => {
    const fields = new URLSearchParams(found.fields);
    fields.set("cursor", found.next);
    look(found.log, fields, found.entries);
  };
  return html`
    <section aria-labelledby="admin-logs">
      <h3 id="admin-logs">${words.logs}</h3>
      <${Form} ask=${ask} />
      <p role="status">${found && words.found(found.entries.length, found.next !== null)}</p>
      ${found?.entries.length > 0 ? html`<${Table} entries=${found.entries} />` : null}
      ${found?.next ? html`<p><button type="button" onClick=${more}>${words.more}</button></p>` : null}
    </section>
  `;
}

function Form({ ask }) {
  const [log, choose] = useState("changes");
  return html`
    <form class="filters" onSubmit=${ask}>
      <label>${words.what}
        <select name="log" value=${log} onChange=${(event) => choose(event.target.value)}>
          ${Object.entries(words.log).map(([name, told]) => html`<option value=${name}>${told}</option>`)}
        </select>
      </label>
      <label>${words.kind}
        <input name="kind" maxlength="200" autocomplete="off" list="admin-kinds" disabled=${log === "queries"} />
      </label>
      <datalist id="admin-kinds">${words.kinds.map((kind) => html`<option value=${kind}></option>`)}</datalist>
      <label>${words.by} <input name="actor" maxlength="200" autocomplete="off" /></label>
      <label>${words.since} <input type="datetime-local" name="from" /></label>
      <label>${words.until} <input type="datetime-local" name="to" /></label>
      <button type="submit">${words.show}</button>
    </form>
  `;
}

/** Which log a form asks for, and the fields of the API; a disabled field asks for nothing. */
function wanted(form) {
  const fields = new URLSearchParams({ limit: ENTRIES });
  for (const name of ["actor", "kind"]) {
    if (written(form, name)) fields.set(name, written(form, name));
  }
  for (const name of ["from", "to"]) {
    if (written(form, name)) fields.set(name, toApiTime(written(form, name)));
  }
  return { log: form.elements.log.value, fields };
}

/** The entries of a page, searches in the fields of changes. */
function rows(log, page) {
  if (log !== "queries") return page.operations;
  return page.queries.map((one) => ({ ...one, kind: "query", target: one.item_id ?? one.images.join(" ") }));
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
