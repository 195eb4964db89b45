/** What became of an import: counts, each photo that is not in the gallery with its reason, duplicates, and pictures. */

import { thumbnailUrl } from "../api.js";
import * as api from "../api/imports.js";
import { IMPORT } from "../filters.js";
import { count, integer } from "../format.js";
import { address } from "../router.js";
import { may } from "../session.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";
import { fieldName, plain } from "./saying.js";
import { takeBack, ZoneAfter } from "./zone.js";

const MOST = 100; // of a list
const PICTURES = 24;
const NOT_ADDED = ["failed", "outage", "deleted"];
const THERE = ["duplicate", "existing", "updated"];
const UNLIKE = ["edited", "differing"];
const FIELDS = ["updated", ...UNLIKE]; // of which the detail names fields

/** `again` offers to try the rest again. */
export function Report({ one, act, again }) {
  const [bad, list] = useState([]);
  const [twins, listTwins] = useState([]);
  const [unlike, listUnlike] = useState([]);
  const [added, picture] = useState([]);
  const { import_id: id, report, retryable } = one;
  useEffect(() => {
    const read = (became, limit, take) => api.photos(id, became, limit).then(take, () => {});
    read(NOT_ADDED, MOST, list);
    read(THERE, MOST, listTwins);
    read(UNLIKE, MOST, listUnlike);
    read(["created"], PICTURES, picture);
  }, [id, JSON.stringify(report)]);
  const said = report ? Object.entries(words.became).filter(([name]) => report[name] > 0) : [];
  const left = Object.entries(report?.left_out ?? {}).map(([kind, files]) => `${integer(files)} ${kind}`);
  const sum = (names) => (report ? names.reduce((all, name) => all + report[name], 0) : 0);
  const these = new URLSearchParams({ [IMPORT]: id });
  const pictures = added.filter((photo) => photo.item_id !== null);
  return html`
    <p class="summary" role="status">
      ${words.ended[one.state]} ${said.map(([name, tell]) => tell(integer(report[name]))).join(", ")}${said.length > 0 ? "." : ""}
    </p>
    ${one.error ? html`<p class="problem">${plain(one.error)}</p>` : null}
    ${one.edits.map((edit) => html`<${Edit} key=${edit.batch_id} edit=${edit} one=${one} act=${act} />`)}
    ${left.length > 0 ? html`<p>${words.leftOut(left.join(", "))}</p>` : null}
    <div class="row">
      ${retryable && again && may("write") ? html`
        <button type="button" class="primary" onClick=${() => act(() => api.retryImport(id))}>${words.retry}</button>
      ` : null}
      ${report?.created > 0 ? html`
        <a class="button" href=${address("review", ["start"], these)}>${words.review}</a>
        <a class="button" href=${address("browse", [], these)}>${words.browse}</a>
      ` : null}
    </div>
    ${pictures.length > 0 ? html`
      <ul class="thumbnails" aria-label=${words.added}>
        ${pictures.map(({ item_id: item, name }) => html`
          <li key=${item}>
            <a href=${address("search", [], new URLSearchParams({ item_id: item }))} aria-label=${words.find(name)}>
              <img src=${thumbnailUrl(item)} alt="" loading="lazy" />
            </a>
          </li>
        `)}
        ${report.created > pictures.length ? html`
          <li><a href=${address("browse", [], these)}>${words.more(integer(report.created - pictures.length))}</a></li>
        ` : null}
      </ul>
    ` : null}
    ${bad.length > 0 ? html`
      <section aria-labelledby="import-failed">
        <h3 id="import-failed">${words.notAdded}</h3>
        <${Photos} photos=${bad} all=${sum(NOT_ADDED)} />
      </section>
    ` : null}
    ${unlike.length > 0 ? html`
      <section aria-labelledby="import-unlike">
        <h3 id="import-unlike">${words.unlike}</h3>
        <p>${words.unlikeHint}</p>
        <${Photos} photos=${unlike} all=${sum(UNLIKE)} />
      </section>
    ` : null}
    ${twins.length > 0 ? html`
      <details>
        <summary>${words.twins(count(sum(THERE), "photo"))}</summary>
        <${Photos} photos=${twins} all=${sum(THERE)} />
      </details>
    ` : null}
    ${may("write") && sum(["created", "updated"]) > 0 ? html`<${ZoneAfter} one=${one} act=${act} />` : null}
  `;
}

/** What the import changed of photos, as long as that can be taken back. */
function Edit({ edit, one, act }) {
  const said = words.edits[edit.what](count(edit.items, "photo"));
  return html`
    <p class="row">
      <span>${said} ${edit.undone ? words.undone : ""}</span>
      ${may("write") && !edit.undone ? html`
        <button type="button" onClick=${() => act(() => takeBack(one.import_id, edit.batch_id))}>${words.undo}</button>
      ` : null}
    </p>
  `;
}

function Photos({ photos, all }) {
  return html`
    <ul class="files">
      ${photos.map(({ name, became, detail }) => html`
        <li key=${name}><b>${name}</b> <span>${words.why[became](FIELDS.includes(became) ? detail.split(",").map(fieldName).join(", ") : plain(detail))}</span></li>
      `)}
      ${all > photos.length ? html`<li>${words.more(integer(all - photos.length))}</li>` : null}
    </ul>
  `;
}
