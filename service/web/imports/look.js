/** A look at what was sent, before it is enrolled: how its table is read, and what only people know. */

import * as api from "../api/imports.js";
import { count, integer } from "../format.js";
import { may } from "../session.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";
import { fieldName, few, understood } from "./saying.js";
import { Columns, Dates, Tables } from "./table.js";
import { Zone } from "./zone.js";

export function Look({ one, act }) {
  const [seen, see] = useState(null);
  const [problem, refuse] = useState("");
  const wanted = JSON.stringify([one.settings, one.files]);
  useEffect(() => {
    api.preview(one.import_id).then(
      (found) => {
        see(found);
        refuse("");
      },
      (error) => error.status !== 409 && refuse(error.message), // it was begun meanwhile, which is seen soon
    );
  }, [one.import_id, wanted]);
  const change = (settings) => act(() => api.editImport(one.import_id, settings));
  if (problem) return html`<p class="problem" role="alert">${problem}</p>`;
  if (seen === null) return html`<p role="status">${words.looking}</p>`;
  const choosing = { one, seen, change };
  const zoned = seen.needs.includes("timezone") || seen.zoneless > 0 || one.settings.timezone !== null;
  return html`
    ${may("write") ? html`<${Begin} one=${one} seen=${seen} act=${act} />` : null}
    <${Found} seen=${seen} />
    ${seen.problems.map((text) => html`<p class="problem" key=${text}>${text}</p>`)}
    ${seen.unusable.map(({ name, detail }) => html`
      <p class="problem row" key=${name}>
        <span><b>${name}</b> ${detail}</span>
        ${may("write") ? html`
          <button type="button" onClick=${() => act(() => api.removeFile(one.import_id, name))}>${words.removeFile(name)}</button>
        ` : null}
      </p>
    `)}
    ${may("write") ? html`
      ${seen.changed > 0 ? html`<${Update} ...${choosing} />` : null}
      ${seen.tables.length > 0 ? html`<${Tables} ...${choosing} />` : null}
      ${seen.needs.includes("columns") ? html`<p class="problem">${words.whichColumn}</p>` : null}
      ${seen.columns.length > 0 ? html`<${Columns} key=${seen.table} ...${choosing} />` : null}
      ${seen.needs.includes("dates") || one.settings.dates !== null ? html`<${Dates} ...${choosing} />` : null}
      ${zoned ? html`<${Zone} ...${choosing} />` : null}
      <${Cameras} ...${choosing} />
    ` : null}
  `;
}

/** The button that starts it, above all that changes its length, and what has to be said before. */
function Begin({ one, seen, act }) {
  const came = seen.photos - seen.missing - seen.ambiguous;
  const fresh = Math.max(0, came - seen.there - seen.twice);
  const updated = one.settings.update ? seen.changed : 0;
  const first = [
    ...seen.needs.map((need) => words.first[need]),
    ...(seen.unusable.length > 0 ? [words.first.unusable] : []),
    ...(seen.changed > 0 && one.settings.update === null ? [words.first.update] : []),
  ];
  const ready = first.length === 0 && seen.problems.length === 0 && came > 0;
  const run = one.state === "receiving" ? api.startImport : api.retryImport; // which a job could not read
  const added = fresh > 0 ? count(fresh, "photo") : "";
  const name = came === 0 ? words.start("photos", 0) : added || updated > 0 ? words.start(added, updated)
    : seen.changed > 0 ? words.finish : words.nothingNew;
  return html`
    <p class="row begin">
      <button type="button" class="primary" disabled=${!ready} onClick=${() => act(() => run(one.import_id))}>${name}</button>
      <span role="status">${first.length > 0 ? words.sayFirst(first.join(", ")) : ""}</span>
    </p>
  `;
}

function Found({ seen }) {
  const kinds = Object.entries(seen.left_out).map(([kind, files]) => `${integer(files)} ${kind}`);
  const came = seen.photos - seen.missing - seen.ambiguous;
  const lines = [
    understood(seen.understood),
    words.found(count(came, "photo"), seen.labels > 0 ? count(seen.labels, "name") : ""),
    seen.cameras.length > 0 ? words.ofCameras(seen.cameras.slice(0, 8).join(", "), seen.cameras.length - 8) : "",
    seen.there > 0 ? words.there(count(seen.there, "photo"), seen.changed) : "",
    seen.twice > 0 ? words.twice(count(seen.twice, "photo")) : "",
    seen.missing > 0 ? words.lost(count(seen.missing, "photo"), few(seen.missing_names, seen.missing)) : "",
    seen.ambiguous > 0 ? words.alike(count(seen.ambiguous, "photo"), few(seen.ambiguous_names, seen.ambiguous)) : "",
    seen.unlisted > 0 ? words.unlisted(count(seen.unlisted, "photo")) : "",
    kinds.length > 0 ? words.leftOut(kinds.join(", ")) : "",
  ];
  return html`<ul class="files" aria-label=${words.whatCame}>
    ${lines.filter((line) => line).map((line) => html`<li key=${line}>${line}</li>`)}
  </ul>`;
}

/** What becomes of photos that are in the gallery, of which something else is said here. */
function Update({ one, seen, change }) {
  const fields = Object.entries(seen.changes).map(([name, photos]) => words.ofField(fieldName(name), integer(photos)));
  return html`
    <fieldset>
      <legend>${words.differs(count(seen.there, "photo"), integer(seen.changed), fields.join(", "))}</legend>
      ${[false, true].map((update) => html`
        <label class="check" key=${update}>
          <input type="radio" name="import-update" checked=${one.settings.update === update} onChange=${() => change({ update })} />
          ${" "}${words.updates[String(update)]}
        </label>
      `)}
    </fieldset>
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
