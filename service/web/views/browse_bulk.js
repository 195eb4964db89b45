/** What can be done to many photos at once. */

import { html, useState } from "../vendor/preact.js";
import { browse as words } from "../words.js";

const NAMES = ["label", "camera", "site"];

/** The bar that is there while photos are selected; `act` is called with what to do to them. */
export function BulkBar({ count: chosen, all, few, mayWrite, act, selectAll, clear, export_ }) {
  if (chosen === 0) return null;
  return html`
    <div class="bulk" role="region" aria-label=${words.selection}>
      <p role="status">${all ? words.allSelected(chosen) : words.selected(chosen)}</p>
      ${all || few ? null : html`<button type="button" onClick=${selectAll}>${words.selectAll}</button>`}
      ${mayWrite ? html`<${Change} act=${act} />` : null}
      ${mayWrite ? html`<button type="button" onClick=${() => act({ shortlist: true })}>${words.addTo}</button>` : null}
      <button type="button" onClick=${export_}>${words.export}</button>
      ${mayWrite ? html`<button type="button" class="danger" onClick=${() => act({ delete: true })}>${words.delete}</button>` : null}
      <button type="button" onClick=${clear}>${words.clear}</button>
    </div>
  `;
}

/** One field and its new value, or by how much the times are moved. */
function Change({ act }) {
  const [what, choose] = useState("label");
  const [value, say] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (what !== "shift") return act({ changes: { [what]: value.trim() || null } });
    const seconds = secondsOf(value);
    if (seconds !== null) act({ shift_seconds: seconds });
  };
  const wrong = what === "shift" && value !== "" && secondsOf(value) === null;
  return html`
    <form class="row" onSubmit=${submit}>
      <select aria-label=${words.change} value=${what} onChange=${(event) => choose(event.target.value)}>
        ${[...NAMES, "shift"].map((name) => html`<option value=${name}>${words.changes[name]}</option>`)}
      </select>
      <input aria-label=${words.changes[what]} value=${value} autocomplete="off" maxlength="200"
        list=${{ label: "label-names", camera: "camera-names" }[what]} aria-invalid=${String(wrong)}
        placeholder=${what === "shift" ? words.shiftForm : words.nothing} onInput=${(event) => say(event.target.value)} />
      <button type="submit" class="primary" disabled=${what === "shift" && !secondsOf(value)}>${words.apply}</button>
    </form>
  `;
}

/** "+1:30", "-0:00:05" or "2:00" in seconds, of hours, minutes and maybe seconds; null for what is neither. */
export function secondsOf(text) {
  const parts = text.trim().match(/^([+-]?)(\d{1,5}):([0-5]\d)(?::([0-5]\d))?$/);
  if (!parts) return null;
  const [, sign, hours, minutes, seconds = "0"] = parts;
  return (sign === "-" ? -1 : 1) * (3600 * Number(hours) + 60 * Number(minutes) + Number(seconds));
}
