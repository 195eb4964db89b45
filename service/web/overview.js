/** When and where the photos of an answer were taken, drawn from what is known of them alone. */

import { time } from "./format.js";
import { html } from "./vendor/preact.js";
import { overview as words } from "./words.js";

const MOST_ROWS = 8; // cameras with a row of their own
const DEGREE_KM = 111.2; // of latitude
const WIDTH = 1000; // of the map, in units of its own
const MARGIN = 60;
const LEAST_KM = 0.2; // that a map shows

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

function Places({ matches, open }) {
  const places = placesOf(matches);
  const north = Math.max(...places.map((place) => place.latitude));
  const south = Math.min(...places.map((place) => place.latitude));
  const shrink = Math.cos(((north + south) / 2) * (Math.PI / 180));
  const west = Math.min(...places.map((place) => place.longitude));
  const east = Math.max(...places.map((place) => place.longitude));
  const [wideKm, highKm] = [(east - west) * DEGREE_KM * shrink, (north - south) * DEGREE_KM];
  const unit = (WIDTH - 2 * MARGIN) / Math.max(wideKm, 2 * highKm, LEAST_KM); // per kilometre, at most half as high as wide
  const height = 2 * MARGIN + highKm * unit;
  const x = (place) => WIDTH / 2 + (place.longitude - (east + west) / 2) * DEGREE_KM * shrink * unit;
  const y = (place) => MARGIN + (north - place.latitude) * DEGREE_KM * unit;
  const scale = roundKm(WIDTH / 4 / unit);
  return html`
    <svg class="map" viewBox=${`0 0 ${WIDTH} ${height}`} role="group" aria-label=${words.map(places.length)}>
      ${places.map(
        (place) => html`
          <g key=${`${place.latitude} ${place.longitude}`} class="place" onClick=${() => open(place.hits[0])}>
            <title>${words.place(place.name, place.hits.length)}</title>
            <circle cx=${x(place)} cy=${y(place)} r=${10 + 6 * Math.sqrt(place.hits.length)} />
            <text x=${x(place)} y=${y(place) + 7} class="number">${place.hits.length}</text>
            <text x=${x(place)} y=${y(place) + 40 + 6 * Math.sqrt(place.hits.length)}>${place.name}</text>
          </g>
        `,
      )}
      <path d=${`M 20 ${height - 20} h ${scale * unit}`} class="scale" />
      <text x="20" y=${height - 30} class="legend">${words.kilometres(scale)}</text>
    </svg>
  `;
}

/** The photos of each place, best first, under the name of its site or camera. */
function placesOf(matches) {
  const places = new Map();
  for (const match of matches) {
    const key = `${match.latitude} ${match.longitude}`;
    const { latitude, longitude } = match;
    if (!places.has(key)) places.set(key, { latitude, longitude, name: match.site ?? match.camera ?? "", hits: [] });
    places.get(key).hits.push(match);
  }
  return [...places.values()];
}

/** The largest of 1, 2, 5, 10, ... or 0.1, 0.2, 0.5 kilometres that is not above some. */
function roundKm(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((digit) => digit * power).find((kilometres) => kilometres <= most);
}
