/** The photos of an individual, some of which can be split off. */

import * as api from "../api/identities.js";
import { imageUrl, thumbnailUrl } from "../api.js";
import { written } from "../dom.js";
import { count, timeThere } from "../format.js";
import { propose } from "../steps.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";

const whenOf = (item) => (item.captured_at ? Date.parse(item.captured_at) : Number.MAX_VALUE);

/** All that are listed, the oldest first; those without time come last. */
export function Photos({ one, may }) {
  const [selected, select] = useState(new Set());
  const items = [...one.items].sort((a, b) => whenOf(a) - whenOf(b));
  useEffect(() => select(new Set()), [one]);
  const toggle = (itemId) => {
    const next = new Set(selected);
    if (!next.delete(itemId)) next.add(itemId);
    select(next);
  };
  async function split(event) {
    event.preventDefault();
    const name = written(event.target, "name") || null;
    const leaving = [...selected];
    await propose(words.splitTitle(count(leaving.length, "photo"), name), (dryRun) =>
      api.split(one.identity_id, { item_ids: leaving, name, dry_run: dryRun }),
    );
  }
  return html`
    <section aria-label=${words.photos}>
      <h4>${words.photos}</h4>
      ${one.photos > items.length ? html`<p>${words.first(items.length, one.photos)}</p>` : null}
      ${may && selected.size > 0 ? html`
        <form class="row bar" onSubmit=${split}>
          <b role="status">${words.selected(selected.size)}</b>
          <label>${words.splitName} <input name="name" maxlength="200" autocomplete="off" /></label>
          <button class="primary">${words.split}</button>
        </form>` : null}
      <ul class="cards">
        ${items.map((item) => html`<li key=${item.item_id}><${Photo} item=${item} may=${may}
          selected=${selected.has(item.item_id)} toggle=${toggle} /></li>`)}
      </ul>
    </section>
  `;
}

function Photo({ item, may, selected, toggle }) {
  const when = item.captured_at ? timeThere(item.captured_at) : words.noTime;
  return html`
    <div class=${selected ? "card chosen" : "card"}>
      <a class="frame" href=${imageUrl(item.item_id)} target="_blank"><img src=${thumbnailUrl(item.item_id)} alt=${when}
        loading="lazy" /></a>
      <span class="line">
        <time>${when}</time>
        ${may ? html`<input type="checkbox" checked=${selected} aria-label=${words.select(when)}
          onChange=${() => toggle(item.item_id)} />` : null}
      </span>
      ${item.camera ? html`<span class="camera">${item.camera}</span>` : null}
      ${item.site ? html`<span>${item.site}</span>` : null}
    </div>
  `;
}
