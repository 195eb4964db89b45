/** A map of where photos were taken, drawn from what is known of them alone. */

import { html } from "./vendor/preact.js";
import { overview as words } from "./words.js";

const DEGREE_KM = 111.2; // of latitude
const WIDTH = 1000; // of the map, in units of its own
const LEAST_KM = 0.2; // that a map shows
const LETTER = 0.58; // how wide letters are, in their heights

/** The places of some photos; `open` is called with the best of one that is pressed. */
export function Places({ matches, open }) {
  const size = matchMedia("(max-width: 56rem)").matches ? 44 : 22; // of letters, which shrink with the map
  const places = placesOf(matches);
  const north = Math.max(...places.map((place) => place.latitude));
  const south = Math.min(...places.map((place) => place.latitude));
  const shrink = Math.cos(((north + south) / 2) * (Math.PI / 180));
  const west = Math.min(...places.map((place) => place.longitude));
  const east = Math.max(...places.map((place) => place.longitude));
  const [wideKm, highKm] = [(east - west) * DEGREE_KM * shrink, (north - south) * DEGREE_KM];
  const margin = 3 * size;
  const unit = (WIDTH - 2 * margin) / Math.max(wideKm, 2 * highKm, LEAST_KM); // per kilometre, at most half as high as wide
  const height = 3 * margin + highKm * unit;
  const drawn = places.map((place) => ({
    ...place,
    x: WIDTH / 2 + (place.longitude - (east + west) / 2) * DEGREE_KM * shrink * unit,
    y: margin + (north - place.latitude) * DEGREE_KM * unit,
    radius: (size / 22) * (10 + 6 * Math.sqrt(place.hits.length)),
  }));
  const scale = roundKm(WIDTH / 4 / unit);
  const labels = labelled(drawn, size, height);
  return html`
    <svg class="map" viewBox=${`0 0 ${WIDTH} ${height}`} role="group" aria-label=${words.map(places.length)} font-size=${size}>
      ${drawn.map(
        (place) => html`
          <g key=${`${place.latitude} ${place.longitude}`} class="place" onClick=${() => open(place.hits[0])}>
            <title>${words.place(place.name, place.hits.length)}</title>
            <circle cx=${place.x} cy=${place.y} r=${place.radius} />
            <text x=${place.x} y=${place.y + size / 3} class="number">${place.hits.length}</text>
            ${labels.has(place) && html`<text x=${labels.get(place).x} y=${labels.get(place).y} class="name">${place.name}</text>`}
          </g>
        `,
      )}
      <path d=${`M 20 ${height - 20} h ${scale * unit}`} class="scale" />
      <text x="20" y=${height - 30} class="legend">${words.kilometres(scale)}</text>
    </svg>
  `;
}

/** Where the name of each place stands, that of most photos first; one for which there is no room has none. */
function labelled(places, size, height) {
  const taken = places.map(({ x, y, radius }) => ({ left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }));
  taken.push({ left: 0, right: WIDTH / 3, top: height - 2 * size, bottom: height }); // the scale
  const found = new Map();
  for (const place of [...places].sort((a, b) => b.hits.length - a.hits.length)) {
    const half = (LETTER * size * place.name.length) / 2;
    const [beside, beyond] = [place.radius + half + size / 4, place.radius + size];
    const places = [[0, beyond], [0, -beyond + 0.7 * size], [beside, size / 3], [-beside, size / 3]];
    for (const [right, down] of places) {
      const [x, y] = [place.x + right, place.y + down];
      const box = { left: x - half, right: x + half, top: y - 0.8 * size, bottom: y + 0.25 * size };
      if (box.left < 0 || box.right > WIDTH || box.top < 0 || taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      found.set(place, { x, y });
      break;
    }
  }
  return found;
}

function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
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
