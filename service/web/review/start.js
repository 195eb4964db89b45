/** Starting a review: of which photos, and how many of the machine's joins may be wrong. */

import { cameras as listCameras } from "../api.js";
import * as api from "../api/review.js";
import { IMPORT } from "../filters.js";
import { inOrder, toApiTime } from "../format.js";
import { address, go } from "../router.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";

const ERRORS = [0, 0.005, 0.01, 0.02, 0.05];
const SECONDS = 1; // between looks at the job

/** The form, or how far the job of the address is; `started` is called when that is done. */
export function Start({ jobId, importId, may, started }) {
  const [cameras, offer] = useState([]);
  const [problem, refuse] = useState(null);
  useEffect(() => {
    listCameras().then((found) => offer(found.toSorted((a, b) => inOrder(a.name, b.name))), (error) => refuse(error.message));
  }, []);
  async function start(event) {
    event.preventDefault();
    const said = new FormData(event.target);
    refuse(null);
    try {
      const job = await api.startReview(planOf(said));
      go(address("review", ["start"], new URLSearchParams({ job: job.job_id })));
    } catch (error) {
      refuse(error.message);
    }
  }
  if (!may) return html`<p>${words.mayNotStart}</p>`;
  if (jobId) return html`<${Watched} jobId=${jobId} started=${started} />`;
  return html`
    <form class="start" onSubmit=${start}>
      <p>${words.startHint}</p>
      <fieldset>
        <legend>${words.which}</legend>
        ${importId ? html`<label class="check"><input type="checkbox" name=${IMPORT} value=${importId} checked /> ${words.onlyImport}</label>` : null}
        <label>${words.from} <input type="datetime-local" name="from" /></label>
        <label>${words.before} <input type="datetime-local" name="to" /></label>
        ${cameras.length > 0 ? html`<${Cameras} cameras=${cameras} />` : null}
      </fieldset>
      <fieldset>
        <legend>${words.machine}</legend>
        <label>
          ${words.error}
          <select name="error">
            ${ERRORS.map((share) => html`<option key=${share} value=${share}
              selected=${share === 0.01}>${words.errors(share)}</option>`)}
          </select>
        </label>
        <label>${words.gold} <input type="number" name="gold" min="0" max="50" step="any" value="2" /></label>
      </fieldset>
      <fieldset>
        <legend>${words.rules}</legend>
        ${["photos", "tracks", "sides", "names"].map(
          (rule) => html`<label key=${rule} class="check"><input type="checkbox"
            name=${rule} checked /> ${words[rule]}</label>`,
        )}
        <label>${words.speed} <input type="number" name="speed" min="0" max="100000" step="any" value="100" /></label>
        <label>${words.burst} <input type="number" name="burst" min="0" max="86400" step="any" value="0" /></label>
      </fieldset>
      <p class="problem" role="alert">${problem}</p>
      <button class="primary">${words.start}</button>
    </form>
  `;
}

function Cameras({ cameras }) {
  return html`
    <div class="choices" role="group" aria-label=${words.cameras}>
      <span>${words.cameras}</span>
      ${cameras.map(({ name }) => html`<label key=${name} class="check"><input type="checkbox" name="cameras"
        value=${name} /> ${name}</label>`)}
    </div>
  `;
}

function planOf(said) {
  const filter = { from: toApiTime(said.get("from")), to: toApiTime(said.get("to")) };
  const cameras = said.getAll("cameras");
  if (cameras.length > 0) filter.cameras = cameras;
  if (said.has(IMPORT)) filter[IMPORT] = said.getAll(IMPORT);
  const rules = Object.fromEntries(["photos", "tracks", "sides", "names"].map((rule) => [rule, said.has(rule)]));
  const numbers = Object.fromEntries(["error", "speed", "burst"].map((name) => [name, Number(said.get(name))]));
  return { ...rules, ...numbers, gold: Number(said.get("gold")) / 100, filter };
}

/** How far the job is; then the questions. */
function Watched({ jobId, started }) {
  const [job, tell] = useState(null);
  const [problem, refuse] = useState(null);
  useEffect(() => {
    let timer = null;
    async function look() {
      try {
        const found = await api.job(jobId);
        tell(found);
        refuse(null);
        if (found.state === "done") started();
        else if (["queued", "running"].includes(found.state)) timer = setTimeout(look, 1000 * SECONDS);
      } catch (error) {
        refuse(error.message);
        if (error.status === 0 || error.status >= 500) timer = setTimeout(look, 2000 * SECONDS);
      }
    }
    look();
    return () => clearTimeout(timer);
  }, [jobId]);
  const ended = job && ["failed", "cancelled"].includes(job.state);
  return html`
    <div role="status">
      ${ended ? html`<p class="problem">${words.notStarted(job.error ?? job.state)}</p>` : html`<p>${words.starting}</p>`}
      ${problem ? html`<p class="problem">${problem}</p>` : null}
    </div>
    ${ended ? html`<a href=${address("review", ["start"])}>${words.startAgain}</a>` : html`<progress
      aria-label=${words.starting} value=${job?.progress ?? undefined}></progress>`}
  `;
}
