/** When and where the photos of an answer were taken, drawn from what is known of them alone. */

import { time } from "./format.js";
import { Places } from "./places.js";
import { html } from "./vendor/preact.js";
import { overview as words } from "./words.js";

const MOST_ROWS = 8; // cameras with a row of their own

/** Both, where enough is known; `open` is called with the photo that is pressed. */
export function Overview({ matches, open }) {
  const timed = matches.filter((match) => match.captured_at);
  const placed = matches.filter((match) => (match.latitude ?? null) !== null);
  return html`
    ${timed.length > 1 && html`<details><summary>${words.when(timed.length, matches.length)}</summary>
      <${Timeline} matches=${timed} open=${open} /></details>`}
    ${placed.length > 0 && html`<details><summary>${words.where(placed.length, matches.length)}</summary>
      <${Places} matches=${placed} open=${open} /></details>`}
  `;
}

function Timeline({ matches, open }) {
  const times = matches.map((match) => Date.parse(match.captured_at));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const left = (match) => `${(100 * (Date.parse(match.captured_at) - first)) / Math.max(last - first, 1)}%`;
  const ends = [times.indexOf(first), times.indexOf(last)].map((place) => time(matches[place].captured_at));
  return html`
    <div class="timeline">
      ${rowsOf(matches).map(
        ([camera, hits]) => html`
          <div key=${camera} class="lane">
            <span>${camera}</span>
            <div>${hits.map((match) => html`<${Dot} key=${match.item_id} match=${match} open=${open} style=${{ left: left(match) }} />`)}</div>
          </div>
        `,
      )}
      <div class="lane ends"><span></span><div><span>${ends[0]}</span><span>${ends[1]}</span></div></div>
    </div>
  `;
}

/** The photos of each camera, most first; those of the rarest share a row. */
function rowsOf(matches) {
  const byCamera = new Map();
  for (const match of matches) {
    const camera = match.camera ?? words.noCamera;
    byCamera.set(camera, [...(byCamera.get(camera) ?? []), match]);
  }
  const rows = [...byCamera].sort((a, b) => b[1].length - a[1].length);
  if (rows.length <= MOST_ROWS) return rows;
  const others = rows.splice(MOST_ROWS - 1);
  return [...rows, [words.otherCameras(others.length), others.flatMap(([, hits]) => hits)]];
}

/** A photo as a dot for the mouse and fingers; the cards below are what keys go through. */
function Dot({ match, open, style }) {
  const name = words.dot(match.rank, match.label, match.camera, time(match.captured_at));
  return html`<button type="button" class="dot" tabindex="-1" style=${style} title=${name} aria-label=${name} onClick=${() => open(match)}></button>`;
}
