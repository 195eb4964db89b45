/** Imports: files, folders, archives and tables are sent, looked at, and enrolled, whatever becomes of the tab. */

import { count, time, ZONE } from "../format.js";
import { One } from "../imports/one.js";
import { sending } from "../imports/sending.js";
import { choose, Inputs } from "../imports/taking.js";
import { known, look, watched } from "../imports/watching.js";
import { address, here } from "../router.js";
import { may } from "../session.js";
import { html, render } from "../vendor/preact.js";
import { imports as words } from "../words.js";

let place;

/** @type {import("../router.js").View} */
export const imports = { name: "imports", title: words.title, section: "photos", start, show };

function start(container) {
  place = container;
  for (const source of [sending, watched]) source.addEventListener("changed", drawIfShown);
}

function show() {
  draw();
  look();
}

function drawIfShown() {
  if (here().view === "imports") draw();
}

function draw() {
  const [importId] = here().parts;
  render(importId ? html`<${One} key=${importId} importId=${importId} />` : html`<${All} />`, place);
}

function All() {
  return html`
    <h2>${words.add}</h2>
    ${may("write") ? html`<${Form} />` : html`<p class="problem">${words.mayNot}</p>`}
    <${Inputs} />
    <h3>${words.all}</h3>
    ${known().length === 0 ? html`<p>${words.none}</p>` : null}
    <ul class="files">
      ${known().map((one) => html`
        <li key=${one.import_id}>
          <a href=${address("imports", [one.import_id])}>${one.settings.name || words.noName}</a>
          ${" "}<span>${words.states[one.state]}, ${count(one.files, "file")}, ${time(one.created_at)}</span>
        </li>
      `)}
    </ul>
  `;
}

function Form() {
  return html`
    <form class="said" aria-label=${words.forAll} onSubmit=${(event) => event.preventDefault()}>
      <p class="hint wide-hint">${words.forAllHint}</p>
      <label>${words.camera} <input name="camera" list="camera-names" maxlength="200" autocomplete="off" /></label>
      <label>${words.cameraFrom}
        <select name="camera_from">
          ${Object.entries(words.camerasFrom).map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
        </select>
      </label>
      <label>${words.label} <input name="label" list="label-names" maxlength="200" autocomplete="off" /></label>
      <label>${words.site} <input name="site" maxlength="200" autocomplete="off" /></label>
      <label><span>${words.time} <span class="zone">(${ZONE})</span></span>
        <input type="datetime-local" name="captured_at" step="1" /></label>
    </form>
    <div class="drop">
      <div class="row">
        <button type="button" class="primary" onClick=${() => choose(false)}>${words.chooseFiles}</button>
        <button type="button" onClick=${() => choose(true)}>${words.chooseFolder}</button>
      </div>
      <p>${words.dropHint}</p>
    </div>
  `;
}
