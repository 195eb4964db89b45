/** Two photos in the whole window: who is searched for, and one candidate after another. */

import * as api from "../api.js";
import { identity } from "../api/identities.js";
import { getSubject } from "../api/subjects.js";
import { isEnrolled, say } from "../adopting.js";
import { boxOf, cropOf } from "../boxing.js";
import { element, isTyping } from "../dom.js";
import { time } from "../format.js";
import { LookTools, Pair, useLook } from "../pair.js";
import { address, go, here, rename } from "../router.js";
import { may } from "../session.js";
import { filesOf } from "../subject.js";
import { toast } from "../toasts.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { boxing as boxWords, compare as words } from "../words.js";

const MOST_CANDIDATES = 100; // in an address
const ANSWERS = { s: "same", d: "different", u: "unsure", n: "not_comparable" };

let place;
let fields = new URLSearchParams();

/** @type {import("../router.js").View} */
export const compare = { name: "compare", title: words.title, section: null, start, show, hide };

/** Where a subject is compared with some items, beginning at one. */
export function addressOfComparison(subject, items, first) {
  const named = subject.item ? { item_id: subject.item.item_id } : { subject_id: subject.kept.subject_id };
  const from = Math.max(0, items.indexOf(first));
  const asked = new URLSearchParams({ ...named, at: String(Math.min(from, MOST_CANDIDATES - 1)) });
  for (const box of subject.boxes ?? []) asked.append("box", box);
  for (const item of items.slice(Math.max(0, from - MOST_CANDIDATES + 1)).slice(0, MOST_CANDIDATES)) asked.append("with", item.item_id);
  return address("compare", [], asked);
}

function start(container) {
  place = container;
}

function hide() {
  document.body.classList.remove("comparing");
  render(null, place);
}

async function show(shown) {
  fields = shown.fields;
  document.body.classList.add("comparing");
  const isHere = () => here().view === "compare" && fields === shown.fields;
  try {
    if (!fields.has("item_id") && !fields.has("subject_id")) throw new Error(words.nobody);
    /** @type {import("../subject.js").Subject} */
    const subject = fields.has("item_id")
      ? { item: await api.getItem(fields.get("item_id")) }
      : { kept: await getSubject(fields.get("subject_id")) };
    if (!isHere()) return;
    if (fields.has("box")) subject.boxes = fields.getAll("box");
    render(html`<${Comparison} key=${String(fields)} subject=${subject} ids=${fields.getAll("with")} first=${Number(fields.get("at")) || 0} />`, place);
  } catch (error) {
    if (!isHere()) return;
    render(html`<p class="problem">${error.message}</p><a href=${address("search")}>${words.toSearch}</a>`, place);
  }
}

