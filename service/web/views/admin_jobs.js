/** Long work: tried, started, watched and cancelled. */

import * as api from "../api.js";
import { percent, size, time } from "../format.js";
import { html } from "../vendor/preact.js";
import { admin as words } from "../words.js";

const SIZES = ["bytes", "free"]; // of a result

/** Whether a job has not ended. */
export function isOpen({ state }) {
  return ["queued", "running"].includes(state);
}

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
      <div class="row">
        ${Object.entries(words.tryOut).map(([kind, name]) => html`
          <button type="button" key=${kind} onClick=${() => act(() => api.startJob(kind, true))}>${name}</button>
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
              <th scope="row">${words.kindOf(job)}</th>
              <td>${job.state} ${isOpen(job) ? html`
                <button type="button" onClick=${() => act(() => api.cancelJob(job.job_id))}>${words.cancel}</button>
              ` : null}</td>
              <td>${isOpen(job) ? html`<${Bar} job=${job} />` : job.progress === null ? "" : percent(job.progress)}</td>
              <td>${time(job.created_at)}</td>
              <td>${job.error ?? summary(job.result)}</td>
            </tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}

/** How far a job is, moving without a number where that is not known. */
function Bar({ job }) {
  const share = job.progress ?? undefined;
  return html`
    <progress max="1" value=${share} aria-label=${words.progressOf(job.kind)}></progress>
    ${share === undefined ? null : html` ${percent(share)}`}
  `;
}

/** What came of a job: numbers and words as they are, lists by their length. */
function summary(result) {
  const told = Object.entries(result ?? {}).filter(([name, value]) => name !== "dry_run" && (Array.isArray(value) || typeof value !== "object"));
  return told.map(([name, value]) => words.resulted(name, shown(name, value))).join(", ");
}

function shown(name, value) {
  if (Array.isArray(value)) return String(value.length);
  return SIZES.includes(name) ? size(value) : String(value);
}
