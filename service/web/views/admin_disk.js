/** The room on the disk, and what takes it. */

import { count, integer, size } from "../format.js";
import { html } from "../vendor/preact.js";
import { admin as words } from "../words.js";

/** What the service tells of its disk; null until it has told. */
export function Disk({ disk }) {
  return html`
    <section aria-labelledby="admin-disk">
      <h3 id="admin-disk">${words.disk}</h3>
      ${disk === null ? html`<p role="status">${words.looking}</p>` : html`<${Told} ...${disk} />`}
    </section>
  `;
}

function Told({ free, total, warning, room_for: more, parts, within_database: within }) {
  return html`
    ${warning && html`<p class="problem" role="alert">${words.nearlyFull(warning)}</p>`}
    <p class="progress">
      <label for="disk-used">${words.free(size(free), size(total))}</label>
      <meter id="disk-used" min="0" max=${total} high=${0.95 * total} value=${total - free}></meter>
    </p>
    ${more !== null && html`<p>${words.roomFor(count(more, "photo"))}</p>`}
    <table>
      <thead><tr>${Object.values(words.part).map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>
        ${parts.map(({ name, files, bytes }) => html`
          <tr key=${name}><th scope="row">${words.parts[name]}</th><td>${integer(files)}</td><td>${size(bytes)}</td></tr>
        `)}
      </tbody>
    </table>
    <p>${words.within(size(within.vectors), size(within.changes), size(within.queries))}</p>
  `;
}
