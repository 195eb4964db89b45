/** Long work: started, watched and cancelled. */

import * as api from "../api.js";
import { percent, time } from "../format.js";
import { html } from "../vendor/preact.js";
import { admin as words } from "../words.js";

/** The newest jobs, and buttons that start one; `act` does something and shows what came of it. */
export function Jobs({ jobs, act }) {
  const start = (kind) => {
    if (kind === "reindex" && !confirm(words.sureReindex)) return;
    act(() => api.startJob(kind));
  };
  return html`
    <section aria-labelledby="admin-jobs">
      <h3 id="admin-jobs">${words.jobs}</h3>
      <div class="row">
        ${Object.entries(words.start).map(([kind, name]) => html`
          <button type="button" key=${kind} onClick=${() => start(kind)}>${name}</button>
        `)}
      </div>
      ${jobs.length === 0 ? html`<p>${words.noJobs}</p>` : html`<${Table} jobs=${jobs} act=${act} />`}
    </section>
  `;
}

function Table({ jobs, act }) {
  return html`
    <div class="wide" tabindex="0" role="region" aria-label=${words.tableOf(words.jobs)}>
      <table>
        <thead><tr>${Object.values(words.job).map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>
          ${jobs.map((job) => html`
            <tr key=${job.job_id}>
              <th scope="row">${job.kind}</th>
              <td>${job.state} ${isOpen(job) ? html`
                <button type="button" onClick=${() => act(() => api.cancelJob(job.job_id))}>${words.cancel}</button>
              ` : null}</td>
              <td>${job.progress === null ? "" : percent(job.progress)}</td>
              <td>${time(job.created_at)}</td>
              <td>${job.error ?? summary(job.result)}</td>
            </tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}

function isOpen(job) {
  return ["queued", "running"].includes(job.state);
}

function summary(result) {
  const told = Object.entries(result ?? {}).filter(([, value]) => typeof value !== "object");
  return told.map(([name, value]) => `${name} ${value}`).join(", ");
}
