/** What is said of a table before it is read: which it is, what its columns are, and how its dates are meant. */

import { html, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";
import { fieldName } from "./saying.js";

export function Tables({ one, seen, change }) {
  const chosen = one.settings.table ?? seen.table ?? "?";
  return html`
    <label class="asked">${words.table}
      <select value=${chosen} onChange=${(event) => change({ table: event.target.value, columns: {} })}>
        ${chosen === "?" ? html`<option value="?">${words.choose}</option>` : null}
        ${seen.tables.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        <option value="">${words.noTable}</option>
      </select>
    </label>
  `;
}

export function Columns({ one, seen, change }) {
  const [said, keep] = useState({}); // by heading; what was said before is seen only once the service answers
  const taken = { ...Object.fromEntries(seen.columns.map((column) => [column.heading, column.taken_for])), ...said };
  const say = (heading, name) => {
    const cleared = Object.keys(taken).filter((other) => name !== "" && taken[other] === name).map((other) => [other, ""]);
    const now = { ...taken, ...Object.fromEntries(cleared), [heading]: name };
    keep(now);
    const headings = Object.fromEntries(Object.entries(now).filter(([, is]) => is !== "").map(([other, is]) => [is, other]));
    const before = [...Object.keys(one.settings.columns), ...Object.values(taken)];
    const none = Object.fromEntries(before.filter((is) => is !== "" && !(is in headings)).map((is) => [is, ""]));
    change({ columns: { ...none, ...headings } });
  };
  return html`
    <div class="wide" tabindex="0" role="region" aria-label=${words.columns}>
      <table>
        <caption class="unseen">${words.columns}</caption>
        <thead><tr>${seen.columns.map(({ heading }) => html`<th scope="col" key=${heading}>${heading}</th>`)}</tr></thead>
        <tbody>
          <tr>
            ${seen.columns.map(({ heading }) => html`
              <td key=${heading}>
                <select aria-label=${words.takenFor(heading)} value=${taken[heading]} onChange=${(event) => say(heading, event.target.value)}>
                  <option value="">${seen.fields.includes(heading) || heading === "label" ? words.leftOutColumn : words.attribute}</option>
                  ${seen.fields.map((name) => html`<option key=${name} value=${name}>${fieldName(name)}</option>`)}
                </select>
              </td>
            `)}
          </tr>
          ${(seen.columns[0]?.samples ?? []).map((_, row) => html`
            <tr key=${row}>${seen.columns.map(({ heading, samples }) => html`<td key=${heading}>${samples[row]}</td>`)}</tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}

export function Dates({ one, change }) {
  return html`
    <fieldset class="row">
      <legend>${words.dates}</legend>
      ${Object.entries(words.dateOrders).map(([order, name]) => html`
        <button type="button" key=${order} aria-pressed=${String(one.settings.dates === order)}
          onClick=${() => change({ dates: order })}>${name}</button>
      `)}
    </fieldset>
  `;
}
