/** A look at what was sent, before it is enrolled: how its table is read, and what only people know. */

import * as api from "../api/imports.js";
import { count, integer, ZONE } from "../format.js";
import { may } from "../session.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";

export function Look({ one, act }) {
  const [seen, see] = useState(null);
  const [problem, refuse] = useState("");
  const wanted = JSON.stringify(one.settings);
  useEffect(() => {
    api.preview(one.import_id).then(
      (found) => {
        see(found);
        refuse("");
      },
      (error) => refuse(error.message),
    );
  }, [one.import_id, wanted]);
  const change = (settings) => act(() => api.editImport(one.import_id, settings));
  if (problem) return html`<p class="problem" role="alert">${problem}</p>`;
  if (seen === null) return html`<p role="status">${words.looking}</p>`;
  const ready = seen.needs.length === 0 && seen.problems.length === 0 && seen.photos > seen.missing;
  const choosing = { one, seen, change };
  return html`
    <${Found} seen=${seen} />
    ${seen.problems.map((text) => html`<p class="problem" key=${text}>${text}</p>`)}
    ${may("write") ? html`
      ${seen.tables.length > 0 ? html`<${Tables} ...${choosing} />` : null}
      ${seen.needs.includes("columns") ? html`<p class="problem">${words.whichColumn}</p>` : null}
      ${seen.columns.length > 0 ? html`<${Columns} key=${seen.table} ...${choosing} />` : null}
      ${seen.needs.includes("dates") ? html`<${Dates} change=${change} />` : null}
      ${seen.needs.includes("timezone") || seen.zoneless > 0 ? html`<${Zone} ...${choosing} />` : null}
      <${Cameras} ...${choosing} />
      <p><button type="button" class="primary" disabled=${!ready}
        onClick=${() => act(() => api.startImport(one.import_id))}>${words.start(count(seen.photos - seen.missing, "photo"))}</button></p>
    ` : null}
  `;
}

function Found({ seen }) {
  const kinds = Object.entries(seen.left_out).map(([kind, files]) => `${integer(files)} ${kind}`);
  const lines = [
    seen.understood,
    words.found(count(seen.photos - seen.missing, "photo"), seen.labels > 0 ? count(seen.labels, "name") : ""),
    seen.cameras.length > 0 ? words.ofCameras(seen.cameras.slice(0, 8).join(", "), seen.cameras.length - 8) : "",
    seen.missing > 0 ? words.lost(count(seen.missing, "photo"), seen.missing_names.slice(0, 5).join(", ")) : "",
    seen.unlisted > 0 ? words.unlisted(count(seen.unlisted, "photo")) : "",
    kinds.length > 0 ? words.leftOut(kinds.join(", ")) : "",
  ];
  return html`<ul class="files" aria-label=${words.whatCame}>
    ${lines.filter((line) => line).map((line) => html`<li key=${line}>${line}</li>`)}
  </ul>`;
}

function Tables({ one, seen, change }) {
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

function Columns({ one, seen, change }) {
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
                  <option value="">${words.attribute}</option>
                  ${seen.fields.map((name) => html`<option key=${name} value=${name}>${words.fields[name] ?? name}</option>`)}
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

function Dates({ change }) {
  return html`
    <fieldset class="row">
      <legend>${words.dates}</legend>
      ${Object.entries(words.dateOrders).map(([order, name]) => html`
        <button type="button" key=${order} onClick=${() => change({ dates: order })}>${name}</button>
      `)}
    </fieldset>
  `;
}

function Zone({ seen, change }) {
  const say = (event) => {
    event.preventDefault();
    change({ timezone: event.target.elements.zone.value.trim() });
  };
  const zones = /** @type {any} */ (Intl).supportedValuesOf?.("timeZone") ?? [];
  return html`
    <form class="asked" onSubmit=${say}>
      <label for="import-zone">${seen.zoneless > 0 ? words.zoneless(integer(seen.zoneless), count(seen.looked_at, "photo")) : words.zone}</label>
      <div class="row">
        <input id="import-zone" name="zone" list="import-zones" required value=${ZONE} autocomplete="off" />
        <datalist id="import-zones">${zones.map((name) => html`<option key=${name} value=${name}></option>`)}</datalist>
        <button type="submit">${words.sayZone}</button>
      </div>
    </form>
  `;
}

function Cameras({ one, change }) {
  return html`
    <label class="asked">${words.cameraFrom}
      <select value=${one.settings.camera_from ?? ""} onChange=${(event) => change({ camera_from: event.target.value || null })}>
        ${Object.entries(words.camerasFrom).map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
      </select>
    </label>
  `;
}