function Comparison({ subject, ids, first }) {
  const [wanted, setWanted] = useState(Math.min(first, Math.max(0, ids.length - 1)));
  const [{ at, item }, setShown] = useState({ at: wanted, item: null });
  const [photo, setPhoto] = useState(0); // of the subject
  const [attention, setAttention] = useState(false);
  const [told, setTold] = useState("");
  const [whole, setWhole] = useState(false); // the photos that boxes are in
  const box = boxOf(subject.boxes?.[photo] ?? "");
  const overlays = useOverlays(attention, subject, photo, item);
  const { look, change, press } = useLook();

  // The number of a candidate is shown together with it: whoever sees the number can answer.
  useEffect(() => {
    setWhole(false);
    fields.set("at", String(wanted));
    rename(address("compare", [], fields));
    let stays = true;
    const show = (found) => stays && setShown({ at: wanted, item: found });
    const refuse = (error) => {
      if (stays) setTold(error.message);
      show(null);
    };
    if (ids[wanted]) api.getItem(ids[wanted]).then(show, refuse);
    return () => {
      stays = false;
    };
  }, [wanted]);

  const step = (by) => setWanted((now) => Math.min(Math.max(now + by, 0), ids.length - 1));
  const [saying, setSaying] = useState(false);
  const isReady = may("write") && item !== null && at === wanted && !saying;
  const mayAnswer = (answer) => isReady && (answer === "same" || isEnrolled(subject));
  const answer = async (given) => {
    if (!mayAnswer(given)) return;
    setSaying(true);
    try {
      await say(subject, item, given);
      setTold(words.said[given](item.label));
      setWanted((now) => (now === at ? Math.min(at + 1, ids.length - 1) : now)); // who went elsewhere meanwhile stays there
    } catch (error) {
      setTold(error.message);
    }
    setSaying(false);
  };
  const listen = useRef(null); // as of the last drawing: an effect would only come some time after it
  listen.current = (event) => {
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (press(event)) event.preventDefault();
    else if (!plain) return;
    else if (event.key in ANSWERS) answer(ANSWERS[event.key]);
    else if (event.key === "a") setAttention(!attention);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "Escape") history.back();
  };
  useLayoutEffect(() => {
    const heard = (event) => listen.current(event);
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  }, []);

  const photos = subject.item ? [] : subject.kept.photos;
  const all = subject.item ? api.imageUrl(subject.item.item_id, whole || box !== null) : photos[photo].image_url;
  const crop = useCrop(all, box);
  const left = {
    url: box && !whole ? crop : all,
    name: subject.item ? nameOf(subject.item) : photos[photo].filename,
    overlay: whole && (box || subject.item?.box) ? null : overlays.left,
  };
  const right = item && {
    url: api.imageUrl(item.item_id, whole && Boolean(item.box)),
    name: nameOf(item),
    overlay: whole && item.box ? null : overlays.right,
  };
  const isBoxed = Boolean(box || subject.item?.box || item?.box);
  const showWhole = async () => {
    const shown = whole ? [] : [box || subject.item?.box ? all : null, item?.box ? api.imageUrl(item.item_id, true) : null];
    const there = await Promise.all(shown.filter((url) => url !== null).map(isThere));
    if (there.every(Boolean)) setWhole(!whole);
    else toast(boxWords.noPhoto);
  };
  const again = (others) => go(addressOfComparison(subject, others, others[0]));
  return html`
    <h1 class="unseen">${words.title}</h1>
    <div class="controls">
      <button type="button" onClick=${() => history.back()}>${words.back}</button>
      <button type="button" disabled=${at <= 0} onClick=${() => step(-1)}>${words.previous}</button>
      <span>${words.place(at + 1, ids.length)}</span>
      <button type="button" disabled=${at >= ids.length - 1} onClick=${() => step(1)}>${words.next}</button>
      ${photos.length > 1 && html`<button type="button" onClick=${() => setPhoto((photo + 1) % photos.length)}>${words.otherView(photo + 1, photos.length)}</button>`}
      ${item?.identity_id && html`<button type="button" onClick=${() => allOf(item).then(again, (error) => toast(error.message))}>${words.all(item.label)}</button>`}
    </div>
    <${Pair} left=${left} right=${right} look=${look} change=${change} />
    <div class="controls">
      <${LookTools} look=${look} change=${change} />
      ${isBoxed ? html`<button type="button" aria-pressed=${String(whole)} onClick=${showWhole}>${words.whole}</button>` : null}
      <button type="button" aria-pressed=${String(attention)} onClick=${() => setAttention(!attention)}>${words.attention}</button>
    </div>
    <div class="controls">
      ${Object.entries(ANSWERS).map(
        ([key, given]) =>
          html`<button type="button" class="answer" disabled=${!mayAnswer(given)} onClick=${() => answer(given)}>${words.answers[given]} <kbd>${key.toUpperCase()}</kbd></button>`,
      )}
      <p role="status">${told || why(subject)}</p>
    </div>
  `;
}

function why(subject) {
  if (!may("write")) return words.readOnly;
  return isEnrolled(subject) ? "" : words.notEnrolled;
}

function nameOf(item) {
  const said = [item.label ?? words.unnamed, item.camera, item.captured_at && time(item.captured_at)];
  return said.filter(Boolean).join(", ");
}

async function allOf(item) {
  return (await identity(item.identity_id)).items;
}

/** What a box of a photo shows, as an address; null without one, and until it is there. */
function useCrop(url, box) {
  const [crop, setCrop] = useState(null);
  useEffect(() => {
    setCrop(null); // that of another photo
    if (box === null) return;
    let wanted = true;
    let made = null;
    cropOf(url, box).then(
      (blob) => {
        if (wanted) setCrop((made = URL.createObjectURL(blob)));
      },
      () => wanted && toast(boxWords.noPhoto),
    );
    return () => {
      wanted = false;
      URL.revokeObjectURL(made);
    };
  }, [url, String(box)]);
  return crop;
}

/** Whether a picture can be shown. */
function isThere(url) {
  const image = /** @type {any} */ (element("img", { src: url }));
  return image.decode().then(() => true, () => false);
}

/** The attention over both pictures, as addresses; null where it is off, or not there yet. */
function useOverlays(on, subject, photo, item) {
  const [overlays, setOverlays] = useState({ left: null, right: null });
  useEffect(() => {
    setOverlays({ left: null, right: null }); // those of other photos
    if (!on || !item) return;
    let wanted = true;
    const made = [];
    const urlOf = async (blob) => {
      made.push(URL.createObjectURL(await blob));
      return made.at(-1);
    };
    const left = isEnrolled(subject)
      ? api.itemAttention(subject.item.item_id)
      : filesOf(subject).then((files) => api.photoAttention(files[photo], subject.boxes?.[photo]));
    Promise.all([urlOf(left), urlOf(api.itemAttention(item.item_id))]).then(
      ([one, other]) => wanted && setOverlays({ left: one, right: other }),
      (error) => wanted && toast(error.message),
    );
    return () => {
      wanted = false;
      for (const url of made) URL.revokeObjectURL(url);
    };
  }, [on, subject, photo, item]);
  return overlays;
}
