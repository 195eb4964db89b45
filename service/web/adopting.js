/** From a search into the gallery: photos of a subject are enrolled, and said to show whom a match shows. */

import * as api from "./api.js";
import { boxOf } from "./boxing.js";
import { decide, undo as undoStep } from "./api/review.js";
import { enrolSubject } from "./api/subjects.js";
import { changes, tellAdded } from "./items.js";
import { refreshNames } from "./names.js";
import { toast } from "./toasts.js";
import { compare as answers, search as words } from "./words.js";

/** Whether a subject is an enrolled item, and all that this shows. @param {import("./subject.js").Subject} subject */
export const isEnrolled = (subject) => Boolean(subject.item) && !subject.boxes;

/**
 * Enrol the photos of a subject, or the boxes in them; gives their items, and tells of each that was not enrolled.
 * @param {import("./subject.js").Subject} subject
 * @param {{label?: ?string}} said
 */
export async function adopt({ item, kept, boxes }, said) {
  const drawn = boxes?.map(boxOf);
  const results = item
    ? await api.enrolBoxes(item.item_id, drawn.map((box) => ({ box, ...said })))
    : (await enrolSubject(kept.subject_id, drawn ? { ...said, boxes: drawn } : said)).results;
  for (const { filename, error } of results) {
    if (error) toast(words.notAdded(filename, error.detail), null, null);
  }
  tellAdded();
  await refreshNames();
  return results.map(({ item }) => item).filter((item) => item);
}

/**
 * Say what a subject and an item are to each other; the photos of one that is not enrolled are enrolled first.
 * @param {import("./subject.js").Subject} subject
 * @param {any} item
 * @param {"same"|"different"|"unsure"|"not_comparable"} answer
 */
export async function say(subject, item, answer) {
  const items = isEnrolled(subject) ? [subject.item] : await adopt(subject, {});
  const step = await decide(items.map((one) => ({ a: one.item_id, b: item.item_id, answer })));
  const concerned = [...items.map((one) => one.item_id), item.item_id];
  await readAgain(concerned);
  const undo = async () => {
    hide();
    try {
      await undoStep(step.batch_id);
      await readAgain(concerned);
    } catch (error) {
      toast(error.message);
    }
  };
  const hide = toast(answers.said[answer](item.label), { name: "Undo", run: undo });
  return step;
}

async function readAgain(itemIds) {
  for (const itemId of itemIds) {
    changes.dispatchEvent(new CustomEvent("edited", { detail: await api.getItem(itemId) }));
  }
  await refreshNames();
}
