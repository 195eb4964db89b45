/** What became of an import: counts, each photo that is not in the gallery with its reason, duplicates, and pictures. */

import { thumbnailUrl } from "../api.js";
import * as api from "../api/imports.js";
import { count, integer } from "../format.js";
import { address } from "../router.js";
import { may } from "../session.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";

const MOST = 100; // of a list
const PICTURES = 24;
const NOT_ADDED = ["failed", "outage", "deleted"];

export function Report({ one, act }) {
  const [bad, list] = useState([]);
  const [twins, listTwins] = useState([]);
  const [added, picture] = useState([]);
  const { import_id: id, report, retryable } = one;
  useEffect(() => {
    const read = (became, limit, take) => api.photos(id, became, limit).then(take, () => {});
    read(NOT_ADDED, MOST, list);
    read(["duplicate", "existing"], MOST, listTwins);
    read(["created"], PICTURES, picture);
  }, [id, JSON.stringify(report)]);
  const said = report ? Object.entries(words.became).filter(([name]) => report[name] > 0) : [];
  const left = Object.entries(report?.left_out ?? {}).map(([kind, files]) => `${integer(files)} ${kind}`);
  const notAdded = report ? NOT_ADDED.reduce((sum, name) => sum + report[name], 0) : 0;
  const pictures = added.filter((photo) => photo.item_id !== null);
  return html`
    <p class="summary" role="status">
      ${words.ended[one.state]} ${said.map(([name, tell]) => tell(integer(report[name]))).join(", ")}${said.length > 0 ? "." : ""}
    </p>
    ${one.error ? html`<p class="problem">${one.error}</p>` : null}
    ${left.length > 0 ? html`<p>${words.leftOut(left.join(", "))}</p>` : null}
    <div class="row">
      ${retryable && may("write") ? html`
        <button type="button" class="primary" onClick=${() => act(() => api.retryImport(id))}>${words.retry}</button>
      ` : null}
      ${report?.created > 0 ? html`
        <a class="button" href=${address("review")}>${words.review}</a>
        <a class="button" href=${address("browse")}>${words.browse}</a>
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
      </ul>
    ` : null}
    ${bad.length > 0 ? html`
      <section aria-labelledby="import-failed">
        <h3 id="import-failed">${words.notAdded}</h3>
        <${Photos} photos=${bad} all=${notAdded} />
      </section>
    ` : null}
    ${twins.length > 0 ? html`
      <details>
        <summary>${words.twins(count(report.duplicate + report.existing, "photo"))}</summary>
        <${Photos} photos=${twins} all=${report.duplicate + report.existing} />
      </details>
    ` : null}
  `;
}

function Photos({ photos, all }) {
  return html`
    <ul class="files">
      ${photos.map(({ name, became, detail }) => html`
        <li key=${name}><b>${name}</b> <span>${words.why[became](detail)}</span></li>
      `)}
      ${all > photos.length ? html`<li>${words.more(integer(all - photos.length))}</li>` : null}
    </ul>
  `;
}
