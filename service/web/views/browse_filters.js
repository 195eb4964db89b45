/** What of all photos is shown: by label, camera and order, and by the months in which they were taken. */

import { count } from "../format.js";
import { IMPORT } from "../filters.js";
import { html } from "../vendor/preact.js";
import { browse as words } from "../words.js";

/** The filters in one row. `change(name, values)` gives one another value. */
export function FilterBar({ fields, change }) {
  const named = fields.get("named") ?? "";
  const set = (name) => (event) => change(name, event.target.value ? [event.target.value] : []);
  return html`
    <form class="filters" aria-label=${words.filters} onSubmit=${(event) => event.preventDefault()}>
      <label>${words.camera}
        <input list="camera-names" autocomplete="off" value=${fields.get("cameras") ?? ""} onChange=${set("cameras")} />
      </label>
      <label>${words.label}
        <input list="label-names" autocomplete="off" value=${fields.get("labels") ?? ""} onChange=${set("labels")} />
      </label>
      <label>${words.names}
        <select value=${named} onChange=${set("named")}>
          <option value="" selected=${named === ""}>${words.all}</option>
          <option value="false" selected=${named === "false"}>${words.unnamed}</option>
          <option value="true" selected=${named === "true"}>${words.named}</option>
        </select>
      </label>
      <label>${words.order}
        <select onChange=${set("order")}>
          <option value="" selected=${!fields.has("order")}>${words.newest}</option>
          <option value="oldest" selected=${fields.get("order") === "oldest"}>${words.oldest}</option>
        </select>
      </label>
      ${[IMPORT, "media"].filter((name) => fields.has(name)).map((name) => html`
        <p class="row only" key=${name}>${words.only[name]}
          <button type="button" onClick=${() => change(name, [])}>${words.showAll}</button></p>`)}
    </form>
  `;
}

/** A strip of months, as high as they have photos; one that is pressed leaves its photos alone. */
export function Months({ days, fields, change }) {
  const months = new Map();
  for (const { day, items } of days) months.set(day.slice(0, 7), (months.get(day.slice(0, 7)) ?? 0) + items);
  if (months.size === 0) return null;
  const most = Math.max(...months.values());
  return html`
    <ol class="months" aria-label=${words.months}>
      ${[...months].map(([month, items]) => {
        const [from, to] = bounds(month);
        const pressed = fields.get("from") === from && fields.get("to") === to;
        return html`
          <li key=${month}>
            <button type="button" aria-pressed=${String(pressed)} title=${count(items, "photo")}
              onClick=${() => (pressed ? change(null, null) : change(from, to))}>
              <meter min="0" max=${most} value=${items} aria-hidden="true"></meter>
              ${month} <small>${items.toLocaleString("en")}</small>
            </button>
          </li>
        `;
      })}
    </ol>
  `;
}

/** The first moment of a month, in UTC as days are counted, and that of the next. */
function bounds(month) {
  const [year, number] = month.split("-").map(Number);
  return [new Date(Date.UTC(year, number - 1)), new Date(Date.UTC(year, number))].map((time) => time.toISOString());
}
