/** Who may use the gallery. */

import * as api from "../api.js";
import { time } from "../format.js";
import { html } from "../vendor/preact.js";
import { admin as words } from "../words.js";

/** All keys, and a form for another; `told` is given a key with its secret, which is shown until the view is left. */
export function Keys({ keys, secret, act, told }) {
  const revoke = (key) => {
    if (confirm(words.sureRevoke(key.name))) act(() => api.revokeKey(key.key_id));
  };
  const add = (event) => {
    event.preventDefault();
    const { name, scope, cameras } = event.target.elements;
    const named = cameras.value.split(",").map((one) => one.trim()).filter((one) => one);
    const wanted = { name: name.value.trim(), scopes: [scope.value], cameras: named.length > 0 ? named : null };
    act(async () => {
      told(await api.addKey(wanted));
      event.target.reset();
    });
  };
  return html`
    <section aria-labelledby="admin-keys">
      <h3 id="admin-keys">${words.keys}</h3>
      ${keys.length === 0 ? html`<p>${words.noKeys}</p>` : html`<div class="wide" tabindex="0" role="region" aria-label=${words.tableOf(words.keys)}>
        <table>
          <thead><tr>${Object.values(words.key).map((name) => (name ? html`<th scope="col">${name}</th>` : html`<td></td>`))}</tr></thead>
          <tbody>
            ${keys.map((key) => html`
              <tr key=${key.key_id}>
                <th scope="row">${key.name}</th>
                <td>${key.scopes.map((scope) => words.scopes[scope]).join(", ")}</td>
                <td>${key.cameras?.join(", ") ?? words.allCameras}</td>
                <td>${time(key.created_at)}</td>
                <td>${key.revoked_at ? words.revoked : html`
                  <button type="button" class="danger" onClick=${() => revoke(key)}>${words.revoke}</button>`}</td>
              </tr>
            `)}
          </tbody>
        </table>
      </div>`}
      <p role="status">${secret && html`${words.secret(secret.name)} <code>${secret.secret}</code>`}</p>
      <form class="filters" onSubmit=${add}>
        <label>${words.key.name} <input name="name" required maxlength="200" autocomplete="off" /></label>
        <label>${words.key.scopes}
          <select name="scope">
            ${Object.entries(words.scopes).map(([scope, name]) => html`<option value=${scope}>${name}</option>`)}
          </select>
        </label>
        <label>${words.camerasOfKey} <input name="cameras" autocomplete="off" /></label>
        <button type="submit">${words.addKey}</button>
      </form>
    </section>
  `;
}
