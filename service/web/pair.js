/** Two pictures side by side, moved and enlarged together. */

import { html, useEffect, useReducer, useRef, useState } from "./vendor/preact.js";
import { pair as words } from "./words.js";

const MOST_SCALE = 16;
const STEP = 1.25; // of a key or a notch of the wheel
const SHIFT = 0.08; // of a key, as a share of the frame
const BLINK_MS = 700;

/**
 * How a pair is looked at: `x` and `y` move the pictures by shares of their frame.
 * @typedef {{scale: number, x: number, y: number, mirror: boolean, brightness: number, blink: boolean}} Look
 */

/** @type {Look} */
const AS_IT_IS = { scale: 1, x: 0, y: 0, mirror: false, brightness: 1, blink: false };

/** @returns {Look} */
function changed(look, { zoom = 1, at = [0, 0], move = [0, 0], brighten = 1, toggle = null, reset = false }) {
  if (reset) return { ...AS_IT_IS, blink: look.blink };
  if (toggle) return { ...look, [toggle]: !look[toggle] };
  const scale = Math.min(Math.max(look.scale * zoom, 1), MOST_SCALE);
  const factor = scale / look.scale;
  const place = (now, about, by) => {
    const most = (scale - 1) / 2 + 0.25; // so that no picture is lost outside
    return Math.min(Math.max(about - (about - now) * factor + by, -most), most);
  };
  const brightness = Math.min(Math.max(look.brightness * brighten, 0.25), 4);
  return { ...look, scale, brightness, x: place(look.x, at[0], move[0]), y: place(look.y, at[1], move[1]) };
}

const KEYS = {
  "+": { zoom: STEP },
  "=": { zoom: STEP },
  "-": { zoom: 1 / STEP },
  0: { reset: true },
  m: { toggle: "mirror" },
  b: { toggle: "blink" },
  "[": { brighten: 1 / STEP },
  "]": { brighten: STEP },
};
const MOVES = { ArrowLeft: [SHIFT, 0], ArrowRight: [-SHIFT, 0], ArrowUp: [0, SHIFT], ArrowDown: [0, -SHIFT] };

/** How a pair is looked at, and what changes that: a function of a change, and one of a key, which says whether it was taken. */
export function useLook() {
  const [look, change] = useReducer(changed, AS_IT_IS);
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const wanted = event.shiftKey && event.key in MOVES ? { move: MOVES[event.key] } : KEYS[event.key];
    if (wanted) change(wanted);
    return Boolean(wanted);
  };
  return { look, change, press };
}

/**
 * The pictures; each is `{url, name, overlay, caption, instead}`: `overlay` is laid over it if there is one, `caption`
 * stands below it in place of its name, and `instead` is what is said where there is no `url`.
 * @param {{left: any, right: any, look: Look, change: (change: any) => void, busy?: boolean}} props
 */
export function Pair({ left, right, look, change, busy = false }) {
  const [turn, setTurn] = useState(false);
  useEffect(() => {
    if (!look.blink) return;
    const timer = setInterval(() => setTurn((before) => !before), BLINK_MS);
    return () => clearInterval(timer);
  }, [look.blink]);
  if (look.blink) {
    return html`<div class="twins one" aria-busy=${busy}><${Frame} picture=${turn ? right : left} look=${look} change=${change} mirrored=${turn && look.mirror} /></div>`;
  }
  return html`
    <div class="twins" aria-busy=${busy}>
      <${Frame} picture=${left} look=${look} change=${change} mirrored=${false} />
      <${Frame} picture=${right} look=${look} change=${change} mirrored=${look.mirror} />
    </div>
  `;
}

/** Buttons for what keys do. */
export function LookTools({ look, change }) {
  const button = (text, wanted, pressed) =>
    html`<button type="button" aria-pressed=${pressed === undefined ? undefined : String(pressed)} onClick=${() => change(wanted)}>${text}</button>`;
  return html`
    ${button(words.larger, KEYS["+"])} ${button(words.smaller, KEYS["-"])} ${button(words.reset, KEYS[0])}
    ${button(words.mirror, KEYS.m, look.mirror)} ${button(words.blink, KEYS.b, look.blink)}
    ${button(words.darker, KEYS["["])} ${button(words.brighter, KEYS["]"])}
  `;
}

function Frame({ picture, look, change, mirrored }) {
  const frame = useRef(null);
  const fingers = useRef(new Map());
  const share = (event) => {
    const { left, top, width, height } = frame.current.getBoundingClientRect();
    return [(event.clientX - left) / width - 0.5, (event.clientY - top) / height - 0.5];
  };
  const wheel = (event) => {
    event.preventDefault();
    change({ zoom: STEP ** (-Math.sign(event.deltaY)), at: share(event) });
  };
  const down = (event) => {
    frame.current.setPointerCapture(event.pointerId);
    fingers.current.set(event.pointerId, share(event));
  };
  const moved = (event) => {
    const before = fingers.current.get(event.pointerId);
    if (!before) return;
    const now = share(event);
    const other = [...fingers.current].find(([id]) => id !== event.pointerId)?.[1];
    fingers.current.set(event.pointerId, now);
    if (!other) {
      change({ move: [now[0] - before[0], now[1] - before[1]] });
      return;
    }
    const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1e-3;
    change({ zoom: apart(now) / apart(before), at: [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2] });
  };
  const up = (event) => fingers.current.delete(event.pointerId);
  // Else a browser takes the end of a move for a fling, and the next tap for what stops it, which clicks on nothing.
  const touched = (event) => look.scale > 1 && event.preventDefault();
  // Where nothing is enlarged, one finger scrolls the page.
  const touch = { touchAction: look.scale > 1 ? "none" : "pan-y" };
  const style = {
    transform: `translate(${100 * look.x}%, ${100 * look.y}%) scale(${look.scale}) scaleX(${mirrored ? -1 : 1})`,
    filter: look.brightness === 1 ? "" : `brightness(${look.brightness})`,
  };
  return html`
    <figure>
      <div class="frame" style=${touch} ref=${frame} onWheel=${wheel} onTouchStart=${touched} onPointerDown=${down} onPointerMove=${moved} onPointerUp=${up} onPointerCancel=${up}>
        ${picture?.url && html`<div class="moved" style=${style}>
          <img key=${picture.url} src=${picture.url} alt=${picture.name} draggable=${false} />
          ${picture.overlay && html`<img src=${picture.overlay} alt=${words.attention} draggable=${false} />`}
        </div>`}
        ${picture?.instead}
      </div>
      <figcaption>${picture?.caption ?? picture?.name}</figcaption>
    </figure>
  `;
}
